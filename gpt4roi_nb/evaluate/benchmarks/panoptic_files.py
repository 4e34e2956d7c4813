"""Cityscapes and ADE20K-150 with panoptic annotations, in their official layouts.

    cityscapes/   leftImg8bit/val/CITY/STEM_leftImg8bit.png
                  gtFine/val/CITY/STEM_gtFine_labelIds.png, …_gtFine_instanceIds.png
                  gtFine/cityscapes_panoptic_val.json, gtFine/cityscapes_panoptic_val/STEM_gtFine_panoptic.png
    ade20k/       ADEChallengeData2016/images/validation/STEM.jpg, annotations/validation/STEM.png
                  ADEChallengeData2016/ade20k_panoptic_val.json, ade20k_panoptic_val/STEM.png

The panoptic files are not downloaded: `cityscapesscripts.preparation.createPanopticImgs` and detectron2's
`prepare_ade20k_pan_seg.py` make them of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from gpt4roi_nb.data.box_check import Box, box_from_xywh
from gpt4roi_nb.data.problems import MISSING, NO_IMAGE, OUT_OF_RANGE, UNREADABLE_IMAGE, BadRecord, Problems, field
from gpt4roi_nb.data.record import as_boxes
from gpt4roi_nb.evaluate.benchmarks.registry import part
from gpt4roi_nb.evaluate.metrics.class_names import ClassName, class_names
from gpt4roi_nb.files import read_json

MAX_REGIONS = 300  # of an image; further ones are counted as left out
PICTURES = (".png", ".jpg")  # Cityscapes' pictures are PNG, the generated world's JPEG
_ADE20K_FOLDERS = {"train": "training", "val": "validation"}
_MADE_BY = {
    "cityscapes": "`csCreatePanopticImgs` of cityscapesscripts makes it from gtFine",
    "ade20k": "detectron2's datasets/prepare_ade20k_pan_seg.py makes it from the annotations",
}


@dataclass(frozen=True, slots=True)
class PanopticImage:
    """A picture and the files of its ground truth.

    panoptic: PNG of segment ids, R + 256·G + 65536·B, 0 for void. semantic: PNG of class numbers. instances:
    Cityscapes' 16-bit PNG; None for ADE20K. annotation: the image's entry of the panoptic JSON file.
    """

    id: str
    picture: Path
    panoptic: Path
    semantic: Path
    instances: Path | None
    annotation: Mapping[str, Any]


class Regions(NamedTuple):
    """The regions of an image, in the order of their segment ids.

    ids: (N,) segment ids. classes: (N,) indices of the true classes. boxes: (N, 4) float32, pixel xyxy, the tight
    boxes of the masks. masks: (N, H, W) bool.
    """

    ids: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray


class Truth(NamedTuple):
    """The ground truth of an image, of one size.

    segments: (H, W) int32 segment ids. classes: (H, W) int16 class indices, -1 where nothing is scored. instances:
    (H, W) int of Cityscapes' instance ids; None for ADE20K.
    """

    segments: np.ndarray
    classes: np.ndarray
    instances: np.ndarray | None


@dataclass(frozen=True)
class PanopticData:
    """The images of a split, and its classes."""

    dataset: str
    split: str
    root: Path
    json: Path
    classes: tuple[ClassName, ...]
    images: tuple[PanopticImage, ...]

    @property
    def things(self) -> list[bool]:
        """(C,) whether a class is counted."""
        return [entry.is_thing for entry in self.classes]


def read_panoptic(root: str | Path, dataset: str, split: str = "val", problems: Problems | None = None) -> PanopticData:
    """Finds the images of a split and checks that their files are there.

    Args:
        root: the data set's folder, or one that has it as `cityscapes` or `ade20k`; for ADE20K also
            `ADEChallengeData2016` itself.
        dataset: "cityscapes" or "ade20k".
        problems: where images whose files are missing are noted; they are left out.

    Raises:
        FileNotFoundError: the annotation file or a folder is missing; all missing ones are named.
        ValueError: the annotation file is broken.
    """
    problems = problems if problems is not None else Problems()
    find = _finder(Path(root), dataset, split)
    base = find.base
    lacking = [path for path in (find.json, *find.folders) if not path.exists()]
    if lacking:
        names = ", ".join(str(path.relative_to(base)) for path in lacking)
        hint = f" ({_MADE_BY[dataset]})" if find.json in lacking else ""
        raise FileNotFoundError(f"{str(base)!r} lacks {names}{hint}")
    content = read_json(find.json)
    if not isinstance(content.get("categories"), list) or not isinstance(content.get("annotations"), list):
        raise ValueError(f"{str(find.json)!r} must hold lists of 'categories' and 'annotations', as panoptic files do")
    images = []
    for number, entry in enumerate(content["annotations"]):
        try:
            image = find.image(entry)
            for path in (image.picture, image.panoptic, image.semantic, image.instances):
                if path is not None and not path.is_file():
                    raise BadRecord(NO_IMAGE, f"there is no {path.relative_to(base)}")
        except BadRecord as bad:
            problems.add(bad, f"{find.json.name}: annotation {number}")
            continue
        images.append(image)
    classes = class_names(content["categories"], dataset)
    return PanopticData(dataset, split, base, find.json, classes, tuple(images))


def needed_files(root: Path, dataset: str, split: str) -> dict[str, Path]:
    """What `read_panoptic` needs: what it is → path."""
    find = _finder(root, dataset, split)
    names = (f"list of segments ({_MADE_BY[dataset]})", "panoptic pictures", "annotations", "pictures")
    return dict(zip(names, (find.json, *find.folders), strict=True))


def _finder(root: Path, dataset: str, split: str) -> _Cityscapes | _ADE20K:
    base = part(root, dataset)
    return _Cityscapes(base, split) if dataset == "cityscapes" else _ADE20K(part(base, "ADEChallengeData2016"), split)


class _Cityscapes:
    def __init__(self, base: Path, split: str) -> None:
        self.base = base
        self.json = base / "gtFine" / f"cityscapes_panoptic_{split}.json"
        self.panoptic = self.json.with_suffix("")
        self.truth, self.pictures = base / "gtFine" / split, base / "leftImg8bit" / split
        self.folders = (self.panoptic, self.truth, self.pictures)

    def image(self, entry: Any) -> PanopticImage:
        stem = field(entry, "image_id", str)
        city = stem.partition("_")[0]
        # The list of images is no help: its file names, as the official tool writes them, name no file.
        pictures = [self.pictures / city / f"{stem}_leftImg8bit{suffix}" for suffix in PICTURES]
        return PanopticImage(
            stem,
            next((path for path in pictures if path.is_file()), pictures[0]),
            self.panoptic / field(entry, "file_name", str),
            self.truth / city / f"{stem}_gtFine_labelIds.png",
            self.truth / city / f"{stem}_gtFine_instanceIds.png",
            _checked(entry),
        )


class _ADE20K:
    def __init__(self, base: Path, split: str) -> None:
        self.base = base
        self.json = base / f"ade20k_panoptic_{split}.json"
        self.panoptic = self.json.with_suffix("")
        part = _ADE20K_FOLDERS.get(split, split)
        self.truth, self.pictures = base / "annotations" / part, base / "images" / part
        self.folders = (self.panoptic, self.truth, self.pictures)

    def image(self, entry: Any) -> PanopticImage:
        stem = field(entry, "image_id", str)
        png = self.panoptic / field(entry, "file_name", str)
        return PanopticImage(
            stem, self.pictures / f"{stem}.jpg", png, self.truth / f"{stem}.png", None, _checked(entry)
        )


def _checked(entry: Any) -> dict[str, Any]:
    """The entry with an `iscrowd` for each segment, which the official tools read, and without fields that are null."""
    segments = []
    for segment in field(entry, "segments_info", list):
        field(segment, "id", int), field(segment, "category_id", int)
        segments.append({"iscrowd": 0} | {key: value for key, value in segment.items() if value is not None})
    return {**entry, "segments_info": segments}


def segment_ids(png: Path) -> np.ndarray:
    """(H, W) int32 of a panoptic PNG. Raises BadRecord if it cannot be read."""
    colours = _pixels(png)
    if colours.ndim != 3 or colours.shape[2] < 3:
        raise BadRecord(UNREADABLE_IMAGE, f"{png.name} must have three colours that make up an id, but is grey")
    return colours[..., :3].astype(np.int32) @ np.array([1, 256, 65536], np.int32)


def regions_of(image: PanopticImage, classes: tuple[ClassName, ...], problems: Problems | None = None) -> Regions:
    """What is asked about in an image: each segment id of its PNG that its entry lists, at most `MAX_REGIONS`.

    Raises:
        BadRecord: the PNG cannot be read.
    """
    problems = problems if problems is not None else Problems()
    index_of = {entry.id: k for k, entry in enumerate(classes)}
    listed = {segment["id"]: segment["category_id"] for segment in image.annotation["segments_info"]}
    ids = segment_ids(image.panoptic)
    kept: list[tuple[int, int]] = []
    chosen: list[np.ndarray] = []
    boxes: list[Box] = []
    for number in np.unique(ids).tolist():
        if number == 0:
            continue
        if len(kept) == MAX_REGIONS:
            problems.leave_out(f"regions beyond {MAX_REGIONS} of an image")
            continue
        if listed.get(number) not in index_of:
            what = f"the category {listed[number]} of" if number in listed else "an entry for"
            detail = f"the file lists no such thing as {what} segment {number}, which is in the picture"
            problems.add(BadRecord(OUT_OF_RANGE if number in listed else MISSING, detail), image.panoptic.name)
            continue
        mask = ids == number
        boxes.append(_bounds(mask) or (0.0, 0.0, 0.0, 0.0))
        kept.append((number, index_of[listed[number]]))
        chosen.append(mask)
    numbers = np.asarray(kept, np.int64).reshape(-1, 2)
    masks = np.stack(chosen) if chosen else np.zeros((0, *ids.shape), bool)
    return Regions(numbers[:, 0], numbers[:, 1], as_boxes(boxes), masks)


def boxes_of(image: PanopticImage, problems: Problems) -> list[tuple[int, int, Box]]:
    """(segment id, category id, pixel xyxy) of the regions of an image, in order of ids, at most `MAX_REGIONS`.

    Without looking at its pixels where its entry tells the boxes, so that a list of all questions takes no minutes.

    Raises:
        BadRecord: a box is missing, and the PNG that it would be taken from cannot be read.
    """
    segments = sorted(image.annotation["segments_info"], key=lambda segment: int(segment["id"]))
    for _ in segments[MAX_REGIONS:]:
        problems.leave_out(f"regions beyond {MAX_REGIONS} of an image")
    segments = segments[:MAX_REGIONS]
    ids = None if all(segment.get("bbox") for segment in segments) else segment_ids(image.panoptic)
    found = []
    for segment in segments:
        try:
            box = box_from_xywh(segment["bbox"]) if ids is None else _bounds(ids == segment["id"])
        except BadRecord as bad:
            problems.add(bad, f"{image.panoptic.name}: segment {segment['id']}")
            continue
        if box is not None:
            found.append((int(segment["id"]), int(segment["category_id"]), box))
    return found


def _bounds(mask: np.ndarray) -> Box | None:
    """The tight box of a mask (H, W) bool, pixel xyxy; None for an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1


def truth_of(image: PanopticImage, classes: tuple[ClassName, ...]) -> Truth:
    """Reads an image's ground truth.

    Raises:
        BadRecord: a PNG cannot be read, or is not of the size of the panoptic one.
    """
    segments = segment_ids(image.panoptic)
    labels = _of_size(image.semantic, segments.shape)
    instances = None if image.instances is None else _of_size(image.instances, segments.shape).astype(np.int64)
    return Truth(segments, _indices(labels, image, classes), instances)


def _of_size(png: Path, shape: tuple[int, ...]) -> np.ndarray:
    pixels = _pixels(png)
    if pixels.shape != shape:
        raise BadRecord(UNREADABLE_IMAGE, f"{png.name} must be {shape}, as the panoptic PNG is, but is {pixels.shape}")
    return pixels


def _indices(labels: np.ndarray, image: PanopticImage, classes: tuple[ClassName, ...]) -> np.ndarray:
    """Cityscapes' label ids or ADE20K's numbers as class indices, -1 where nothing is scored."""
    labels = labels.astype(np.int64)
    table = np.full(max(256, int(labels.max()) + 1), -1, np.int16)
    shift = 0 if image.instances is not None else 1  # ADE20K's PNGs begin at 1, its table at 0
    for index, entry in enumerate(classes):
        table[entry.id + shift] = index
    return table[labels]


def _pixels(png: Path) -> np.ndarray:
    try:
        with Image.open(png) as opened:
            return np.asarray(opened)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's ways to say that a PNG is broken
        raise BadRecord(UNREADABLE_IMAGE, f"{png.name}: {error}") from error
