"""A report that is written row by row, so that an early end keeps what was measured.

A row has a measurement, the reason why there is none, or the error that its code raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4roi_nb.memory import clear_frames, is_out_of_memory

NOT_MEASURED = "not measured: "
MISSED = "**missed**"
FAILED = "**failed**: "
_LONGEST_REASON = 240


@dataclass(frozen=True)
class Measurement:
    """The content of a row.

    Attributes:
        measured: with its unit.
        beside: what is demanded or computed.
        met: whether the demand is met; None if there is none.
    """

    measured: str
    beside: str = ""
    met: bool | None = None


Measure = Callable[[Any], Measurement]  # takes what its section has prepared


@dataclass(frozen=True)
class Section:
    """Rows of one subject.

    Attributes:
        title: of the section.
        rows: (name, measure) for each.
        share: of the total time; no row of this section begins after it.
        prepare: makes what the rows measure; if it fails, none of them is measured.
    """

    title: str
    rows: Sequence[tuple[str, Measure]]
    share: float
    prepare: Callable[[], Any] = lambda: None


class Report:
    """The file being written, and the names of the rows that missed a demand or failed."""

    def __init__(self, path: Path, minutes: float, title: str) -> None:
        """Start an empty file. minutes: for all sections; rows that would begin later are not measured."""
        self._path, self._minutes, self._started = path, minutes, time.perf_counter()
        self.missed: list[str] = []
        self.failed: list[str] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
        self._write(f"# {title}")

    def write(self, section: Section) -> None:
        """Measure a section's rows, one after the other."""
        self._write(f"\n## {section.title}\n\n| what | measured | demanded or computed | |\n|---|---|---|---|")
        prepared, reason = None, self._late(section)
        if reason is None:
            prepared, reason = self._tried(section.prepare)
        for name, measure in section.rows:
            self._row(name, self._measurement(section, measure, prepared, reason))

    def end(self) -> None:
        """Write how long it took, what was missed, and what failed."""
        seconds = time.perf_counter() - self._started
        missed, failed = (", ".join(names) or "none" for names in (self.missed, self.failed))
        self._write(f"\n{seconds:.0f} s. Demands missed: {missed}. Failed: {failed}.")

    def _measurement(self, section: Section, measure: Measure, prepared: Any, reason: str | None) -> Measurement:
        reason = reason or self._late(section)
        if reason is None:
            measurement, reason = self._tried(lambda: measure(prepared))
            if reason is None:
                return measurement  # type: ignore[no-any-return]
        return Measurement(reason)

    def _tried(self, work: Callable[[], Any]) -> tuple[Any, str | None]:
        """The result of some work, or what to write in the row instead."""
        try:
            return work(), None
        except Exception as error:  # noqa: BLE001  # not swallowed: the row, the last line and the exit code show it
            expected = isinstance(error, NotThisTime | ImportError) or is_out_of_memory(error)
            reason = (NOT_MEASURED if expected else FAILED) + in_words(error)
            clear_frames(error)  # they hold tensors
            return None, reason

    def _late(self, section: Section) -> str | None:
        late = time.perf_counter() - self._started > section.share * self._minutes * 60
        return f"{NOT_MEASURED}its share of the {self._minutes:g} minutes was over" if late else None

    def _row(self, name: str, measurement: Measurement) -> None:
        if measurement.met is False:
            self.missed.append(name)
        if measurement.measured.startswith(FAILED):
            self.failed.append(name)
        verdict = {None: "", True: "met", False: MISSED}[measurement.met]
        cells = (name, measurement.measured, measurement.beside, verdict)
        self._write("| " + " | ".join(" ".join(cell.split()).replace("|", "/") for cell in cells) + " |")

    def _write(self, line: str) -> None:
        print(line, flush=True)  # noqa: T201  # what a command does
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def in_words(error: BaseException) -> str:
    """Why there is no measurement, on one line."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error.name} is not installed"
    if isinstance(error, NotThisTime):
        return str(error)
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return said if len(said) <= _LONGEST_REASON else said[:_LONGEST_REASON] + " …"


class NotThisTime(RuntimeError):
    """This device or size leaves a row out; the message says why."""
