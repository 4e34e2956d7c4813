"""Uncertainty of metrics: bootstrap intervals over images, and McNemar's test between two sets of predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
CONFIDENCE = 0.95
CELLS = 2**24  # (sample, unit) cells that are drawn at a time

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Metric:
    """A metric in per cent, with all that its bootstrap interval needs.

    Attributes:
        value: over all items.
        units: drawn with replacement: images, since regions of one image are not independent.
        of_samples: (samples, units) counts of how often each unit was drawn → (samples,) values, NaN for a sample
            without one; None: no interval.
        draws: maximum number of samples, for metrics that take long.
    """

    value: float
    units: tuple[str, ...]
    of_samples: Callable[[Counts], np.ndarray] | None = None
    draws: int = RESAMPLES


def mean_metric(values: Sequence[float | bool], units: Sequence[str]) -> Metric:
    """Build the metric that is 100 times the mean of values.

    Args:
        values: (N,) between 0 and 1.
        units: (N,) the unit of each value.

    Raises:
        ValueError: the numbers of values and units differ.
    """
    if len(values) != len(units):
        raise ValueError(f"expected one unit per value, but {len(values)} values came with {len(units)} units")
    names = tuple(dict.fromkeys(units))
    if not names:
        return Metric(math.nan, ())
    places = {name: place for place, name in enumerate(names)}
    index = np.array([places[unit] for unit in units])
    each = np.asarray(values, dtype=np.float64)
    sums = np.bincount(index, each, minlength=len(names))
    sizes = np.bincount(index, minlength=len(names))

    def of_samples(counts: Counts) -> np.ndarray:
        return 100 * (counts @ sums) / (counts @ sizes)

    return Metric(float(100 * each.mean()), names, of_samples)


def interval(metric: Metric, seed: int = 0) -> tuple[float, float] | None:
    """Compute the 95% percentile bootstrap interval; None if there is none (one unit, or a metric without samples)."""
    count = len(metric.units)
    if metric.of_samples is None or count < 2:
        return None
    rng = np.random.default_rng(seed)
    draws = min(RESAMPLES, metric.draws)
    step = max(1, CELLS // count)
    values = []
    for start in range(0, draws, step):
        drawn = rng.integers(0, count, (min(step, draws - start), count))
        values.append(metric.of_samples(np.stack([np.bincount(row, minlength=count) for row in drawn])))
    usable = np.concatenate(values)
    usable = usable[~np.isnan(usable)]
    if not len(usable):
        return None
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(usable, [tail, 100 - tail])
    return float(low), float(high)


def intervals(metrics: Mapping[str, Metric], seed: int = 0) -> dict[str, tuple[float, float]]:
    """Compute the intervals of those metrics that have one."""
    found = {name: interval(metric, seed) for name, metric in metrics.items()}
    return {name: bounds for name, bounds in found.items() if bounds is not None}


def mcnemar(only_first: int, only_second: int) -> float:
    """Compute the exact two-sided p-value of McNemar's test.

    If both were equally good, each item that only one has right would be the toss of a fair coin.

    Args:
        only_first: number of items that only the first has right.
        only_second: number of items that only the second has right.
    """
    from scipy.stats import binomtest

    total = only_first + only_second
    return float(binomtest(only_first, total).pvalue) if total else 1.0
