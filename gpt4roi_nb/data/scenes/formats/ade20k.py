"""ADE20K's layout: semantic PNGs, where 0 is unlabelled and k is category k - 1, and panoptic ones, from 0."""

import numpy as np

from gpt4roi_nb.data.scenes.formats.coco import COLOURS
from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile
from gpt4roi_nb.data.scenes.formats.masks import rgb_ids, segment_info
from gpt4roi_nb.data.scenes.formats.picture import SPLITS, Picture
from gpt4roi_nb.data.scenes.scene import CATEGORIES

NAMES = ("wall", "table", *CATEGORIES)
SPACED = "ring"  # its name ends in a space in the table, as one of ADE20K's does
FOLDERS = {"train": "training", "val": "validation"}
ROOT = "ade20k/ADEChallengeData2016"
TABLE = [
    {
        "color": list(COLOURS[name]),
        "id": index,
        "isthing": int(name in CATEGORIES),
        "name": name + " " * (name == SPACED),
    }
    for index, name in enumerate(NAMES)
]
FILES = tuple(
    JsonFile(f"{ROOT}/ade20k_panoptic_{split}.json", ("images", "annotations"), {"categories": TABLE})
    for split in SPLITS
)


def add(picture: Picture, added: Added) -> None:
    """Adds the picture's two PNGs and its entry. Crowds are taken apart: ADE20K has none."""
    stem = f"ADE_{picture.split}_{picture.number:08d}"
    added.links.append(f"{ROOT}/images/{FOLDERS[picture.split]}/{stem}.jpg")
    things = [(thing.category, mask) for thing, mask in zip(picture.objects, picture.scene.masks, strict=True)]
    semantic = np.zeros((picture.height, picture.width), np.uint8)
    ids = np.zeros((picture.height, picture.width), np.int32)
    infos = []
    for index, (name, mask) in enumerate([*picture.stuff.items(), *things]):
        category = NAMES.index(name)
        semantic[mask] = category + 1
        red, green, blue = COLOURS[name]
        number = red + 256 * green + 65536 * (blue + index)
        ids[mask] = number
        infos.append(segment_info(number, category, mask))
    added.pngs[f"{ROOT}/annotations/{FOLDERS[picture.split]}/{stem}.png"] = semantic
    added.pngs[f"{ROOT}/ade20k_panoptic_{picture.split}/{stem}.png"] = rgb_ids(ids)
    file = f"{ROOT}/ade20k_panoptic_{picture.split}.json"
    image = {"id": stem, "file_name": f"{stem}.jpg", "width": picture.width, "height": picture.height}
    added.row(file, "images", image)
    added.row(file, "annotations", {"image_id": stem, "file_name": f"{stem}.png", "segments_info": infos})
