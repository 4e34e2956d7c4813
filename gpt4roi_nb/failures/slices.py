"""Count a result's predictions by slice, each dimension under the filters of the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpt4roi_nb.failures.error_kinds import ERROR_KINDS, NOT_JUDGED, RIGHT

TAG = "tag"
# Name of a dimension → what a chart calls it.
DIMENSIONS = {
    "kind": "Slice",
    "error_kind": "Kind of error",
    "size_bin": "Size of the box",
    "target": "Right answer",
    "outcome": "Right and wrong",  # of rows with this key: which of several models are right
    TAG: "Tag",
}
# Bars per chart, which shows those with the most wrong answers.
MAX_BARS = 12
_ORDERS: dict[str, Sequence[str]] = {"size_bin": ("small", "medium", "large"), "error_kind": (*ERROR_KINDS, NOT_JUDGED)}


@dataclass(frozen=True)
class Bar:
    """A bar of a chart.

    Attributes:
        value: of the dimension.
        total: number of predictions with this value.
        wrong: number of wrong ones among them.
    """

    value: str
    total: int
    wrong: int


class Slices:
    """Filters rows of a result by the values of their dimensions.

    Args:
        rows: of `rows_of`.
    """

    def __init__(self, rows: Iterable[dict[str, Any]]) -> None:
        self.rows = list(rows)
        self.filters: dict[str, set[str]] = {}
        self._tags: dict[str, list[str]] = {}

    def set_tags(self, tags: Mapping[str, Iterable[str]]) -> None:
        """Set the tags. tags: name → ids of the predictions that have it."""
        self._tags = {}
        for name, items in tags.items():
            for item in items:
                self._tags.setdefault(item, []).append(name)
        known = set(tags)
        if TAG in self.filters and not self.filters[TAG] <= known:
            self.filters[TAG] &= known

    def toggle(self, dimension: str, value: str) -> None:
        """Add a value to the filter of a dimension, or remove it. A dimension without values filters nothing.

        Args:
            dimension: one of `DIMENSIONS`.
            value: of that dimension.

        Raises:
            ValueError: there is no such dimension.
        """
        if dimension not in DIMENSIONS:
            raise ValueError(f"expected a dimension ({', '.join(DIMENSIONS)}), but got {dimension!r}")
        self.filters[dimension] = self.filters.get(dimension, set()) ^ {value}

    def selected(self, but: str | None = None) -> list[dict[str, Any]]:
        """Return the rows that pass the filters of all dimensions, except those of dimension `but`."""
        active = [(name, values) for name, values in self.filters.items() if values and name != but]
        return [
            row for row in self.rows if all(values.intersection(self._values(row, name)) for name, values in active)
        ]

    def bars(self, dimension: str) -> list[Bar]:
        """Count the values of a dimension under the filters of the others, and return at most `MAX_BARS`."""
        total: dict[str, int] = {}
        wrong: dict[str, int] = {}
        for row in self.selected(but=dimension):
            for value in self._values(row, dimension):
                total[value] = total.get(value, 0) + 1
                wrong[value] = wrong.get(value, 0) + (row["correct"] is False)
        for value in self.filters.get(dimension, ()):  # a chosen value stays, so that it can be deselected
            total.setdefault(value, 0)
        found = [Bar(value, total[value], wrong.get(value, 0)) for value in total]
        if dimension == "error_kind":
            found = [bar for bar in found if bar.value != RIGHT]
        chosen = self.filters.get(dimension, set())
        found.sort(key=lambda bar: (bar.value not in chosen, -bar.wrong, -bar.total, bar.value))
        order = _ORDERS.get(dimension)
        shown = found[:MAX_BARS]
        if order:
            shown.sort(key=lambda bar: order.index(bar.value) if bar.value in order else len(order))
        else:
            shown.sort(key=lambda bar: (-bar.wrong, -bar.total, bar.value))
        return shown

    def charts(self) -> dict[str, list[Bar]]:
        """Return dimension → bars, for dimensions with something to choose."""
        found = {name: self.bars(name) for name in DIMENSIONS}
        if all(row.get("target") == row.get("kind") for row in self.rows) and not self.filters.get("target"):
            del found["target"]  # slices are the right answers: one chart suffices
        return {
            name: bars
            for name, bars in found.items()
            if len(bars) > 1 or (bars and (name in (TAG, "error_kind") or self.filters.get(name)))
        }

    def _values(self, row: dict[str, Any], dimension: str) -> list[str]:
        if dimension == TAG:
            return self._tags.get(row["id"], [])
        value = row.get(dimension)
        return [] if value is None or value == "" else [str(value)]
