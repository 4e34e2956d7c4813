"""Boxes from a file that a detector or another tool wrote: CSV, or COCO's JSON. No widget, no browser."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.box_check import box_from_xywh, box_from_xyxy
from gpt4roi_nb.data.problems import BadRecord, shown, whole_characters
from gpt4roi_nb.files import parse_json
from gpt4roi_nb.session.references import MENTION
from gpt4roi_nb.widgets.regions import MAX_NAME, bare_name, is_name

# More boxes than this cannot be told apart on an image; of a detector's boxes, the highest scores are taken.
MAX_BOXES = 40
_CORNERS, _SIDES = ("x1", "y1", "x2", "y2"), ("x", "y", "width", "height")
_NO_ID = "\0 no id"  # of an entry whose image is unknown
_NAMES = ("name", "label", "class", "category")
_EXPECTED = (
    "expected CSV with the columns x1, y1, x2, y2 or x, y, width, height (and optionally name and score), or COCO's "
    "JSON, in pixels of the original image"
)


@dataclass(frozen=True)
class FileBoxes:
    """Boxes from a file.

    Attributes:
        boxes: pixel xyxy, inside the image.
        names: one per box, no two alike; "" for none.
        left_out: how many boxes of the file are left out, because they are outside the image or there are too many.
    """

    boxes: tuple[Box, ...]
    names: tuple[str, ...]
    left_out: int


@dataclass(frozen=True)
class _Row:
    values: Sequence[Any]
    xywh: bool
    name: str
    score: float


def read_boxes(text: str, width: int, height: int) -> FileBoxes:
    """Read the boxes of a CSV or COCO file, for an image of this size.

    Args:
        text: the file's content. CSV has a header, or four numbers x1, y1, x2, y2 in each row. COCO's JSON is a list of
            results, or a whole annotation file, from which the only image, or the only one of this size, is taken.
        width, height: of the image, in pixels.

    Returns:
        At most `MAX_BOXES` boxes; if there are scores, those with the highest.

    Raises:
        ValueError: the file is neither of the two, it has several images that may be meant, or no box is inside the
            image.

    >>> read_boxes("x,y,width,height,name\\n10,20,30,40,kettle", 640, 480)
    FileBoxes(boxes=((10.0, 20.0, 40.0, 60.0),), names=('kettle',), left_out=0)
    """
    text = text.removeprefix("\ufeff")
    rows = list(_coco(text, width, height) if text.lstrip().startswith(("{", "[")) else _csv(text))
    kept: list[tuple[Box, str]] = []
    problem = "it has no boxes"
    for row in sorted(rows, key=lambda row: -row.score):
        try:
            cut = box_from_xywh if row.xywh else box_from_xyxy
            kept.append((cut(row.values, width, height), row.name))
        except BadRecord as error:
            problem = str(error)
    if not kept:
        raise ValueError(f"no box of the file is in this image of {width} × {height} pixels: {problem}; {_EXPECTED}")
    kept = kept[:MAX_BOXES]
    boxes = tuple((float(x1), float(y1), float(x2), float(y2)) for (x1, y1, x2, y2), _ in kept)
    return FileBoxes(boxes, _told_apart(name for _, name in kept), len(rows) - len(kept))


def _csv(text: str) -> Iterable[_Row]:
    try:
        dialect: Any = csv.Sniffer().sniff(text[:4096], delimiters=",;\t ")
    except csv.Error:
        dialect = csv.excel
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), dialect) if any(map(str.strip, line))]
    except csv.Error as error:
        raise ValueError(f"{_EXPECTED}, but it cannot be read as a table: {error}") from error
    header = [cell.strip().casefold() for cell in lines[0]] if lines else []
    if _number(header[0] if header else "") is not None:
        header = [*_CORNERS, "name", "score"][: len(header)]
    else:
        lines = lines[1:]
    columns = {name: index for index, name in reversed(list(enumerate(header)))}
    form = next((form for form in (_CORNERS, _SIDES) if all(name in columns for name in form)), None)
    if form is None:
        raise ValueError(f"{_EXPECTED}, but the columns are {', '.join(header)[:200] or 'missing'}")
    label = next((name for name in _NAMES if name in columns), None)
    for line in lines:
        cells = dict(zip(header, line, strict=False))
        name = cells.get(label, "") if label else ""
        yield _Row(
            [_number(cells.get(column, "")) for column in form],
            form is _SIDES,
            name,
            _score(_number(cells.get("score", ""))),
        )


def _coco(text: str, width: int, height: int) -> Iterable[_Row]:
    try:
        content = parse_json(text, "it")
    except ValueError as error:
        raise ValueError(f"{_EXPECTED}, but {error}") from error
    whole = content if isinstance(content, dict) else {"annotations": content}
    annotations, images, categories = (_table(whole, name) for name in ("annotations", "images", "categories"))
    chosen = _image_of(annotations, images, width, height)
    names = {_id(category, "id"): str(category.get("name", "")) for category in categories}
    for entry in annotations:
        if (image := _id(entry, "image_id")) in (chosen, _NO_ID):
            box = entry.get("bbox") or () if image == chosen else ()
            yield _Row(box, True, names.get(_id(entry, "category_id")) or "", _score(entry.get("score")))


def _table(whole: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of the file; in place of what is no object in it, an entry that is no box."""
    entries = whole.get(name) or []
    if not isinstance(entries, list):
        raise ValueError(f"{_EXPECTED}, but its {name} are no list: {shown(entries)}")
    return [entry if isinstance(entry, dict) else {"image_id": _NO_ID} for entry in entries]


def _id(entry: dict[str, Any], name: str) -> int | str | None:
    """An id, or `_NO_ID` if it is none; None where a file of one image leaves it out."""
    found = entry.get(name)
    return found if found is None or isinstance(found, int | str) else _NO_ID


def _score(value: Any) -> float:
    return value if isinstance(value, int | float) and math.isfinite(value) else 0.0


def _image_of(annotations: Sequence[dict[str, Any]], images: Sequence[dict[str, Any]], width: int, height: int) -> Any:
    """The id of the image that is meant: the only one, or the only one of this size."""
    ids = [known for known in dict.fromkeys(_id(entry, "image_id") for entry in annotations) if known != _NO_ID]
    if not ids:
        raise ValueError(f"{_EXPECTED}, but it has no annotations")
    if len(ids) > 1:
        of_this_size = [
            _id(image, "id") for image in images if (image.get("width"), image.get("height")) == (width, height)
        ]
        ids = [known for known in ids if known in of_this_size] if of_this_size else ids
    if len(ids) != 1:
        raise ValueError(
            f"the file has boxes of {len(ids)} images that may be this one ({width} × {height} pixels); keep only "
            "those of this image in it, or give them from Python: chat.set_boxes(boxes, names)"
        )
    return ids[0]


def _told_apart(names: Iterable[str]) -> tuple[str, ...]:
    """Make the names different: of several that are alike, all but the first get a number."""
    seen: Counter[str] = Counter()
    taken: list[str] = []
    for given in names:
        name = " ".join(whole_characters(given).split())[: MAX_NAME - len(f" {MAX_BOXES}")]
        if MENTION.search(name) or not is_name(name):
            taken.append("")
            continue
        known = {bare_name(other) for other in taken}
        numbered = name
        while bare_name(numbered) in known:
            seen[name.casefold()] += 1
            numbered = f"{name} {seen[name.casefold()] + 1}"
        taken.append(numbered)
    return tuple(taken)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
