"""The table of predictions: one row per question, the same columns for every benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gpt4roi_nb.evaluate.benchmarks.item import Item, Prediction, Scores
from gpt4roi_nb.files import check_regular_file, replacing

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("target", pa.string()),
        ("correct", pa.bool_()),
        ("score", pa.float64()),
        ("logprob", pa.float64()),
        ("margin", pa.float64()),
        ("boxes", pa.list_(pa.list_(pa.float64()))),
        ("region", pa.int64()),
        ("size_bin", pa.string()),
        ("kind", pa.string()),
        ("mapped_sbert", pa.string()),
        ("mapped_lexical", pa.string()),
        ("mask", pa.string()),
        ("options", pa.list_(pa.string())),
        ("option_logprobs", pa.list_(pa.float64())),
        ("seconds", pa.float64()),
    ]
)
COLUMNS = tuple(SCHEMA.names)

# COCO's bounds of small and medium areas, for images with this longest side.
SMALL, MEDIUM, LONGEST_SIDE = 32**2, 96**2, 640


def size_bin(box: Sequence[float], width: int, height: int) -> str:
    """Classify a box as "small", "medium" or "large" by its area, scaled to a longest image side of 640 pixels.

    Args:
        box: pixel xyxy.
        width, height: of the image in pixels.
    """
    scale = LONGEST_SIDE / max(width, height)
    area = (box[2] - box[0]) * (box[3] - box[1]) * scale**2
    return "small" if area < SMALL else "medium" if area < MEDIUM else "large"


def predictions_table(items: Sequence[Item], predictions: Sequence[Prediction], scores: Scores) -> pd.DataFrame:
    """Build the table, one row per item, in their order."""
    rows = []
    for place, (item, prediction) in enumerate(zip(items, predictions, strict=True)):
        rows.append(_row(item, prediction, {name: values[place] for name, values in scores.columns.items()}))
    return _frame(rows)


def _row(item: Item, prediction: Prediction, scored: dict[str, Any]) -> dict[str, Any]:
    size = prediction.width, prediction.height
    return {
        "id": item.id,
        "image": item.image,
        "width": prediction.width,
        "height": prediction.height,
        "question": item.question,
        "answer": prediction.answer,
        "target": item.target,
        "logprob": prediction.logprob,
        "margin": margin(prediction.option_logprobs),
        "boxes": [list(map(float, box)) for box in item.boxes],
        "region": item.region,
        "size_bin": size_bin(item.boxes[item.region - 1], *size) if item.region else "",
        "kind": item.kind,
        "mask": item.mask,
        "options": list(item.options) or None,
        "option_logprobs": None if prediction.option_logprobs is None else list(prediction.option_logprobs),
        "seconds": prediction.seconds,
        **scored,
    }


def margin(option_logprobs: Sequence[float] | None) -> float | None:
    """Return the log-probability of the likeliest option minus that of the next; None without two options."""
    if option_logprobs is None or len(option_logprobs) < 2:
        return None
    best, second = sorted(option_logprobs, reverse=True)[:2]
    return best - second


def _frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    whole = [{name: row.get(name) for name in COLUMNS} for row in rows]
    columns = {name: pd.Series([row[name] for row in whole], dtype=object) for name in COLUMNS}
    frame = pd.DataFrame(columns, columns=list(COLUMNS))
    numbers = {"width": "int64", "height": "int64", "region": "int64"}
    numbers |= dict.fromkeys(("score", "logprob", "margin", "seconds"), "float64")
    return frame.astype({**numbers, "correct": "boolean"})


def write_predictions(frame: pd.DataFrame, file: Path) -> None:
    """Write a table as Parquet, atomically."""
    with replacing(file) as partial:
        pq.write_table(pa.Table.from_pandas(frame, schema=SCHEMA, preserve_index=False), partial)


def read_predictions(file: Path) -> pd.DataFrame:
    """Read a table that `write_predictions` wrote. Raises ValueError if it is damaged."""
    check_regular_file(file)
    try:
        return _frame(pq.read_table(file, schema=SCHEMA).to_pylist())
    except (OSError, pa.ArrowException, TypeError, ValueError) as error:  # also a null in a column of integers
        raise ValueError(f"{str(file)!r} is damaged or cut short: {error}") from error
