"""Visual Genome: regions and their descriptions, in two forms.

- COCO-like (`train.json`, as work on region captions distributes it): one caption per annotation.
- The original `region_descriptions.json`, or one image's entry of it: pixel xywh, without the images' sizes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt4roi_nb.data.box_check import box_from_xywh
from gpt4roi_nb.data.coco import CocoFile
from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.problems import BadRecord, Problems, UniqueTable, field, length_field, path_in_url, text_field
from gpt4roi_nb.data.record import CAPTION, Annotation, as_boxes, one_line

ARCHIVES = ("VG_100K", "VG_100K_2")


def read_visual_genome(
    file: Path,
    problems: Problems,
    images: Path | None = None,
    *,
    name: str = "visual_genome",
    image_data: Path | None = None,
    folder: str = "",
) -> Iterator[Annotation]:
    """Yield one annotation per image: its regions and a phrase for each.

    Args:
        images: the image folder, or the one above `ARCHIVES`.
        name: the source that records name.
        image_data: Visual Genome's `image_data.json`, which has the sizes and folders of the images in
            `region_descriptions.json`. Without it, boxes are clipped when the image is opened.
        folder: the subfolder of the images, such as "VG_100K", if `image_data` is not given.
    """
    if _is_coco_like(file, problems):
        return _coco_like(file, problems, name, images)
    return _original(file, problems, name, image_data, folder)


def _is_coco_like(file: Path, problems: Problems) -> bool:
    for key, _ in elements(file, Problems()):
        if key in ("images", "annotations", "categories"):
            return True
        if key in ("", "regions"):
            return False
    return False


def _coco_like(file: Path, problems: Problems, name: str, images: Path | None) -> Iterator[Annotation]:
    coco = CocoFile(file, problems, keep=lambda entry: one_line(text_field(entry, "caption")))
    folders = {} if images is None else _folders(images)
    for image_id, image in coco.images.items():
        found = list(coco.boxes_of(image_id))
        if found:
            boxes, texts, _ = zip(*found, strict=True)
            path = str(Path(folders.get(image.file, ""), image.file))
            yield Annotation(CAPTION, path, as_boxes(boxes), texts, name, str(image_id))
        else:
            problems.leave_out("images without a region")


def _folders(images: Path) -> dict[str, str]:
    """By image: which of the two folders of Visual Genome's archives it is in; the annotation file does not say."""
    return {
        entry.name: folder for folder in ARCHIVES if (images / folder).is_dir() for entry in os.scandir(images / folder)
    }


def _original(file: Path, problems: Problems, name: str, image_data: Path | None, folder: str) -> Iterator[Annotation]:
    sizes = _image_data(image_data, problems) if image_data is not None else {}
    for place, entry in enumerate(_entries(file, problems)):
        boxes, texts = [], []
        try:
            image_id = field(entry, "id", int)
            regions = field(entry, "regions", list)
            width, height = length_field(entry, "width"), length_field(entry, "height")
        except BadRecord as bad:
            problems.add(bad, f"{file.name}: image {place} of the file")
            continue
        path, known_width, known_height = sizes.get(image_id, (str(Path(folder, f"{image_id}.jpg")), width, height))
        for number, region in enumerate(regions):
            try:
                xywh = [field(region, key, float) for key in ("x", "y", "width", "height")]
                box = box_from_xywh(xywh, known_width, known_height)
                texts.append(one_line(text_field(region, "phrase")))
                boxes.append(box)  # only if both are good
            except BadRecord as bad:
                problems.add(bad, f"{file.name}: image {image_id}, region {number}")
        if boxes:
            yield Annotation(CAPTION, path, as_boxes(boxes), tuple(texts), name, str(image_id))
        else:
            problems.leave_out("images without a region")


def _entries(file: Path, problems: Problems) -> Iterator[Any]:
    """The images of a list, or the one image that the file is about."""
    single: dict[str, Any] = {}
    for key, element in elements(file, problems):
        if key == "":
            yield element
        elif key == "regions":
            single.setdefault(key, []).append(element)
        else:
            single[key] = element
    if single:
        yield single


def _image_data(file: Path, problems: Problems) -> dict[int, tuple[str, int, int]]:
    """(path below the image folder, width, height) by image id."""
    found: UniqueTable[int, tuple[str, int, int]] = UniqueTable()
    for number, (_, entry) in enumerate(elements(file, problems)):
        try:
            image_id = field(entry, "image_id", int)
            size = length_field(entry, "width"), length_field(entry, "height")
            # ".../VG_100K_2/1.jpg": the images are in two folders, and only the URL says in which.
            found.add(image_id, (path_in_url(field(entry, "url", str), "url"), *size))
        except BadRecord as bad:
            problems.add(bad, f"{file.name}: image {number}")
    return found
