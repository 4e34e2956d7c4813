"""COCO 2017: instances and panoptic segmentation.

A crowd (see `picture.CROWD`) is one annotation with uncompressed run lengths; everything else has polygons. Panoptic
PNGs hold id = R + 256·G + 65536·B; the table's far edge is void, 0.
"""

from functools import lru_cache

import numpy as np

from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile, Record
from gpt4roi_nb.data.scenes.formats.masks import rgb_ids, run_lengths
from gpt4roi_nb.data.scenes.formats.picture import SPLITS, Picture, sides, xywh
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


def image_record(picture: Picture, file_name: str) -> Record:
    """Return an entry of a COCO file's `images`."""
    return {
        "license": 1,
        "file_name": file_name,
        "coco_url": f"{URL}/{picture.split}2017/{picture.stem}.jpg",
        "height": picture.height,
        "width": picture.width,
        "date_captured": "2017-09-01 00:00:00",
        "flickr_url": f"{URL}/{picture.stem}.jpg",
        "id": picture.number,
    }


@lru_cache(maxsize=1)
def object_records(picture: Picture) -> tuple[Record, ...]:
    """Return the entries of a COCO file's `annotations`, one per object, with polygons: the same ones for all files."""
    return tuple(_object_record(picture, index) for index in range(len(picture.objects)))


def _object_record(picture: Picture, index: int) -> Record:
    thing = picture.objects[index]
    return {
        "segmentation": picture.polygons[index],
        "area": float(picture.areas[index]),
        "iscrowd": 0,
        "image_id": picture.number,
        "bbox": xywh(thing.box),
        "category_id": CATEGORY_IDS[thing.category],
        "id": picture.object_id(index),
    }


def add(picture: Picture, added: Added) -> None:
    """Add an image to the instances and panoptic files."""
    file_name = f"{picture.stem}.jpg"
    added.links.append(f"{FOLDER}/{picture.split}2017/{file_name}")
    added.row(INSTANCES[picture.split], "images", image_record(picture, file_name))
    records = object_records(picture)
    for segment in picture.segments:
        record = records[segment.members[0]]
        if segment.is_crowd:
            mask: np.ndarray = np.any(picture.scene.masks[list(segment.members)], axis=0)
            record = record | {
                "segmentation": run_lengths(mask),
                "area": float(segment.area),
                "iscrowd": 1,
                "bbox": xywh(segment.box),
            }
        added.row(INSTANCES[picture.split], "annotations", record)
    _add_panoptic(picture, added)


def segment_id(category: str, index: int) -> int:
    """Return the id of an image's segment `index`: its category's red and green with a blue of its own."""
    red, green, blue = COLOURS[category]
    return red + 256 * green + 65536 * (blue + index)


def _add_panoptic(picture: Picture, added: Added) -> None:
    segments = (*picture.segments, *picture.stuff)
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
    file_name = f"{picture.stem}.png"
    added.pngs[f"{FOLDER}/annotations/panoptic_{picture.split}2017/{file_name}"] = picture.painted(
        zip(segments, numbers, strict=True), rgb_ids
    )
    added.row(SEGMENTS[picture.split], "images", image_record(picture, f"{picture.stem}.jpg"))
    annotation = {"segments_info": infos, "file_name": file_name, "image_id": picture.number}
    added.row(SEGMENTS[picture.split], "annotations", annotation)
