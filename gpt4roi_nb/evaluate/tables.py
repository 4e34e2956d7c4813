"""Metrics side by side, one column per protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gpt4roi_nb.evaluate.card import ProtocolCard

NOTHING = "–"


class Table(str):
    """A table as text that a notebook or a Python prompt shows unquoted."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Column:
    """Metrics of one origin.

    Attributes:
        title: head of the column.
        card: what the metrics measure, in one line. No two columns may share a card.
        metrics: name → per cent.
        intervals: name → 95% interval in per cent.
    """

    title: str
    card: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def shown(value: float, interval: tuple[float, float] | None = None) -> str:
    """Format a metric, with its interval if it has one."""
    if math.isnan(value):
        return NOTHING
    return f"{value:.1f}" if interval is None else f"{value:.1f} ({interval[0]:.1f}–{interval[1]:.1f})"


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Return the lines of a table, with a rule below the first row; the first `left` columns stand to the left."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        places = enumerate(zip(row, widths, strict=True))
        cells = [cell.ljust(width) if place < left else cell.rjust(width) for place, (cell, width) in places]
        lines.append("  ".join(cells).rstrip())
        if number == 0:
            lines.append("  ".join("-" * width for width in widths))
    return lines


def table_of(title: str, columns: Sequence[Column], notes: Sequence[str] = ()) -> Table:
    """Build a table with one row per metric and one column per origin.

    Args:
        title: first line.
        columns: one per origin; their cards stand below the table.
        notes: lines after the cards.
    """
    names = list(dict.fromkeys(name for column in columns for name in column.metrics))
    head = [["", *(f"{column.title} [{number}]" for number, column in enumerate(columns, 1))]]
    body = [
        [
            name,
            *(
                shown(column.metrics[name], column.intervals.get(name)) if name in column.metrics else NOTHING
                for column in columns
            ),
        ]
        for name in names
    ]
    lines = [f"{title} (%, with 95% bootstrap intervals over images)", *aligned(head + body), ""]
    lines += [f"[{number}] {column.card}" for number, column in enumerate(columns, 1)]
    lines += [f"Note: {note}" for note in notes]
    return Table("\n".join(lines))


def markdown(
    entries: Sequence[tuple[str, ProtocolCard, Mapping[str, float], Mapping[str, tuple[float, float]]]],
) -> str:
    """Build a Markdown table for documentation, one row per benchmark.

    Args:
        entries: (benchmark, card, metrics, intervals) of each result.
    """
    lines = [
        "| benchmark | figures (%, 95% interval) | asked | scorer and mapping | seconds |",
        "|---|---|---|---|---|",
    ]
    for name, card, metrics, bounds in entries:
        values = "<br>".join(f"{metric} {shown(value, bounds.get(metric))}" for metric, value in metrics.items())
        asked = f"{card.questions:,} questions, {card.regions:,} regions, {card.images:,} images of {card.split}"
        how = "; ".join(part for part in (f"{card.scorer}: {card.decoding}", card.mapping) if part)
        lines.append(f"| {name} | {values} | {asked} | {how} | {card.seconds:,.0f} |")
    cards = {(card.checkpoint, card.model, card.dtype) for _, card, _, _ in entries}
    lines += ["", *(f"Checkpoint {number} ({name}), {dtype}." for number, name, dtype in sorted(cards))]
    return "\n".join(lines)
