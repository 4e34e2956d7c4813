"""COCO instances, and files of the same form: COCO panoptic (the boxes of its segments) and LVIS.

A record is an image with all its boxes and their categories. Crowds are left out and counted.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.box_check import cut_xywh, four_numbers
from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.problems import (
    MISSING,
    OUT_OF_RANGE,
    WRONG_TYPE,
    BadRecord,
    Problems,
    UniqueTable,
    field,
    id_field,
    is_blank,
    length_field,
    path_field,
    path_in_url,
    shown,
)
from gpt4roi_nb.data.record import CATEGORY, Annotation, as_boxes, one_line

CROWDS = "crowds"


class CocoImage(NamedTuple):
    """An entry of "images": path relative to the image folder, size in pixels (0 if not given), what else is kept."""

    file: str
    width: int
    height: int
    kept: Any = None


class CocoFile:
    """The tables of a COCO-like file, in a tenth of the memory that dicts would take.

    The tables may come in any order. `boxes_of(image_id)` yields an image's boxes, checked and clipped.

    Args:
        file: the annotation file.
        problems: where bad entries are noted.
        keep: returns what to keep of an annotation besides its box.
        keep_of_image: returns what to keep of an image besides its name and size.
    """

    def __init__(
        self,
        file: Path,
        problems: Problems,
        keep: Callable[[dict[str, Any]], Any],
        keep_of_image: Callable[[dict[str, Any]], Any] = lambda entry: None,
    ) -> None:
        self.name = file.name
        self.images: UniqueTable[Hashable, CocoImage] = UniqueTable()
        self.categories: UniqueTable[int, str] = UniqueTable()
        self._problems = problems
        self._xywh = array("d")
        self._ids: list[Any] = []
        self._kept: list[Any] = []
        self._rows: dict[Hashable, list[int]] = {}  # of each image
        unusable = set()  # images; nothing is noted for their annotations
        count = 0
        image_id: Hashable
        for number, (key, entry) in enumerate(elements(file, problems)):
            count += key in ("images", "annotations")
            try:
                if key == "images":
                    image_id = id_field(entry, "id")
                    unusable.add(image_id)
                    self.images.add(image_id, _image(entry, keep_of_image))
                    unusable.discard(image_id)
                elif key == "categories":
                    self.categories.add(field(entry, "id", int), category_name(entry))
                elif key == "annotations":
                    for part, name in _parts(entry, number):
                        try:
                            self._add(part, name, keep)
                        except BadRecord as bad:
                            self.note(bad, name)
            except BadRecord as bad:
                problems.add(bad, f"{file.name}: {key}, id {_id_of(entry, number)}")
        for image_id in self._rows.keys() - self.images.keys():
            for row in self._rows.pop(image_id) if image_id not in unusable else ():
                lost = BadRecord(OUT_OF_RANGE, f"it is about image {image_id!r}, which the file does not list")
                self.note(lost, self._ids[row])
        if not count:
            problems.add(BadRecord(MISSING, "the file holds no 'images' and no 'annotations'"), file.name)

    def note(self, bad: BadRecord, annotation: Any) -> None:
        """Note what is wrong with the annotation of this id."""
        self._problems.add(bad, f"{self.name}: annotations, id {annotation}")

    def boxes_of(self, image_id: Hashable) -> Iterator[tuple[Box, Any, Any]]:
        """Yield (pixel xyxy inside the image, what was kept, id) for each usable annotation of an image."""
        image = self.images[image_id]
        for row in self._rows.get(image_id, ()):
            try:
                x, y, width, height = self._xywh[4 * row : 4 * row + 4]
                yield cut_xywh((x, y, width, height), image.width, image.height), self._kept[row], self._ids[row]
            except BadRecord as bad:
                self.note(bad, self._ids[row])

    def _add(self, entry: Any, name: Any, keep: Callable[[dict[str, Any]], Any]) -> None:
        if not isinstance(entry, dict):
            raise BadRecord(WRONG_TYPE, f"expected an object, but got a {type(entry).__name__}")
        if is_crowd(entry):
            self._problems.leave_out(CROWDS)
            return
        image_id = id_field(entry, "image_id")
        box = four_numbers(field(entry, "bbox", list))
        kept = keep(entry)
        self._rows.setdefault(image_id, []).append(len(self._ids))
        self._ids.append(name)
        self._xywh.extend(box)
        self._kept.append(kept)


def read_instances(
    file: Path, problems: Problems, images: Path | None = None, *, name: str = "coco"
) -> Iterator[Annotation]:
    """Yield one annotation per image: its boxes with their categories.

    Args:
        name: the source that records name.
    """
    coco = CocoFile(file, problems, lambda entry: field(entry, "category_id", int))
    for image_id, image in coco.images.items():
        boxes, names = [], []
        for box, category, annotation in coco.boxes_of(image_id):
            if category not in coco.categories:
                detail = f"category {category} is not among the {len(coco.categories)} of the file"
                coco.note(BadRecord(OUT_OF_RANGE, detail), annotation)
                continue
            boxes.append(box)
            names.append(coco.categories[category])
        if boxes:
            yield Annotation(CATEGORY, image.file, as_boxes(boxes), tuple(names), name, str(image_id))
        else:
            problems.leave_out("images without a box")


def is_crowd(entry: dict[str, Any]) -> bool:
    """Whether an annotation is a box around many things. Some files write the mark as text; LVIS has none.

    Raises:
        BadRecord: the mark is neither 0 nor 1.
    """
    mark = entry.get("iscrowd")
    if mark is None or mark == 0 or mark == "0":
        return False
    if mark in (1, "1"):
        return True
    raise BadRecord(WRONG_TYPE, f"'iscrowd' must be 0 or 1, but is {shown(mark)}")


def category_name(entry: Any) -> str:
    """Return the name of a category in words. Raises BadRecord if it has none."""
    name = one_line(field(entry, "name", str).replace("_", " "))
    if is_blank(name):
        raise BadRecord(MISSING, "'name' is empty, and would train an empty answer")
    return name


def _image(entry: Any, keep: Callable[[dict[str, Any]], Any]) -> CocoImage:
    if entry.get("file_name") is not None:
        name = path_field(entry, "file_name")
    elif entry.get("coco_url") is not None:
        # LVIS: its images are in COCO's train2017 and val2017, and only the URL says in which.
        name = path_in_url(field(entry, "coco_url", str), "coco_url")
    else:
        raise BadRecord(MISSING, "there is neither 'file_name' nor 'coco_url'")
    return CocoImage(name, length_field(entry, "width"), length_field(entry, "height"), keep(entry))


def _parts(entry: Any, number: int) -> Iterator[tuple[Any, Any]]:
    """Yield an annotation, or the segments of a panoptic one, each with its name in messages."""
    if not isinstance(entry, dict) or "segments_info" not in entry:
        yield entry, _id_of(entry, number)
        return
    for place, segment in enumerate(field(entry, "segments_info", list)):
        part = {**segment, "image_id": entry.get("image_id")} if isinstance(segment, dict) else segment
        yield part, _id_of(segment, f"{number}, segment {place}")


def _id_of(entry: Any, number: int | str) -> Any:
    """An entry's name in messages: its id, or else its place in the file."""
    if isinstance(entry, dict) and entry.get("id") is not None:
        return entry["id"] if isinstance(entry["id"], str) else shown(entry["id"])
    return f"unknown, entry {number} of the file"
