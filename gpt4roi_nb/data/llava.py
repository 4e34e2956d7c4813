"""LLaVA-Instruct: conversations about an image, with the boxes that a detector found in it.

The detector's boxes lie in a file of their own, normalised, in one of three forms:

- `.pkl`: a list of `{"filename", "pred_bboxes": (N, 5) normalised xyxy and score, "labels": (N,)}`;
- `.parquet`: the columns `filename`, `pred_bboxes`, a list of N lists of 5, and `labels`, a list of N;
- `.npz`: `filename` (P,), `pred_bboxes` (M, 5) of all images one after another, `labels` (M,), `offsets` (P + 1,):
  image p has the rows offsets[p] to offsets[p + 1].

A label is the index of one of LVIS's categories, from 0. Labels may be absent if no names are wanted.
"""

from __future__ import annotations

import itertools
import math
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from gpt4roi_nb.arguments import real_number, whole_number
from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.box_check import box_from_xyxy
from gpt4roi_nb.data.coco import category_name
from gpt4roi_nb.data.image_files import Folder, image_size
from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.pickles import PICKLES, read_pickle
from gpt4roi_nb.data.problems import (
    MISSING,
    OUT_OF_RANGE,
    WRONG_TURNS,
    WRONG_TYPE,
    BadRecord,
    Problems,
    UniqueTable,
    field,
    is_blank,
    path_field,
    text_field,
)
from gpt4roi_nb.data.record import DETECTED_DIALOGUE, DIALOGUE, Annotation, as_boxes, harmless
from gpt4roi_nb.files import check_regular_file

IMAGE_MARK = "<image>"
SPEAKERS = ("human", "gpt")
# As in the authors' gpt4roi/datasets/det_llava.py: the best MAX_BOXES boxes that score more than MIN_SCORE and are
# wider and higher than MIN_SIDE of the image; if there is none, the best FALLBACK boxes of any score and size.
MIN_SCORE, MIN_SIDE, MAX_BOXES, FALLBACK = 0.3, 0.02, 100, 10

COLUMNS = 5  # of a detection in the files: normalised xyxy and score
NO_LABEL = -1

# By bare file name: N rows of `COLUMNS` float64 and the label. As bytes, since a hundred boxes per image would take
# gigabytes as tuples.
Detections = dict[str, bytes]


def read_llava(
    file: Path,
    problems: Problems,
    images: Path | None = None,
    *,
    also: Sequence[Path] = (),
    name: str = "llava",
    boxes: Path | None = None,
    categories: Path | None = None,
    min_score: float = MIN_SCORE,
    min_side: float = MIN_SIDE,
    max_boxes: int = MAX_BOXES,
    fallback: int = FALLBACK,
) -> Iterator[Annotation]:
    """Yield one annotation per conversation; without `boxes` it has no regions.

    Args:
        images: the image folder; required with `boxes`, which are shares of the image's sides, not pixels.
        also: folders that links in `images` may lead to.
        name: the source that records name.
        boxes: the detector's file.
        categories: an LVIS annotation file, whose categories give the detector's labels their names; without it, boxes
            have no names.
        min_score, min_side, max_boxes: of each image, use the best `max_boxes` boxes that score more than `min_score`
            and whose sides are more than `min_side` of the image's.
        fallback: if no box is left, use this many of the best, whatever their score and size.

    Raises:
        ValueError, TypeError: a limit is not a finite number, or not a whole one; or `boxes` without `images`.
    """
    if boxes is not None and images is None:
        raise ValueError("the detector's boxes are shares of the image's sides; give images= too, the image folder")
    max_boxes = whole_number(max_boxes, "max_boxes", least=0)
    fallback = whole_number(fallback, "fallback", least=0)
    limits = {"min_score": real_number(min_score, "min_score"), "min_side": real_number(min_side, "min_side")}
    for option, limit in limits.items():
        if not math.isfinite(limit):
            raise ValueError(f"{option} must be a finite number, but is {limit}")
    names = None if categories is None else _names(categories, problems)
    detections = read_detections(boxes, problems) if boxes is not None else {}
    folder = Folder(images, also) if images is not None else None
    for index, (_, entry) in enumerate(elements(file, problems)):
        where = f"{file.name}: conversation {index}"
        try:
            image = path_field(entry, "image")
            texts = texts_of_turns(field(entry, "conversations", list))
            found = detections.get(PurePosixPath(image).name)
            rows: list[Box] = []
            labels: list[str] = []
            if found is not None and folder is not None:
                width, height = image_size(folder.file(image))
                for row in _best(found, **limits, max_boxes=max_boxes, fallback=fallback):
                    try:
                        xyxy = [row[0] * width, row[1] * height, row[2] * width, row[3] * height]
                        box = box_from_xyxy(xyxy, width, height)
                        labels += [] if names is None else [_name_of(row[COLUMNS], names)]
                        rows.append(box)
                    except BadRecord as bad:
                        problems.add(bad, f"{where}, a detected box")
            # An image has conversations of several sorts, all under the image's id.
            record_id = f"{field(entry, 'id', str)}-{index}"
            kind = DETECTED_DIALOGUE if labels else DIALOGUE
            yield Annotation(kind, image, as_boxes(rows), (*labels, *texts), name, record_id)
        except BadRecord as bad:
            problems.add(bad, where)


def read_detections(file: Path, problems: Problems) -> Detections:
    """Read the detector's boxes; note malformed entries.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file, or it is a folder.
        ValueError: the file has none of the three forms.
    """
    check_regular_file(file)
    found: UniqueTable[str, bytes] = UniqueTable()
    for number, (name, rows, labels) in enumerate(_readable(file)):
        try:
            if not isinstance(name, str):
                raise BadRecord(WRONG_TYPE, f"'filename' must be a string, but is a {type(name).__name__}")
            found.add(PurePosixPath(name).name, _with_labels(rows, labels))
        except BadRecord as bad:
            problems.add(bad, f"{file.name}: entry {number}")
    return found


def _readable(file: Path) -> Iterator[tuple[Any, Any, Any]]:
    """As `_entries`. Raises ValueError, which names the file, if it cannot be read to its end."""
    try:
        yield from _entries(file)
    except (ValueError, LookupError, TypeError, OSError, EOFError, MemoryError, NotImplementedError) as error:
        raise ValueError(f"{str(file)!r} is not a file of detected boxes, or is cut short: {error!r}") from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{str(file)!r} is a damaged or truncated .npz: {error}") from error


def _entries(file: Path) -> Iterable[tuple[Any, Any, Any]]:
    """(file name, boxes, labels) of each image, as the file has them; None for absent labels."""
    if file.suffix in PICKLES:
        content = read_pickle(file, arrays=True)
        return [(entry["filename"], entry["pred_bboxes"], entry.get("labels")) for entry in content]
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as content:
            names, boxes, offsets = (content[key] for key in ("filename", "pred_bboxes", "offsets"))
            labels = content.get("labels")
        if names.ndim != 1 or offsets.shape != (len(names) + 1,) or offsets.dtype.kind not in "iu":
            raise ValueError(f"'offsets' must be {len(np.atleast_1d(names)) + 1} whole numbers")
        if offsets[0] != 0 or offsets[-1] != len(boxes) or (np.diff(offsets.astype(np.int64)) < 0).any():
            raise ValueError(f"'offsets' must rise from 0 to {len(boxes)}, the number of boxes")
        if labels is not None and labels.shape != (len(boxes),):
            raise ValueError(f"'labels' must be {len(boxes)} numbers, one per box, but their shape is {labels.shape}")
        cuts = offsets[1:-1]
        labels_of_each: list[Any] = [None] * len(names) if labels is None else np.split(labels, cuts)
        return zip(names.tolist(), np.split(boxes, cuts), labels_of_each, strict=True)
    if file.suffix == ".parquet":
        import pyarrow.parquet

        columns = ["filename", "pred_bboxes"]
        labelled = "labels" in pyarrow.parquet.read_schema(file).names
        table = pyarrow.parquet.read_table(file, columns=[*columns, "labels"] if labelled else columns)
        rows = (row.as_py() for row in table["pred_bboxes"])
        every: Iterable[Any] = (
            (row.as_py() for row in table["labels"]) if labelled else itertools.repeat(None, len(table))
        )
        return zip(table["filename"].to_pylist(), rows, every, strict=True)
    raise ValueError(f"expected .pkl, .npz or .parquet, but it is {file.suffix!r}")


def _with_labels(rows: Any, labels: Any) -> bytes:
    """An entry's boxes with their labels, as `_best` takes them. Raises BadRecord for other shapes."""
    try:
        array = np.asarray(rows, np.float64)
        column = None if labels is None else np.asarray(labels)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRecord(WRONG_TYPE, f"'pred_bboxes' must be numbers of shape (N, {COLUMNS})") from error
    if array.size and (array.ndim != 2 or array.shape[1] != COLUMNS):
        raise BadRecord(WRONG_TYPE, f"'pred_bboxes' must be of shape (N, {COLUMNS}), but is of shape {array.shape}")
    array = array.reshape(-1, COLUMNS)
    if column is None:
        column = np.full(len(array), NO_LABEL)
    if column.shape != (len(array),) or (len(array) and column.dtype.kind not in "iu"):
        raise BadRecord(WRONG_TYPE, f"'labels' must be {len(array)} whole numbers, one per box")
    # + 0.0, since equal numbers have equal bytes except for -0.0
    return np.column_stack([array + 0.0, column.astype(np.float64)]).tobytes()


def _best(rows: bytes, *, min_score: float, min_side: float, max_boxes: int, fallback: int) -> list[list[float]]:
    """Rows of xyxy, score and label, best first."""
    numbers: list[list[float]] = np.frombuffer(rows).reshape(-1, COLUMNS + 1).tolist()
    numbers.sort(key=lambda row: -row[4])
    good = [row for row in numbers if row[4] > min_score and min(row[2] - row[0], row[3] - row[1]) > min_side]
    return good[:max_boxes] or numbers[: min(fallback, max_boxes)]


def _names(file: Path, problems: Problems) -> list[str]:
    """The categories of an annotation file, in the order of their ids. Raises ValueError if there are none."""
    check_regular_file(file)
    found: UniqueTable[int, str] = UniqueTable()
    for number, (key, entry) in enumerate(elements(file, problems)):
        if key == "categories":
            try:
                found.add(field(entry, "id", int), category_name(entry))
            except BadRecord as bad:
                problems.add(bad, f"{file.name}: entry {number}")
    if not found:
        raise ValueError(f"{str(file)!r} has no categories; expected an annotation file of LVIS")
    return [found[number] for number in sorted(found)]


def _name_of(label: float, names: Sequence[str]) -> str:
    if not 0 <= label < len(names):
        raise BadRecord(OUT_OF_RANGE, f"its label is {label:g}, but there are {len(names)} categories, counted from 0")
    return names[int(label)]


def texts_of_turns(turns: list[Any], clean: Callable[[str], str] = harmless) -> tuple[str, ...]:
    """Return the texts in order, the human's first, without `<image>`, which stands at either end of the first.

    Args:
        turns: LLaVA's `conversations`.
        clean: applied to each text. By default it removes everything that would be a reference to a region.

    Raises:
        BadRecord: speakers do not alternate, a text is missing or empty, or `<image>` stands elsewhere.
    """
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
            raise BadRecord(
                WRONG_TYPE,
                f"turn {index} has {IMAGE_MARK} within the text; it may only stand at either end of the first turn",
            )
        text = clean(text)
        if is_blank(text):
            raise BadRecord(MISSING, f"turn {index} is empty")
        texts.append(text)
    return tuple(texts)
