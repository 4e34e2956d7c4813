"""Intervals and McNemar's test, on cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpt4roi_nb.evaluate.metrics.statistics import Metric, interval, mcnemar, mean_metric


def test_the_mean_is_of_all_items_and_its_resamples_are_of_whole_units():
    metric = mean_metric([True, False, True, True], ["a", "a", "b", "b"])
    assert metric.value == 75 and metric.units == ("a", "b")
    assert metric.of_samples(np.array([[1, 1], [2, 0], [0, 2]])).tolist() == [75, 50, 100]


def test_the_interval_of_two_units_is_between_them():
    low, high = interval(mean_metric([0, 1], ["a", "b"]), seed=1)
    assert (low, high) == (0, 100)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(100):
        values = rng.random(60) < 0.7
        low, high = interval(mean_metric(values.tolist(), [str(k) for k in range(60)]), seed)
        covered += low <= 70 <= high
    assert covered >= 88


def test_units_that_hang_together_widen_the_interval():
    values = [value for value in np.random.default_rng(0).random(20) < 0.5 for _ in range(10)]
    apart = interval(mean_metric(values, [str(k) for k in range(200)]))
    together = interval(mean_metric(values, [str(k // 10) for k in range(200)]))
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])


def test_there_is_no_interval_without_units_or_without_resamples():
    assert interval(mean_metric([], [])) is None and math.isnan(mean_metric([], []).value)
    assert interval(mean_metric([1, 0], ["a", "a"])) is None
    assert interval(Metric(50, ("a", "b"))) is None
    assert interval(Metric(50, ("a", "b"), lambda counts: np.full(len(counts), math.nan))) is None
    with pytest.raises(ValueError, match="2 values came with 1 units"):
        mean_metric([0, 1], ["a"])


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(0, 0, 1), (5, 5, 1), (0, 1, 1), (0, 6, 2 / 64), (6, 0, 2 / 64), (1, 9, 2 * 11 / 1024), (3, 5, 2 * 93 / 256)],
)
def test_mcnemar_is_twice_the_tail_of_a_fair_coin(first, second, p):
    assert mcnemar(first, second) == pytest.approx(min(1, p))
