"""A report that is written row by row, so that an early end keeps what was measured.

A row has a figure, a reason why there is none, or the error that its code ended with.
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
class Figure:
    """What a row says. measured: with its unit. beside: what is demanded or computed. met: whether a demand is met;
    None where nothing is demanded."""

    measured: str
    beside: str = ""
    met: bool | None = None


Measure = Callable[[Any], Figure]  # takes what its section has prepared


@dataclass(frozen=True)
class Section:
    """Rows of one subject. prepare: makes what the rows measure; without it none is measured. share: of the whole time
    that has passed when no further row of it begins."""

    title: str
    rows: Sequence[tuple[str, Measure]]
    share: float
    prepare: Callable[[], Any] = lambda: None


class Report:
    """The file that is written, which demands were missed, and which rows failed."""

    def __init__(self, path: Path, minutes: float, title: str) -> None:
        """Begins the file anew. minutes: that all sections may take; rows that would begin later are not measured."""
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
            self._row(name, self._figure(section, measure, prepared, reason))

    def end(self) -> None:
        """Say how long it took, what was missed, and what failed."""
        seconds = time.perf_counter() - self._started
        missed, failed = (", ".join(names) or "none" for names in (self.missed, self.failed))
        self._write(f"\n{seconds:.0f} s. Demands missed: {missed}. Failed: {failed}.")

    def _figure(self, section: Section, measure: Measure, prepared: Any, reason: str | None) -> Figure:
        reason = reason or self._late(section)
        if reason is None:
            figure, reason = self._tried(lambda: measure(prepared))
            if reason is None:
                return figure  # type: ignore[no-any-return]
        return Figure(reason)

    def _tried(self, work: Callable[[], Any]) -> tuple[Any, str | None]:
        """What some work gives, or what to write in the row instead."""
        try:
            return work(), None
        except Exception as error:  # noqa: BLE001  # swallows nothing: the row and the end say it, the command ends with 1
            expected = isinstance(error, NotThisTime | ImportError) or is_out_of_memory(error)
            reason = (NOT_MEASURED if expected else FAILED) + in_words(error)
            clear_frames(error)  # they hold tensors
            return None, reason

    def _late(self, section: Section) -> str | None:
        late = time.perf_counter() - self._started > section.share * self._minutes * 60
        return f"{NOT_MEASURED}its share of the {self._minutes:g} minutes was over" if late else None

    def _row(self, name: str, figure: Figure) -> None:
        if figure.met is False:
            self.missed.append(name)
        if figure.measured.startswith(FAILED):
            self.failed.append(name)
        verdict = {None: "", True: "met", False: MISSED}[figure.met]
        cells = (name, figure.measured, figure.beside, verdict)
        self._write("| " + " | ".join(" ".join(cell.split()).replace("|", "/") for cell in cells) + " |")

    def _write(self, line: str) -> None:
        print(line, flush=True)  # noqa: T201  # what a command does
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def in_words(error: BaseException) -> str:
    """Why there is no figure: one line."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error.name} is not installed"
    if isinstance(error, NotThisTime):
        return str(error)
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return said if len(said) <= _LONGEST_REASON else said[:_LONGEST_REASON] + " …"


class NotThisTime(RuntimeError):
    """A row that this device or size leaves out; its text says why."""
