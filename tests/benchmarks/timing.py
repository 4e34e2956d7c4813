"""Time several works in turn, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

Name = TypeVar("Name")


class Seconds(NamedTuple):
    """Seconds by two clocks. processor: of this process and its ended children. wall: as time passes."""

    processor: float
    wall: float

    def __str__(self) -> str:
        return f"{_shown(self.processor)} of processor, {_shown(self.wall)} by the clock"


def _shown(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def clocks() -> Seconds:
    """What both clocks show."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Seconds(time.process_time() + ended.ru_utime + ended.ru_stime, time.perf_counter())


def timed(work: Callable[[], object]) -> Seconds:
    """Seconds of one run."""
    before = clocks()
    work()
    return Seconds(*(after - start for after, start in zip(clocks(), before, strict=True)))


def measured(works: Mapping[Name, Callable[[], object]], repeats: int) -> dict[Name, Seconds]:
    """Run all works in turn, so many times; the median of each."""
    times: dict[Name, list[Seconds]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(timed(work))
    return {name: median(several) for name, several in times.items()}


def median(several: list[Seconds]) -> Seconds:
    """Of each clock by itself."""
    return Seconds(*(statistics.median(each) for each in zip(*several, strict=True)))


def quotient(over: Seconds, under: Seconds) -> tuple[float, str]:
    """Return the ratio of processor time, and both ratios in words."""
    ratio = over.processor / under.processor
    return ratio, f"{over} / {under}; by the clock {over.wall / under.wall:.3g}"
