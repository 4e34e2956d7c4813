"""ADE20K's layout: semantic PNGs, where 0 is unlabelled and k is category k - 1, and panoptic ones, from 0."""

import numpy as np

from gpt4roi_nb.data.masks import rgb_ids
from gpt4roi_nb.data.scenes.formats.coco import COLOURS, segment_id
from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile
from gpt4roi_nb.data.scenes.formats.world_image import SPLITS, WorldImage
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


def add(shown: WorldImage, added: Added) -> None:
    """Add an image's two PNGs and its entry. Crowds are split into objects: ADE20K has none."""
    stem = f"ADE_{shown.split}_{shown.number:08d}"
    added.links.append(f"{ROOT}/images/{FOLDERS[shown.split]}/{stem}.jpg")
    segments = (*shown.stuff, *shown.things)
    numbers = [segment_id(segment.category, index) for index, segment in enumerate(segments)]
    categories = [NAMES.index(segment.category) for segment in segments]
    infos = [s.info(number, category) for s, number, category in zip(segments, numbers, categories, strict=True)]
    added.pngs[f"{ROOT}/annotations/{FOLDERS[shown.split]}/{stem}.png"] = shown.painted(
        ((segment, category + 1) for segment, category in zip(segments, categories, strict=True)),
        lambda values: values.astype(np.uint8),
    )
    added.pngs[f"{ROOT}/ade20k_panoptic_{shown.split}/{stem}.png"] = shown.painted(
        zip(segments, numbers, strict=True), rgb_ids
    )
    file = f"{ROOT}/ade20k_panoptic_{shown.split}.json"
    image = {"id": stem, "file_name": f"{stem}.jpg", "width": shown.width, "height": shown.height}
    added.row(file, "images", image)
    added.row(file, "annotations", {"image_id": stem, "file_name": f"{stem}.png", "segments_info": infos})
