"""The saved views of a dataset of failures, with the same names for each checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from gpt4roi_nb.failures.error_kinds import WRONG_REGION

# Number of failures that the model was surest of: a screenful or two, to be read one by one.
MOST_CONFIDENT = 100
# One view per slice, the most frequent first; more do not fit a menu.
MAX_SLICES = 100


FAILURES = "failures"


def view_name(whose: str, title: str) -> str:
    """Return the name of a saved view. whose: see `label_for`."""
    return f"{whose}: {title}"


def label_for(name: str, field: str, taken: Iterable[str]) -> str:
    """Return the prefix of a field's saved views: the model's name or, if that is taken, the field's."""
    return field.removeprefix("predictions_") if _slug(name) in map(_slug, taken) else name


def _slug(name: str) -> str:
    """Reduce a name to what FiftyOne distinguishes views by: letters and digits."""
    return re.sub(r"[\W_]+", "-", name.lower())


def make_views(fo: Any, dataset: Any, field: str, rows: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield (name, view) for each saved view of one checkpoint's field, except empty ones.

    A view shows the images with matching labels, and in this field only these labels; the ground truth stays.

    Args:
        fo: the module `fiftyone`.
        dataset: of `to_fiftyone`.
        field: of predictions.
        rows: of `rows_of`.
    """
    F = fo.ViewField
    wrong = F("correct") == False  # noqa: E712  # an expression, not a comparison

    def only(condition: Any) -> Any:
        return dataset.filter_labels(field, condition)

    if any(row["correct"] is False for row in rows):
        yield FAILURES, only(wrong)
    if any(row["error_kind"] == WRONG_REGION for row in rows):
        yield "wrong region", only(F("error_kind") == WRONG_REGION)
    limit = _least_of_most_confident(rows)
    if limit is not None:
        surest = F(f"{field}.detections").map(F("logprob")).max()
        yield "most confident failures", only(wrong & (F("logprob") >= limit)).sort_by(surest, reverse=True)
    if any(row.get("mappings_agree") is False for row in rows):
        yield "the two mappings disagree", only(F("mappings_agree") == False)  # noqa: E712
    if any(row.get("size_bin") == "small" for row in rows):
        yield "small boxes", only(F("size_bin") == "small")
    for value in slices(rows):
        yield f"slice {value}", only(F("kind") == value)


def slices(rows: list[dict[str, Any]]) -> list[str]:
    """Return the values of `kind`, the most frequent first, at most `MAX_SLICES`."""
    counts: dict[str, int] = {}
    for row in rows:
        if kind := str(row.get("kind") or ""):
            counts[kind] = counts.get(kind, 0) + 1
    return sorted(counts, key=lambda kind: (-counts[kind], kind))[:MAX_SLICES]


def _least_of_most_confident(rows: list[dict[str, Any]]) -> float | None:
    surest = sorted(
        (row["logprob"] for row in rows if row["correct"] is False and row.get("logprob") is not None), reverse=True
    )
    return surest[:MOST_CONFIDENT][-1] if surest else None
