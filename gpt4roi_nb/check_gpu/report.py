"""A report that is written row by row, so that an early end keeps what was measured; a row has a figure or a reason."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4roi_nb.memory import clear_frames

NOT_MEASURED = "not measured: "
MISSED = "**missed**"
# What a missing package, a full card, another version of a library or a kernel that is not there raise.
REASONS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    subprocess.SubprocessError,
    TypeError,
    ValueError,
)
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
    """The file that is written, and whether a demand was missed."""

    def __init__(self, path: Path, minutes: float, title: str) -> None:
        """Begins the file anew. minutes: that all sections may take; rows that would begin later are not measured."""
        self._path, self._minutes, self._started = path, minutes, time.perf_counter()
        self.missed: list[str] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
        self._write(f"# {title}")

    def write(self, section: Section) -> None:
        """Measure a section's rows, one after the other."""
        self._write(f"\n## {section.title}\n\n| what | measured | demanded or computed | |\n|---|---|---|---|")
        prepared, reason = None, self._late(section)
        if reason is None:
            try:
                prepared = section.prepare()
            except REASONS as error:
                reason = in_words(error)
                clear_frames(error)
        for name, measure in section.rows:
            self._row(name, self._figure(section, measure, prepared, reason))

    def end(self) -> None:
        """Say how long it took, and what was missed."""
        seconds = time.perf_counter() - self._started
        self._write(f"\n{seconds:.0f} s. Demands missed: {', '.join(self.missed) or 'none'}.")

    def _figure(self, section: Section, measure: Measure, prepared: Any, reason: str | None) -> Figure:
        reason = reason or self._late(section)
        if reason is None:
            try:
                return measure(prepared)
            except REASONS as error:
                reason = in_words(error)
                clear_frames(error)  # they hold tensors
        return Figure(NOT_MEASURED + reason)

    def _late(self, section: Section) -> str | None:
        late = time.perf_counter() - self._started > section.share * self._minutes * 60
        return f"its share of the {self._minutes:g} minutes was over" if late else None

    def _row(self, name: str, figure: Figure) -> None:
        if figure.met is False:
            self.missed.append(name)
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
