"""Cityscapes and ADE20K folders of a few hand-made images, small enough to work every figure out by hand."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from gpt4roi_nb.data.masks import bounds, rgb_ids

HEIGHT, WIDTH = 40, 100
ROAD, SKY, PERSON, CAR = 7, 23, 24, 26
CITYSCAPES = ((ROAD, "road", 0), (SKY, "sky", 0), (PERSON, "person", 1), (CAR, "car", 1))
WALL, FLOOR, BED, WINDOW = 0, 3, 7, 8
ADE20K = ((WALL, "wall", 0), (FLOOR, "floor", 0), (BED, "bed", 1), (WINDOW, "window ", 1))

Part = tuple[int, slice, slice]  # segment id, rows, columns


def cut(*parts: Part) -> np.ndarray:
    """(HEIGHT, WIDTH) int32 of ids, 0 where no part lies."""
    ids = np.zeros((HEIGHT, WIDTH), np.int32)
    for number, rows, columns in parts:
        ids[rows, columns] = number
    return ids


# Road on the left half, two cars and a group of cars on the right, void between: 2000, 600, 600, 400 pixels.
STREET = cut(
    (ROAD, slice(0, 40), slice(0, 50)),
    (26000, slice(0, 20), slice(60, 90)),
    (26001, slice(20, 40), slice(60, 90)),
    (26, slice(0, 40), slice(90, 100)),
)
# Sky above, one person: 2000 and 500 pixels.
YARD = cut((SKY, slice(0, 20), slice(0, 100)), (24000, slice(20, 40), slice(0, 25)))


def write_cityscapes(root: Path, images: Sequence[np.ndarray] = (STREET, YARD), split: str = "val") -> Path:
    """The folder `root`, whose images are `city_000000_000000` and so on."""
    annotations = []
    for number, ids in enumerate(images):
        stem = f"city_{number:06d}_000000"
        truth = root / "gtFine" / split / "city"
        panoptic = root / "gtFine" / f"cityscapes_panoptic_{split}"
        photos = root / "leftImg8bit" / split / "city"
        for folder in (truth, panoptic, photos):
            folder.mkdir(parents=True, exist_ok=True)
        _save(ids.astype(np.uint16), truth / f"{stem}_gtFine_instanceIds.png")
        _save(np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8), truth / f"{stem}_gtFine_labelIds.png")
        _save(rgb_ids(ids), panoptic / f"{stem}_gtFine_panoptic.png")
        _save(np.zeros((*ids.shape, 3), np.uint8), photos / f"{stem}_leftImg8bit.png")
        segments = [
            _segment(ids, one, one if one < 1000 else one // 1000, int(one < 1000 and one in (PERSON, CAR)))
            for one in np.unique(ids).tolist()
            if one
        ]
        annotations.append({"image_id": stem, "file_name": f"{stem}_gtFine_panoptic.png", "segments_info": segments})
    content = {"annotations": annotations, "categories": _categories(CITYSCAPES)}
    (root / "gtFine" / f"cityscapes_panoptic_{split}.json").write_text(json.dumps(content))
    return root


# A wall, a floor, two beds and a window, ids as 1000 × category + n: 2000, 800, 200, 200, 400 pixels.
ROOM = cut(
    (1, slice(0, 20), slice(0, 100)),
    (3000, slice(20, 40), slice(0, 40)),
    (7000, slice(20, 40), slice(40, 50)),
    (7001, slice(20, 40), slice(50, 60)),
    (8000, slice(20, 40), slice(60, 80)),
)
# A wall and one bed: 2000 and 400 pixels.
YARD_ROOM = cut((1, slice(0, 20), slice(0, 100)), (7000, slice(20, 40), slice(0, 20)))


def write_ade20k(root: Path, images: Sequence[np.ndarray] = (ROOM,)) -> Path:
    """The folder `root` with ADEChallengeData2016, whose images are `ADE_val_00000001` and so on."""
    base, annotations = root / "ADEChallengeData2016", []
    for number, ids in enumerate(images, start=1):
        stem = f"ADE_val_{number:08d}"
        truth, panoptic = base / "annotations" / "validation", base / "ade20k_panoptic_val"
        photos = base / "images" / "validation"
        for folder in (truth, panoptic, photos):
            folder.mkdir(parents=True, exist_ok=True)
        _save(np.where(ids > 0, ids // 1000 + 1, 0).astype(np.uint8), truth / f"{stem}.png")
        _save(rgb_ids(ids), panoptic / f"{stem}.png")
        Image.fromarray(np.zeros((*ids.shape, 3), np.uint8)).save(photos / f"{stem}.jpg")
        segments = [_segment(ids, one, one // 1000, 0) for one in np.unique(ids).tolist() if one]
        annotations.append({"image_id": stem, "file_name": f"{stem}.png", "segments_info": segments})
    content = {"annotations": annotations, "categories": _categories(ADE20K)}
    (base / "ade20k_panoptic_val.json").write_text(json.dumps(content))
    return root


def _segment(ids: np.ndarray, number: int, category: int, crowd: int) -> dict[str, object]:
    mask = ids == number
    x1, y1, x2, y2 = bounds(mask)
    facts = {"id": number, "category_id": category, "area": int(mask.sum())}
    return {**facts, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": crowd}


def _categories(table: Sequence[tuple[int, str, int]]) -> list[dict[str, object]]:
    return [{"id": number, "name": name, "isthing": thing, "color": [0, 0, 0]} for number, name, thing in table]


def _save(array: np.ndarray, path: Path) -> None:
    Image.fromarray(array).save(path)
