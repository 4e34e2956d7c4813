"""The table of a `Result` as plain rows, with the kind of error and whether the mappings agree."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gpt4roi_nb.failures.error_kinds import error_kinds

if TYPE_CHECKING:
    from pandas import DataFrame

# Required columns; others may be missing.
COLUMNS = ("id", "image", "width", "height", "question", "answer", "target", "correct", "boxes", "region")
MAX_NAME = 40
SHORT_HASH_LENGTH = 6
ONE_WAY = ("region tokens", "not stated")  # ways that a model's name does without


class ResultLike(Protocol):
    """The parts of a `Result` that this room reads."""

    @property
    def benchmark(self) -> str: ...

    @property
    def card(self) -> Any: ...

    @property
    def predictions(self) -> DataFrame: ...


def rows_of(result: ResultLike) -> list[dict[str, Any]]:
    """Convert the table of a result to one dictionary per prediction, in the table's order.

    Adds `error_kind` (see `error_kinds`) and `mappings_agree`, which is None unless both mappings chose a class.

    Args:
        result: a `Result`.

    Returns:
        Column → value for each row; missing values are None.

    Raises:
        ValueError: a column is missing, two rows share an id, or an image or a box has no width or height.
    """
    table = result.predictions
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise ValueError(f"the result's table has no column {', '.join(missing)}; is it the table of a Result?")
    doubled = table["id"][table["id"].duplicated()]
    if len(doubled):
        raise ValueError(f"ids must be unique within a result, but {len(doubled)} are not, such as {doubled.iloc[0]!r}")
    rows: list[dict[str, Any]] = table.to_dict("records")
    for row, kind in zip(rows, error_kinds(table), strict=True):
        for column, value in row.items():
            if _is_missing(value):
                row[column] = None
        if row["correct"] is not None:
            row["correct"] = bool(row["correct"])
        row["error_kind"] = kind
        _check_sizes(row)
        first, second = row.get("mapped_sbert"), row.get("mapped_lexical")
        row["mappings_agree"] = first == second if first and second else None
    return rows


def _check_sizes(row: dict[str, Any]) -> None:
    if not (row["width"] and row["height"] and row["width"] > 0 and row["height"] > 0):
        raise ValueError(
            f"row {row['id']!r} has an image of {row['width']} × {row['height']} pixels, expected 1 or more"
        )
    for x1, y1, x2, y2 in row["boxes"] if row["boxes"] is not None else ():
        if not (max(x1, 0) < min(x2, row["width"]) and max(y1, 0) < min(y2, row["height"])):
            raise ValueError(
                f"row {row['id']!r} has the box {[float(x1), float(y1), float(x2), float(y2)]}; expected x1 < x2 and "
                f"y1 < y2, within its image of {row['width']} × {row['height']} pixels"
            )


def _is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN or pandas' NA; a list or array is not."""
    if value is None or type(value).__name__ == "NAType":
        return True
    return isinstance(value, float) and value != value


def field_of(result: ResultLike) -> str:
    """Return the name of the field for the predictions of a result's model: letters, digits and underscores.

    It has the model's name, the way in which boxes were presented to it, and the beginning of the hash of its weights.

    Args:
        result: a `Result`.

    >>> from gpt4roi_nb import GPT4RoI
    >>> from gpt4roi_nb.data.scenes.formats.write import write_world
    >>> from gpt4roi_nb.evaluate import evaluate
    >>> from gpt4roi_nb.failures import field_of
    >>> world = write_world("world", 2, progress=False)
    >>> field_of(evaluate("vcr", GPT4RoI.from_pretrained(), world, progress=False))  # ends in a hash of the weights
    'predictions_demo_...'
    """
    name, _, way = (re.sub(r"[^a-z0-9]+", "_", part.lower()).strip("_") for part in model_name(result).partition(" ("))
    # Names repeat ("checkpoint-500"); the hash of the weights does not.
    parts = ("predictions", name[:MAX_NAME], way[:MAX_NAME], result.card.checkpoint[:SHORT_HASH_LENGTH])
    return "_".join(filter(None, parts))


def model_name(result: ResultLike) -> str:
    """Return the name of a result's model; where boxes can be presented to it in several ways, with that way."""
    card = result.card
    name = Path(card.checkpoint_name).name
    return name if card.way in ONE_WAY else f"{name} ({card.shown})"


def fingerprint(rows: list[dict[str, Any]]) -> str:
    """Hash the rows, to tell one result of a checkpoint from another."""
    digest = hashlib.sha256()
    for row in sorted(rows, key=lambda row: str(row["id"])):
        digest.update(repr((row["id"], row["question"], row["answer"], row["target"], row["correct"])).encode())
    return digest.hexdigest()[:16]
