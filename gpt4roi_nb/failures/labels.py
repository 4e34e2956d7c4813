"""Convert rows of a `Result`'s table to FiftyOne's detections."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpt4roi_nb.data.run_lengths import decompressed

GROUND_TRUTH = "ground_truth"
# Attribute of a detection → (column of the table, name of FiftyOne's field class).
SHARED = {
    "item": ("id", "StringField"),
    "question": ("question", "StringField"),
    "target": ("target", "StringField"),
    "region": ("region", "IntField"),
    "size_bin": ("size_bin", "StringField"),
    "kind": ("kind", "StringField"),
}
PREDICTED = {
    **SHARED,
    "answer": ("answer", "StringField"),
    "correct": ("correct", "BooleanField"),
    "score": ("score", "FloatField"),
    "logprob": ("logprob", "FloatField"),
    "margin": ("margin", "FloatField"),
    "mapped_sbert": ("mapped_sbert", "StringField"),
    "mapped_lexical": ("mapped_lexical", "StringField"),
    "mappings_agree": ("mappings_agree", "BooleanField"),
    "error_kind": ("error_kind", "StringField"),
}
# The label is shown on the image; the whole text is an attribute.
MAX_LABEL = 60


def attributes(row: dict[str, Any], columns: dict[str, tuple[str, str]]) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of a row's attributes that have a value, as plain Python values."""
    for name, (column, field) in columns.items():
        value = row.get(column)
        if value is None or (isinstance(value, float) and math.isnan(value)) or value == "":
            continue
        if field == "BooleanField":
            yield name, bool(value)
        elif field == "IntField":
            yield name, int(value)
        elif field == "FloatField":
            yield name, float(value)
        else:
            yield name, str(value)


def relative_box(row: dict[str, Any]) -> list[float]:
    """Return [x, y, width, height] in [0, 1] of the region that a row is about; without one, of the whole image."""
    number, boxes = int(row["region"] or 0), row["boxes"]
    if not 0 < number <= len(boxes):
        return [0.0, 0.0, 1.0, 1.0]
    width, height = float(row["width"]), float(row["height"])
    x1, y1, x2, y2 = (float(value) for value in boxes[number - 1])
    x1, x2 = max(x1 / width, 0.0), min(x2 / width, 1.0)
    y1, y2 = max(y1 / height, 0.0), min(y2 / height, 1.0)
    return [x1, y1, x2 - x1, y2 - y1]


def short_label(text: Any) -> str:
    """Cut a text to `MAX_LABEL` characters; "(nothing)" for an empty one."""
    text = str(text or "").strip() or "(nothing)"
    return text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1].rstrip() + "…"


def decode_mask(counts: str, width: int, height: int) -> np.ndarray:
    """Decode COCO's compressed run lengths.

    Args:
        counts: the run lengths; see `data.run_lengths`.
        width, height: of the mask in pixels.

    Returns:
        (height, width) bool.

    Raises:
        ValueError: the text is not run lengths (BadRecord), or the runs do not add up to the size.
    """
    runs = decompressed(counts)
    if sum(runs) != width * height or min(runs, default=0) < 0:
        raise ValueError(
            f"the runs of a mask of {width} × {height} pixels must add up to {width * height}, but give {sum(runs)}"
        )
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T


def mask_in_box(counts: str, row: dict[str, Any]) -> np.ndarray | None:
    """Return the part of a mask inside the row's box, as FiftyOne stores it; None if it is empty."""
    width, height = int(row["width"]), int(row["height"])
    x, y, w, h = relative_box(row)
    left, top = round(x * width), round(y * height)
    part = decode_mask(counts, width, height)[top : round((y + h) * height), left : round((x + w) * width)]
    return part if part.size else None
