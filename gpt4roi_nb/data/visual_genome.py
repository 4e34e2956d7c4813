"""Visual Genome: regions and what is said of each, in two forms.

- COCO-like (`train.json`, as region-captioning work hands it round): a caption an annotation.
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
from gpt4roi_nb.data.record import CAPTION, Annotation, as_boxes, plain

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
    """An annotation an image: its regions and a phrase for each.

    Args:
        images: the folder of the pictures, or that above `ARCHIVES`.
        image_data: Visual Genome's `image_data.json`, from which `region_descriptions.json` gets the images' sizes and
            folders. Without it boxes are cut when the picture is opened.
        folder: where the images lie in the images' folder, if `image_data` is not given, such as "VG_100K".
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
    coco = CocoFile(file, problems, keep=lambda entry: plain(text_field(entry, "caption")))
    folders = {} if images is None else _folders(images)
    for image_id, image in coco.images.items():
        found = list(coco.boxes_of(image_id))
        if found:
            boxes, texts, _ = zip(*found, strict=True)
            picture = str(Path(folders.get(image.file, ""), image.file))
            yield Annotation(CAPTION, picture, as_boxes(boxes), texts, name, str(image_id))
        else:
            problems.leave_out("images without a region")


def _folders(images: Path) -> dict[str, str]:
    """In which of the two folders that Visual Genome's archives make a picture lies; the file does not say it."""
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
                texts.append(plain(text_field(region, "phrase")))
                boxes.append(box)  # only where both are good
            except BadRecord as bad:
                problems.add(bad, f"{file.name}: image {image_id}, region {number}")
        if boxes:
            yield Annotation(CAPTION, path, as_boxes(boxes), tuple(texts), name, str(image_id))
        else:
            problems.leave_out("images without a region")


def _entries(file: Path, problems: Problems) -> Iterator[Any]:
    """The images of a list of them, or the one image that the file is about."""
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
    """(path below the images' folder, width, height) by image id."""
    found: UniqueTable[int, tuple[str, int, int]] = UniqueTable()
    for number, (_, entry) in enumerate(elements(file, problems)):
        try:
            image_id = field(entry, "image_id", int)
            size = length_field(entry, "width"), length_field(entry, "height")
            # ".../VG_100K_2/1.jpg": the images come in two folders, and only the address says in which.
            found.add(image_id, (path_in_url(field(entry, "url", str), "url"), *size))
        except BadRecord as bad:
            problems.add(bad, f"{file.name}: image {number}")
    return found
