"""Cityscapes' layout: gtFine's label and instance PNGs, and the panoptic PNGs with their list.

Ids are Cityscapes' own, so that its tools read the files; the names are this world's. `instanceIds` is 16-bit: an
object is id × 1000 + n, crowds and stuff are their id, 0 is unlabelled. Images are JPEG, as in all formats here.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from gpt4roi_nb.data.masks import rgb_ids
from gpt4roi_nb.data.scenes.formats.coco import COLOURS
from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile
from gpt4roi_nb.data.scenes.formats.world_image import SPLITS, Segment, WorldImage
from gpt4roi_nb.data.scenes.scene import CATEGORIES

THING_IDS = dict(zip(CATEGORIES, (24, 25, 26, 27, 28, 31, 33), strict=True))
STUFF_IDS = {"table": 7, "wall": 12}
LABELS = THING_IDS | STUFF_IDS
INSTANCES = 1000
CITY = "generated"

FILES = tuple(
    JsonFile(
        f"cityscapes/gtFine/cityscapes_panoptic_{split}.json",
        ("images", "annotations"),
        {
            "categories": [
                {
                    "id": number,
                    "name": name,
                    "color": list(COLOURS[name]),
                    "supercategory": "solid" if name in THING_IDS else "surroundings",
                    "isthing": int(name in THING_IDS),
                }
                for name, number in LABELS.items()
            ]
        },
    )
    for split in SPLITS
)


def regions(shown: WorldImage) -> Iterator[tuple[Segment, int]]:
    """Yield (segment, instance id) of everything that is labelled."""
    counts: Counter[str] = Counter()
    for segment in shown.segments:
        number = THING_IDS[segment.category]
        if not segment.is_crowd:
            number = number * INSTANCES + counts[segment.category]
            counts[segment.category] += 1
        yield segment, number
    for segment in shown.stuff:
        yield segment, STUFF_IDS[segment.category]


def add(shown: WorldImage, added: Added) -> None:
    """Add an image's three PNGs and its entry."""
    stem = f"{CITY}_{shown.number:06d}_000000"
    folder = f"cityscapes/gtFine/{shown.split}/{CITY}"
    added.links.append(f"cityscapes/leftImg8bit/{shown.split}/{CITY}/{stem}_leftImg8bit.jpg")
    labelled = list(regions(shown))
    infos = [segment.info(number, LABELS[segment.category]) for segment, number in labelled]
    added.pngs[f"{folder}/{stem}_gtFine_labelIds.png"] = shown.painted(
        ((segment, LABELS[segment.category]) for segment, _ in labelled), lambda values: values.astype(np.uint8)
    )
    added.pngs[f"{folder}/{stem}_gtFine_instanceIds.png"] = shown.painted(
        labelled, lambda values: values.astype(np.uint16)
    )
    file_name = f"{stem}_gtFine_panoptic.png"
    added.pngs[f"cityscapes/gtFine/cityscapes_panoptic_{shown.split}/{file_name}"] = shown.painted(labelled, rgb_ids)
    file = f"cityscapes/gtFine/cityscapes_panoptic_{shown.split}.json"
    # The official tool derives this name from the instance file's. No image has it: readers go by the id.
    unreal = f"{stem}_gtFine_leftImg8bit.png"
    image = {"id": stem, "width": shown.width, "height": shown.height, "file_name": unreal}
    added.row(file, "images", image)
    added.row(file, "annotations", {"image_id": stem, "file_name": file_name, "segments_info": infos})
