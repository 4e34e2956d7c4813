"""Compare two results of one benchmark, item by item."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from gpt4roi_nb.evaluate.metrics.statistics import mcnemar
from gpt4roi_nb.evaluate.result import Result
from gpt4roi_nb.evaluate.tables import Table, shown

_KEPT = ("id", "image", "question", "target", "kind", "size_bin", "boxes", "region")
_EACH = ("answer", "correct", "score", "logprob")


@dataclass(frozen=True, eq=False)
class Comparison:
    """The outcome of `compare`.

    Attributes:
        common: number of questions that both results have.
        both_right, only_first, only_second, both_wrong: numbers of these questions, among those that are judged right
            or wrong.
        p_value: exact McNemar test: the probability of a split at least this uneven among the items that differ, if
            both were equally good. NaN if nothing is judged right or wrong.
        changed: the items that are right in one result and wrong in the other or, if not judged, whose answers differ.
            Columns of each result end in its number: `answer_1`, `answer_2`, ….
        metrics: name → (first value, second value) in per cent.
        differences: entry of the protocol card → (first value, second value), where they differ.

    >>> from gpt4roi_nb import GPT4RoI
    >>> from gpt4roi_nb.data.scenes.formats.write import write_world
    >>> from gpt4roi_nb.evaluate import compare, evaluate
    >>> gpt4roi = GPT4RoI.from_pretrained()
    >>> world = write_world("world", 2, progress=False)
    >>> likely, written = (
    ...     evaluate("vcr", gpt4roi, world, scorer=scorer, progress=False) for scorer in ("likelihood", "generate")
    ... )
    >>> comparison = compare(likely, written)
    >>> comparison.common, comparison.differences["scorer"]
    (6, ('likelihood', 'generate'))
    """

    common: int
    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    p_value: float
    changed: pd.DataFrame = field(repr=False)
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)
    differences: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def table(self) -> Table:
        """Return the comparison as text."""
        width = max(map(len, self.metrics), default=0)
        lines = [f"{name:<{width}}  {shown(one)} → {shown(two)}" for name, (one, two) in self.metrics.items()]
        lines.append(f"{self.common:,} questions in common, {len(self.changed):,} changed")
        if self.both_right + self.only_first + self.only_second + self.both_wrong:
            lines += [
                f"  right in both {self.both_right:,}, in the first alone {self.only_first:,}, "
                f"in the second alone {self.only_second:,}, in neither {self.both_wrong:,}",
                f"  McNemar's test: p = {self.p_value:.3g}",
            ]
        lines += [f"  the cards differ in {name}: {one!r} and {two!r}" for name, (one, two) in self.differences.items()]
        return Table("\n".join(lines))

    def __str__(self) -> str:
        return str(self.table())


def compare(first: Result, second: Result) -> Comparison:
    """Find the items that changed between two results, and test whether that may be chance.

    McNemar's test assumes independent items. Those of one image are not quite independent, so do not rely on a p-value
    close to a threshold.

    Args:
        first: a result.
        second: another result of the same benchmark.

    Returns:
        Counts, p-value, and the items that changed.

    Raises:
        ValueError: the results are of different benchmarks, or have no question in common.

    >>> from gpt4roi_nb import GPT4RoI
    >>> from gpt4roi_nb.data.scenes.formats.write import write_world
    >>> from gpt4roi_nb.evaluate import compare, evaluate
    >>> world = write_world("world", 2, progress=False)
    >>> result = evaluate("vcr", GPT4RoI.from_pretrained(), world, progress=False)
    >>> same = compare(result, result)
    >>> same.common, len(same.changed), same.p_value
    (6, 0, 1.0)
    """
    if first.benchmark != second.benchmark:
        raise ValueError(f"results must be of one benchmark, but got {first.benchmark!r} and {second.benchmark!r}")
    one, two = first.predictions.set_index("id"), second.predictions.set_index("id")
    in_second = set(two.index)
    common = [name for name in one.index if name in in_second]
    if not common:
        raise ValueError("the two results have no question in common; were they drawn with different seeds?")
    one, two = one.loc[common], two.loc[common]
    judged = (one["correct"].notna() & two["correct"].notna()).to_numpy()
    right_1 = one["correct"].fillna(False).to_numpy(dtype=bool) & judged
    right_2 = two["correct"].fillna(False).to_numpy(dtype=bool) & judged
    only_1, only_2 = int((right_1 & ~right_2).sum()), int((right_2 & ~right_1).sum())
    differs = (one["answer"] != two["answer"]).to_numpy()
    moved = ((right_1 != right_2) & judged) | (differs & ~judged)
    changed = one.reset_index()[list(_KEPT)]
    for number, frame in enumerate((one, two), 1):
        for name in _EACH:
            changed[f"{name}_{number}"] = frame[name].to_numpy()
    return Comparison(
        common=len(common),
        both_right=int((right_1 & right_2).sum()),
        only_first=only_1,
        only_second=only_2,
        both_wrong=int((judged & ~right_1 & ~right_2).sum()),
        p_value=mcnemar(only_1, only_2) if judged.any() else float("nan"),
        changed=changed[moved].reset_index(drop=True),
        metrics={
            name: (value, second.metrics[name]) for name, value in first.metrics.items() if name in second.metrics
        },
        differences=first.card.differences(second.card),
    )
