"""PACO: objects and their parts. The parts of this world's solids are the upper and the lower half of what is seen."""

import numpy as np

from gpt4roi_nb.data.scenes.formats.coco import HEAD, image_record
from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile
from gpt4roi_nb.data.scenes.formats.masks import bounds, run_lengths
from gpt4roi_nb.data.scenes.formats.picture import SPLITS, Picture
from gpt4roi_nb.data.scenes.scene import CATEGORIES, COLOURS

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


def halves(mask: np.ndarray, top: int, bottom: int) -> tuple[np.ndarray, np.ndarray]:
    """The parts of a mask (H, W) bool above and below the middle of rows `top` to `bottom`, the latter excluded."""
    upper, lower = mask.copy(), mask.copy()
    middle = (top + bottom) // 2
    upper[middle:], lower[:middle] = False, False
    return upper, lower


def add(picture: Picture, added: Added) -> None:
    """Adds the picture's objects, each followed by its parts; `obj_ann_id` leads from a part to its object."""
    file = PACO_FILES[picture.split]
    name = f"{picture.split}2017/{picture.stem}.jpg"
    image = image_record(picture, name) | {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    added.row(file, "images", image)
    for index, (thing, mask) in enumerate(zip(picture.objects, picture.scene.masks, strict=True)):
        _, top, _, bottom = thing.box
        number = picture.object_id(index) * (1 + len(PARTS))
        pieces = (mask, *halves(mask, top, bottom))
        names = (thing.category, *(f"{thing.category}:{part}" for part in PARTS))
        for k, (piece, label) in enumerate(zip(pieces, names, strict=True)):
            if not piece.any():
                continue
            annotation = {
                "id": number + k,
                "bbox": [float(side) for side in bounds(piece)],
                "area": int(piece.sum()),
                "category_id": NAMES.index(label) + 1,
                "image_id": picture.number,
                "segmentation": run_lengths(piece),
                "attribute_ids": [COLOURS.index(thing.colour)],
                "obj_ann_id": number,
            }
            added.row(file, "annotations", annotation)
