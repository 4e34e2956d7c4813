"""How sure a figure is: bootstrap intervals over images, and McNemar's test between two sets of predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
CONFIDENCE = 0.95

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Figure:
    """A figure in per cent, with what is needed to see how it scatters.

    value: of all items.
    units: what is drawn with replacement: images, since regions of one are not independent of one another.
    of: the figure of a sample in which unit k came `counts[k]` times, NaN where it has none; None: no interval.
    draws: at most so many samples, for figures that take long.
    """

    value: float
    units: tuple[str, ...]
    of: Callable[[Counts], float] | None = None
    draws: int = RESAMPLES


def mean_figure(values: Sequence[float | bool], units: Sequence[str]) -> Figure:
    """100 times the mean of values between 0 and 1, of which each belongs to a unit."""
    if len(values) != len(units):
        raise ValueError(f"expected a unit a value, but {len(values)} values came with {len(units)} units")
    names = tuple(dict.fromkeys(units))
    if not names:
        return Figure(math.nan, ())
    places = {name: place for place, name in enumerate(names)}
    index = np.array([places[unit] for unit in units])
    each = np.asarray(values, dtype=np.float64)
    sums = np.bincount(index, each, minlength=len(names))
    sizes = np.bincount(index, minlength=len(names))

    def of(counts: Counts) -> float:
        return float(100 * (counts @ sums) / (counts @ sizes))

    return Figure(float(100 * each.mean()), names, of)


def interval(figure: Figure, seed: int = 0) -> tuple[float, float] | None:
    """The 95% percentile bootstrap interval, or None where there is none (one unit, or a figure that has no `of`)."""
    count = len(figure.units)
    if figure.of is None or count < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(min(RESAMPLES, figure.draws)):
        counts = np.bincount(rng.integers(0, count, count), minlength=count)
        drawn.append(figure.of(counts))
    usable = [value for value in drawn if not math.isnan(value)]
    if not usable:
        return None
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(usable, [tail, 100 - tail])
    return float(low), float(high)


def intervals(figures: Mapping[str, Figure], seed: int = 0) -> dict[str, tuple[float, float]]:
    """The intervals of those figures that have one."""
    found = {name: interval(figure, seed) for name, figure in figures.items()}
    return {name: bounds for name, bounds in found.items() if bounds is not None}


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of McNemar's test.

    only_first: items that only the first has right; only_second: that only the second has. Were both as good, each such
    item would be a toss of a fair coin.
    """
    total = only_first + only_second
    if not total:
        return 1.0
    log_half = total * math.log(0.5)
    tail = sum(
        math.exp(math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) + log_half)
        for k in range(min(only_first, only_second) + 1)
    )
    return min(1.0, 2 * tail)
