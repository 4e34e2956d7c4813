"""Compare two results of one benchmark, item by item: two checkpoints, two models, or two ways to present a box."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from gpt4roi_nb.evaluate.metrics.statistics import mcnemar
from gpt4roi_nb.evaluate.result import Result
from gpt4roi_nb.evaluate.tables import Column, Table, aligned, table_of

BOTH_RIGHT, ONLY_FIRST, ONLY_SECOND, BOTH_WRONG = OUTCOMES = ("both right", "only first", "only second", "both wrong")
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
        items: all questions in common, with the columns of `changed` and `outcome`: "both right", "only first", "only
            second", "both wrong", or None for a question that is not judged.
        columns: the two results, each as a column of a table, with its card.

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
    >>> int(comparison.cross().to_numpy().sum()), len(comparison.slice("only first")) == comparison.only_first
    (6, True)
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
    items: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    columns: tuple[Column, ...] = field(default=(), repr=False)

    def cross(self) -> pd.DataFrame:
        """Return the cross table: rows are the first result, right and wrong, columns the second."""
        return pd.DataFrame(
            [[self.both_right, self.only_first], [self.only_second, self.both_wrong]],
            index=pd.Index(["right", "wrong"], name="first"),
            columns=pd.Index(["right", "wrong"], name="second"),
        )

    def slice(self, outcome: str) -> pd.DataFrame:
        """Return the questions of one cell of the cross table, such as "only first": right there, wrong in the second.

        Args:
            outcome: "both right", "only first", "only second" or "both wrong".

        Raises:
            ValueError: for another outcome.
        """
        if outcome not in OUTCOMES:
            raise ValueError(f"outcome must be one of {', '.join(map(repr, OUTCOMES))}, but is {outcome!r}")
        return self.items[self.items["outcome"] == outcome].reset_index(drop=True)

    def slices(self, by: str = "kind") -> pd.DataFrame:
        """Return the cross table of each slice, one row per slice.

        Args:
            by: a column of `items`, such as "kind" or "size_bin".

        Returns:
            Number of questions per outcome, and the p-value of McNemar's test of that slice alone. Of many slices, some
            differ by chance.

        Raises:
            ValueError: there is no such column.
        """
        if by not in self.items.columns:
            raise ValueError(f"there is no column {by!r}; there are {', '.join(self.items.columns)}")
        counts = self.items.groupby([by, "outcome"]).size().unstack("outcome", fill_value=0)
        counts = counts.reindex(columns=list(OUTCOMES), fill_value=0)
        counts["p_value"] = [mcnemar(int(row[ONLY_FIRST]), int(row[ONLY_SECOND])) for _, row in counts.iterrows()]
        return counts.rename_axis(columns=None)

    def table(self) -> Table:
        """Return the comparison as text: a column with its own card per result, the cross table, and McNemar's test."""
        lines = [str(table_of("Compared", self.columns)), ""]
        lines.append(f"{self.common:,} questions in common, {len(self.changed):,} changed")
        if self.both_right + self.only_first + self.only_second + self.both_wrong:
            lines += aligned(
                [
                    ("", "[2] right", "[2] wrong"),
                    ("[1] right", f"{self.both_right:,}", f"{self.only_first:,}"),
                    ("[1] wrong", f"{self.only_second:,}", f"{self.both_wrong:,}"),
                ]
            )
            lines.append(f"McNemar's test: p = {self.p_value:.3g}")
        lines += [f"  the cards differ in {name}: {one!r} and {two!r}" for name, (one, two) in self.differences.items()]
        return Table("\n".join(lines))

    def __str__(self) -> str:
        return str(self.table())


def compare(first: Result, second: Result) -> Comparison:
    """Find the items that changed between two results, and test whether that may be chance.

    The results may be of two models, or of one model and two ways to present a box. Each keeps a column of its own: the
    cards say where the protocols differ.

    McNemar's test assumes independent items. Those of one image are not quite independent, so do not rely on a p-value
    close to a threshold.

    Args:
        first: a result.
        second: another result of the same benchmark.

    Returns:
        Counts, p-value, and the items that changed.

    Raises:
        TypeError: one is no `Result`.
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
    for given in (first, second):
        if not isinstance(given, Result):
            raise TypeError(
                f"expected two results, as `evaluate` returns them, but got {type(given).__name__}; "
                "for a folder of `evaluate --out`, take Result.load(folder)"
            )
    if first.benchmark != second.benchmark:
        raise ValueError(f"results must be of one benchmark, but got {first.benchmark!r} and {second.benchmark!r}")
    one, two = first.predictions.set_index("id"), second.predictions.set_index("id")
    in_second = set(two.index)
    common = [name for name in one.index if name in in_second]
    if not common:
        raise ValueError("the two results have no question in common; were they drawn with different seeds?")
    one, two = one.loc[common], two.loc[common]
    judged = (one["correct"].notna() & two["correct"].notna()).to_numpy()
    right_1 = one["correct"].fillna(False).to_numpy(dtype=bool)
    right_2 = two["correct"].fillna(False).to_numpy(dtype=bool)
    cells = dict(
        zip(OUTCOMES, (right_1 & right_2, right_1 & ~right_2, ~right_1 & right_2, ~right_1 & ~right_2), strict=True)
    )
    count = {outcome: int((cell & judged).sum()) for outcome, cell in cells.items()}
    differs = (one["answer"] != two["answer"]).to_numpy(dtype=bool)
    moved = np.where(judged, right_1 != right_2, differs)
    items = one.reset_index()[list(_KEPT)]
    for number, frame in enumerate((one, two), 1):
        for name in _EACH:
            items[f"{name}_{number}"] = frame[name].to_numpy()
    outcomes = np.select([cell & judged for cell in cells.values()], list(OUTCOMES), default="")
    return Comparison(
        common=len(common),
        both_right=count[BOTH_RIGHT],
        only_first=count[ONLY_FIRST],
        only_second=count[ONLY_SECOND],
        both_wrong=count[BOTH_WRONG],
        p_value=mcnemar(count[ONLY_FIRST], count[ONLY_SECOND]) if judged.any() else float("nan"),
        changed=items[moved].reset_index(drop=True),
        metrics={
            name: (value, second.metrics[name]) for name, value in first.metrics.items() if name in second.metrics
        },
        differences=first.card.differences(second.card),
        items=items.assign(outcome=pd.Series([outcome or None for outcome in outcomes.tolist()], dtype=object)),
        columns=tuple(
            Column(result.card.model, result.card.line(), result.metrics, result.intervals)
            for result in (first, second)
        ),
    )
