"""COCO 2017: instances and panoptic segmentation.

A crowd (see `world_image.CROWD`) is one annotation with uncompressed run lengths; everything else has polygons.
Panoptic PNGs hold id = R + 256·G + 65536·B; the table's far edge is void, 0.
"""

from functools import lru_cache

import numpy as np

from gpt4roi_nb.data.masks import rgb_ids
from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile, Record
from gpt4roi_nb.data.scenes.formats.masks import run_lengths
from gpt4roi_nb.data.scenes.formats.world_image import SPLITS, WorldImage, sides, xywh
from gpt4roi_nb.data.scenes.scene import CATEGORIES

# With gaps, as COCO's ids have them.
CATEGORY_IDS = dict(zip(CATEGORIES, (1, 2, 4, 5, 7, 11, 13), strict=True))
STUFF_IDS = {"table": 189, "wall": 199}
COLOURS = {
    **{name: (220 - 20 * k, 20 + 30 * k, 60) for k, name in enumerate(CATEGORIES)},
    "table": (150, 120, 90),
    "wall": (70, 90, 120),
}
URL = "http://generated.invalid"  # names no host, so that nothing is downloaded

INFO = {
    "description": "generated table-top scenes",
    "url": URL,
    "version": "1.0",
    "year": 2017,
    "contributor": "gpt4roi_nb.data.scenes.formats",
    "date_created": "2017/09/01",
}
LICENSES = [{"url": URL, "id": 1, "name": "none: generated"}]
THINGS = [{"supercategory": "solid", "id": CATEGORY_IDS[name], "name": name} for name in CATEGORIES]
PANOPTIC = [
    {
        "supercategory": "solid" if name in CATEGORY_IDS else "surroundings",
        "color": list(COLOURS[name]),
        "isthing": int(name in CATEGORY_IDS),
        "id": number,
        "name": name,
    }
    for name, number in (CATEGORY_IDS | STUFF_IDS).items()
]

FOLDER = "coco"
INSTANCES = {split: f"{FOLDER}/annotations/instances_{split}2017.json" for split in SPLITS}
SEGMENTS = {split: f"{FOLDER}/annotations/panoptic_{split}2017.json" for split in SPLITS}
HEAD: Record = {"info": INFO, "licenses": LICENSES}
FILES = (
    *(JsonFile(path, ("images", "annotations"), HEAD | {"categories": THINGS}) for path in INSTANCES.values()),
    *(JsonFile(path, ("images", "annotations"), HEAD | {"categories": PANOPTIC}) for path in SEGMENTS.values()),
)


def image_record(shown: WorldImage, file_name: str) -> Record:
    """Return an entry of a COCO file's `images`."""
    return {
        "license": 1,
        "file_name": file_name,
        "coco_url": f"{URL}/{shown.split}2017/{shown.stem}.jpg",
        "height": shown.height,
        "width": shown.width,
        "date_captured": "2017-09-01 00:00:00",
        "flickr_url": f"{URL}/{shown.stem}.jpg",
        "id": shown.number,
    }


@lru_cache(maxsize=1)
def object_records(shown: WorldImage) -> tuple[Record, ...]:
    """Return the entries of a COCO file's `annotations`, one per object, with polygons: the same ones for all files."""
    return tuple(_object_record(shown, index) for index in range(len(shown.objects)))


def _object_record(shown: WorldImage, index: int) -> Record:
    thing = shown.objects[index]
    return {
        "segmentation": shown.polygons[index],
        "area": float(shown.areas[index]),
        "iscrowd": 0,
        "image_id": shown.number,
        "bbox": xywh(thing.box),
        "category_id": CATEGORY_IDS[thing.category],
        "id": shown.object_id(index),
    }


def add(shown: WorldImage, added: Added) -> None:
    """Add an image to the instances and panoptic files."""
    file_name = f"{shown.stem}.jpg"
    added.links.append(f"{FOLDER}/{shown.split}2017/{file_name}")
    added.row(INSTANCES[shown.split], "images", image_record(shown, file_name))
    records = object_records(shown)
    for segment in shown.segments:
        record = records[segment.members[0]]
        if segment.is_crowd:
            mask: np.ndarray = np.any(shown.scene.masks[list(segment.members)], axis=0)
            record = record | {
                "segmentation": run_lengths(mask),
                "area": float(segment.area),
                "iscrowd": 1,
                "bbox": xywh(segment.box),
            }
        added.row(INSTANCES[shown.split], "annotations", record)
    _add_panoptic(shown, added)


def segment_id(category: str, index: int) -> int:
    """Return the id of an image's segment `index`: its category's red and green with a blue of its own."""
    red, green, blue = COLOURS[category]
    return red + 256 * green + 65536 * (blue + index)


def _add_panoptic(shown: WorldImage, added: Added) -> None:
    segments = (*shown.segments, *shown.stuff)
    numbers = [segment_id(segment.category, index) for index, segment in enumerate(segments)]
    infos = [
        {
            "area": segment.area,
            "category_id": (CATEGORY_IDS | STUFF_IDS)[segment.category],
            "iscrowd": int(segment.is_crowd),
            "id": number,
            "bbox": sides(segment.box),
        }
        for segment, number in zip(segments, numbers, strict=True)
    ]
    file_name = f"{shown.stem}.png"
    added.pngs[f"{FOLDER}/annotations/panoptic_{shown.split}2017/{file_name}"] = shown.painted(
        zip(segments, numbers, strict=True), rgb_ids
    )
    added.row(SEGMENTS[shown.split], "images", image_record(shown, f"{shown.stem}.jpg"))
    annotation = {"segments_info": infos, "file_name": file_name, "image_id": shown.number}
    added.row(SEGMENTS[shown.split], "annotations", annotation)
