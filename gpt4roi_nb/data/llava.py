"""LLaVA-Instruct: conversations about a picture, with the boxes that a detector found in it.

The detector's boxes come beside the conversations, normalised, in one of three forms:

- `.pkl`: a list of `{"filename", "pred_bboxes": (N, 5) normalised xyxy and score, "labels": (N,)}`;
- `.parquet`: the columns `filename` and `pred_bboxes`, a list of N lists of 5;
- `.npz`: `filename` (P,), `pred_bboxes` (M, 5) of all pictures one after another, `offsets` (P + 1,): picture p has the
  rows offsets[p] to offsets[p + 1].
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from gpt4roi_nb.arguments import real_number, whole_number
from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.box_check import box_from_xyxy
from gpt4roi_nb.data.image_files import Folder, image_size
from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.pickles import PICKLES, read_pickle
from gpt4roi_nb.data.problems import (
    MISSING,
    WRONG_TURNS,
    WRONG_TYPE,
    BadRecord,
    Problems,
    UniqueTable,
    field,
    path_field,
    text_field,
)
from gpt4roi_nb.data.record import DIALOGUE, Annotation, as_boxes, harmless
from gpt4roi_nb.files import check_regular_file

IMAGE_MARK = "<image>"
SPEAKERS = ("human", "gpt")
MIN_SCORE = 0.3
MAX_BOXES = 20

COLUMNS = 5  # of a detection: normalised xyxy and score

# N rows of `COLUMNS` float64 by bare file name. Bytes, since a hundred boxes a picture would be gigabytes as tuples.
Detections = dict[str, bytes]


def read_llava(
    file: Path,
    problems: Problems,
    images: Path | None = None,
    *,
    also: Sequence[Path] = (),
    name: str = "llava",
    boxes: Path | None = None,
    min_score: float = MIN_SCORE,
    max_boxes: int = MAX_BOXES,
) -> Iterator[Annotation]:
    """An annotation a conversation; without `boxes` it has no regions.

    Args:
        images: the pictures' folder; with `boxes` it is needed, since they count in pictures, not in pixels.
        also: folders that links in `images` may lead to.
        boxes: the detector's file.
        min_score, max_boxes: the best `max_boxes` of each picture that score at least `min_score`.
    """
    if boxes is not None and images is None:
        raise ValueError("the detector's boxes are shares of the picture's sides; give the pictures' folder too")
    max_boxes = whole_number(max_boxes, "max_boxes", least=0)
    min_score = real_number(min_score, "min_score")
    if not math.isfinite(min_score):
        raise ValueError(f"min_score must be a finite number, but is {min_score}")
    detections = read_detections(boxes, problems) if boxes is not None else {}
    folder = Folder(images, also) if images is not None else None
    for index, (_, entry) in enumerate(elements(file, problems)):
        where = f"{file.name}: conversation {index}"
        try:
            image = path_field(entry, "image")
            texts = _turns(field(entry, "conversations", list))
            found = detections.get(PurePosixPath(image).name)
            rows: list[Box] = []
            if found is not None and folder is not None:
                width, height = image_size(folder.file(image))
                for row in _best(found, min_score, max_boxes):
                    try:
                        xyxy = [row[0] * width, row[1] * height, row[2] * width, row[3] * height]
                        rows.append(box_from_xyxy(xyxy, width, height))
                    except BadRecord as bad:
                        problems.add(bad, f"{where}, a detected box")
            # One picture has conversations of several sorts, all under the picture's id.
            record_id = f"{field(entry, 'id', str)}-{index}"
            yield Annotation(DIALOGUE, image, as_boxes(rows), texts, name, record_id)
        except BadRecord as bad:
            problems.add(bad, where)


def read_detections(file: Path, problems: Problems) -> Detections:
    """The detector's boxes; an entry that is malformed is noted.

    Raises:
        FileNotFoundError, IsADirectoryError: no such file, or a folder.
        ValueError: the file is of none of the three forms.
    """
    check_regular_file(file)
    found: UniqueTable[str, bytes] = UniqueTable()
    for number, (name, rows) in enumerate(_readable(file)):
        try:
            if not isinstance(name, str):
                raise BadRecord(WRONG_TYPE, f"'filename' must be a text, but is a {type(name).__name__}")
            found.add(PurePosixPath(name).name, _five_columns(rows))
        except BadRecord as bad:
            problems.add(bad, f"{file.name}: entry {number}")
    return found


def _readable(file: Path) -> Iterator[tuple[Any, Any]]:
    """As `_entries`. Raises ValueError, which names the file, where it cannot be read to its end."""
    try:
        yield from _entries(file)
    except (ValueError, LookupError, TypeError, OSError, EOFError, MemoryError, NotImplementedError) as error:
        raise ValueError(f"{str(file)!r} is no file of detected boxes, or cut short: {error!r}") from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{str(file)!r} is a damaged or truncated .npz: {error}") from error


def _entries(file: Path) -> Iterable[tuple[Any, Any]]:
    """(file name, boxes) of each picture, as they stand in the file."""
    if file.suffix in PICKLES:
        content = read_pickle(file, arrays=True)
        return [(entry["filename"], entry["pred_bboxes"]) for entry in content]
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as content:
            names, boxes, offsets = (content[key] for key in ("filename", "pred_bboxes", "offsets"))
        if names.ndim != 1 or offsets.shape != (len(names) + 1,) or offsets.dtype.kind not in "iu":
            raise ValueError(f"'offsets' must be {len(np.atleast_1d(names)) + 1} whole numbers")
        if offsets[0] != 0 or offsets[-1] != len(boxes) or (np.diff(offsets.astype(np.int64)) < 0).any():
            raise ValueError(f"'offsets' must rise from 0 to {len(boxes)}, the number of boxes")
        return zip(names.tolist(), np.split(boxes, offsets[1:-1]), strict=True)
    if file.suffix == ".parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(file, columns=["filename", "pred_bboxes"])
        return zip(table["filename"].to_pylist(), (rows.as_py() for rows in table["pred_bboxes"]), strict=True)
    raise ValueError(f"expected .pkl, .npz or .parquet, but it is {file.suffix!r}")


def _five_columns(rows: Any) -> bytes:
    """An entry's boxes, as `_best` takes them. Raises BadRecord where they are not of shape (N, 5)."""
    try:
        array = np.asarray(rows, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRecord(WRONG_TYPE, f"'pred_bboxes' must be numbers of shape (N, {COLUMNS})") from error
    if array.size and (array.ndim != 2 or array.shape[1] != COLUMNS):
        raise BadRecord(WRONG_TYPE, f"'pred_bboxes' must be of shape (N, {COLUMNS}), but is of shape {array.shape}")
    return (array + 0.0).tobytes()  # + 0.0: what is equal as numbers is equal as bytes, but -0.0 is not


def _best(rows: bytes, min_score: float, count: int) -> list[list[float]]:
    numbers: list[list[float]] = np.frombuffer(rows).reshape(-1, COLUMNS).tolist()
    return sorted((row for row in numbers if row[4] >= min_score), key=lambda row: -row[4])[:count]


def _turns(turns: list[Any]) -> tuple[str, ...]:
    """The texts in turn, the human's first, without the picture's mark, which stands at either end of the first."""
    if not turns or len(turns) % 2:
        raise BadRecord(WRONG_TURNS, f"human and gpt must take turns, gpt last, but there are {len(turns)} turns")
    texts = []
    for index, turn in enumerate(turns):
        speaker = field(turn, "from", str)
        if speaker != SPEAKERS[index % 2]:
            raise BadRecord(WRONG_TURNS, f"turn {index} must be {SPEAKERS[index % 2]!r}'s, but is {speaker!r}'s")
        text = text_field(turn, "value").strip()
        if index == 0:
            text = text.removeprefix(IMAGE_MARK).removesuffix(IMAGE_MARK).strip()
        if IMAGE_MARK in text:
            raise BadRecord(WRONG_TYPE, f"turn {index} speaks of another picture: {IMAGE_MARK} within the text")
        text = harmless(text)
        if not text:
            raise BadRecord(MISSING, f"turn {index} says nothing")
        texts.append(text)
    return tuple(texts)
