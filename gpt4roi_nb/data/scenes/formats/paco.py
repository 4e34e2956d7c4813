"""PACO: objects and their parts. A solid's parts are the upper and lower half of what is visible of it."""

import numpy as np

from gpt4roi_nb.data.masks import bounds
from gpt4roi_nb.data.scenes.formats.coco import HEAD, image_record
from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile
from gpt4roi_nb.data.scenes.formats.masks import run_lengths
from gpt4roi_nb.data.scenes.formats.world_image import SPLITS, WorldImage
from gpt4roi_nb.data.scenes.scene import CATEGORIES, COLOURS

Rectangle = tuple[int, int, int, int]
PARTS = ("upper_half", "lower_half")
NAMES = (*CATEGORIES, *(f"{category}:{part}" for category in CATEGORIES for part in PARTS))
PACO_FILES = {split: f"paco/paco_lvis_v1_{split}.json" for split in SPLITS}
FILES = tuple(
    JsonFile(
        path,
        ("images", "annotations"),
        HEAD
        | {
            "categories": [
                {"id": index, "name": name, "supercategory": "PART" if ":" in name else "OBJECT"}
                for index, name in enumerate(NAMES, start=1)
            ],
            "attributes": [{"id": index, "name": colour} for index, colour in enumerate(COLOURS)],
        },
    )
    for path in PACO_FILES.values()
)


def halves(box: Rectangle) -> tuple[Rectangle, Rectangle]:
    """Split a box, int pixel xyxy, into the parts above and below the middle of its rows."""
    left, top, right, bottom = box
    middle = (top + bottom) // 2
    return (left, top, right, middle), (left, middle, right, bottom)


def add(shown: WorldImage, added: Added) -> None:
    """Add an image's objects, each followed by its parts; `obj_ann_id` leads from a part to its object."""
    file = PACO_FILES[shown.split]
    name = f"{shown.split}2017/{shown.stem}.jpg"
    image = image_record(shown, name) | {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    added.row(file, "images", image)
    for index, (thing, mask) in enumerate(zip(shown.objects, shown.scene.masks, strict=True)):
        number = shown.object_id(index) * (1 + len(PARTS))
        names = (thing.category, *(f"{thing.category}:{part}" for part in PARTS))
        for k, (box, label) in enumerate(zip((thing.box, *halves(thing.box)), names, strict=True)):
            left, top, right, bottom = box
            piece = mask[top:bottom, left:right]
            within = bounds(piece)
            if within is None:
                continue
            x1, y1, x2, y2 = within
            annotation = {
                "id": number + k,
                "bbox": [float(side) for side in (left + x1, top + y1, x2 - x1, y2 - y1)],
                "area": int(np.count_nonzero(piece)),
                "category_id": NAMES.index(label) + 1,
                "image_id": shown.number,
                "segmentation": run_lengths(mask, box),
                "attribute_ids": [COLOURS.index(thing.colour)],
                "obj_ann_id": number,
            }
            added.row(file, "annotations", annotation)
