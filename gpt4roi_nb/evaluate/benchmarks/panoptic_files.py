"""Cityscapes and ADE20K-150 with panoptic annotations, in their official layouts.

    cityscapes/   leftImg8bit/val/CITY/STEM_leftImg8bit.png
                  gtFine/val/CITY/STEM_gtFine_labelIds.png, …_gtFine_instanceIds.png
                  gtFine/cityscapes_panoptic_val.json, gtFine/cityscapes_panoptic_val/STEM_gtFine_panoptic.png
    ade20k/       ADEChallengeData2016/images/validation/STEM.jpg, annotations/validation/STEM.png
                  ADEChallengeData2016/ade20k_panoptic_val.json, ade20k_panoptic_val/STEM.png
                  ADEChallengeData2016/ade20k_instance_val.json, optional; if present, AP is computed against it

The panoptic files are not part of the downloads: `cityscapesscripts.preparation.createPanopticImgs` and detectron2's
`prepare_ade20k_pan_seg.py` make them from the rest; Mask2Former's `prepare_ade20k_ins_seg.py` makes the instance file.

The file of words for the classes (`class_names.WORDS_FILES`) may lie in the data folder, `ade20k`, `cityscapes` or
`ADEChallengeData2016`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.box_check import box_from_xywh
from gpt4roi_nb.data.coco import is_crowd
from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.masks import bounds
from gpt4roi_nb.data.problems import (
    MISSING,
    NO_IMAGE,
    OUT_OF_RANGE,
    UNREADABLE_IMAGE,
    WRONG_TYPE,
    BadRecord,
    Problems,
    UniqueTable,
    field,
    id_field,
    path_field,
    shown,
    text_field,
)
from gpt4roi_nb.data.record import as_boxes
from gpt4roi_nb.evaluate.benchmarks.benchmark import part
from gpt4roi_nb.evaluate.benchmarks.class_names import WORDS_FILES, class_names
from gpt4roi_nb.evaluate.metrics.coco_ap import mask_of
from gpt4roi_nb.evaluate.metrics.ground_truth import ClassName, PanopticData, PanopticImage, Truth
from gpt4roi_nb.files import check_regular_file, read_json
from gpt4roi_nb.images import DAMAGED

MAX_REGIONS = 300  # per image; further ones are counted as left out
SUFFIXES = (".png", ".jpg")  # Cityscapes' images are PNG, the generated world's JPEG
_ADE20K_FOLDERS = {"train": "training", "val": "validation"}
_MADE_BY = {
    "cityscapes": "`csCreatePanopticImgs` of cityscapesscripts makes it from gtFine",
    "ade20k": "detectron2's datasets/prepare_ade20k_pan_seg.py makes it from the annotations",
}


class Regions(NamedTuple):
    """The regions of an image, in the order of their segment ids.

    Attributes:
        ids: (N,) segment ids.
        classes: (N,) indices of the true classes.
        boxes: (N, 4) float32, pixel xyxy, the tight boxes of the masks.
        masks: (N, H, W) bool.
    """

    ids: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray


def read_panoptic(root: str | Path, dataset: str, split: str = "val", problems: Problems | None = None) -> PanopticData:
    """Find the images of a split and check that their files exist.

    Args:
        root: the dataset's folder, or one that has it as `cityscapes` or `ade20k`; for ADE20K also
            `ADEChallengeData2016` itself.
        dataset: "cityscapes" or "ade20k".
        split: "val" or "train".
        problems: gets bad records, and images with missing files; they are left out.

    Raises:
        FileNotFoundError: the annotation file or a folder is missing; the message names all.
        ValueError: the annotation file is broken.
    """
    problems = problems if problems is not None else Problems()
    layout = _layout(Path(root), dataset, split)
    base = layout.base
    lacking = [path for path in (layout.json, *layout.folders) if not path.exists()]
    if lacking:
        names = ", ".join(str(path.relative_to(base)) for path in lacking)
        hint = f" ({_MADE_BY[dataset]})" if layout.json in lacking else ""
        raise FileNotFoundError(f"{str(base)!r} lacks {names}{hint}")
    content = read_json(layout.json)
    if not isinstance(content.get("categories"), list) or not isinstance(content.get("annotations"), list):
        raise ValueError(
            f"{str(layout.json)!r} must hold lists of 'categories' and 'annotations', as panoptic files do"
        )
    images = []
    for number, entry in enumerate(content["annotations"]):
        try:
            image = layout.image(entry)
            for path in (image.path, image.panoptic, image.semantic, image.instances):
                if path is not None and not path.is_file():
                    raise BadRecord(NO_IMAGE, f"there is no {path.relative_to(base)}")
        except BadRecord as bad:
            problems.add(bad, f"{layout.json.name}: annotation {number}")
            continue
        images.append(image)
    categories: UniqueTable[int, dict[str, Any]] = UniqueTable()
    for number, entry in enumerate(content["categories"]):
        try:
            category, name = field(entry, "id", int), text_field(entry, "name")
            if entry.get("isthing") not in (0, 1):
                raise BadRecord(WRONG_TYPE, f"'isthing' must be 0 or 1, but is {shown(entry.get('isthing'))}")
            categories.add(category, {**entry, "name": name})
        except BadRecord as bad:
            problems.add(bad, f"{layout.json.name}: category {number}")
    classes = class_names(list(categories.values()), dataset)
    return PanopticData(dataset, split, base, layout.json, classes, tuple(images))


def needed_files(root: Path, dataset: str, split: str) -> dict[str, Path]:
    """Return what `read_panoptic` needs, as description → path."""
    layout = _layout(root, dataset, split)
    names = (f"list of segments ({_MADE_BY[dataset]})", "panoptic PNGs", "annotations", "images")
    return dict(zip(names, (layout.json, *layout.folders), strict=True))


class _Layout(NamedTuple):
    """Paths of a split of a dataset. truth: the folder of its annotations."""

    dataset: str
    base: Path
    json: Path
    truth: Path
    images: Path

    @property
    def folders(self) -> tuple[Path, Path, Path]:
        """Folders of the panoptic PNGs, the annotations and the images."""
        return self.json.with_suffix(""), self.truth, self.images

    def image(self, entry: Any) -> PanopticImage:
        """Return the files of an entry of the panoptic file. Raises BadRecord if it is malformed."""
        stem = path_field(entry, "image_id")
        panoptic = self.json.with_suffix("") / path_field(entry, "file_name")
        checked = _checked(entry)
        if self.dataset == "ade20k":
            path, truth = self.images / f"{stem}.jpg", self.truth / f"{stem}.png"
            return PanopticImage(stem, path, panoptic, truth, None, checked)
        city = stem.partition("_")[0]
        # The file's list of images does not help: the official tool writes file names that do not exist.
        places = [self.images / city / f"{stem}_leftImg8bit{suffix}" for suffix in SUFFIXES]
        path = next((path for path in places if path.is_file()), places[0])
        labels, instances = (self.truth / city / f"{stem}_gtFine_{kind}Ids.png" for kind in ("label", "instance"))
        return PanopticImage(stem, path, panoptic, labels, instances, checked)


def _layout(root: Path, dataset: str, split: str) -> _Layout:
    base = part(root, dataset)
    if dataset == "cityscapes":
        truth = base / "gtFine"
        json = truth / f"cityscapes_panoptic_{split}.json"
        return _Layout(dataset, base, json, truth / split, base / "leftImg8bit" / split)
    base = part(base, "ADEChallengeData2016")
    folder = _ADE20K_FOLDERS.get(split, split)
    json = base / f"ade20k_panoptic_{split}.json"
    return _Layout(dataset, base, json, base / "annotations" / folder, base / "images" / folder)


def _checked(entry: Any) -> dict[str, Any]:
    """Return the entry with an `iscrowd` for each segment, which the official tools read, and without null fields."""
    segments = []
    for segment in field(entry, "segments_info", list):
        field(segment, "id", int), field(segment, "category_id", int)
        known = {key: value for key, value in segment.items() if value is not None}
        segments.append({**known, "iscrowd": int(is_crowd(segment))})
    return {**entry, "segments_info": segments}


def segment_ids(png: Path) -> np.ndarray:
    """Read the (H, W) int32 segment ids of a panoptic PNG. Raises BadRecord if it cannot be read."""
    colours = _pixels(png)
    if colours.ndim != 3 or colours.shape[2] < 3:
        raise BadRecord(UNREADABLE_IMAGE, f"{png.name} must have three colour channels that encode an id, but is grey")
    return colours[..., :3].astype(np.int32) @ np.array([1, 256, 65536], np.int32)


def regions_of(image: PanopticImage, classes: tuple[ClassName, ...], problems: Problems | None = None) -> Regions:
    """Read the regions to ask about in an image: the segments of its PNG that its entry lists, at most `MAX_REGIONS`.

    Args:
        image: of `read_panoptic`.
        classes: of the dataset.
        problems: gets segments that cannot be used.

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
            detail = f"the file does not list {what} segment {number}, which is in the PNG"
            problems.add(BadRecord(OUT_OF_RANGE if number in listed else MISSING, detail), image.panoptic.name)
            continue
        mask = ids == number
        boxes.append(bounds(mask) or (0.0, 0.0, 0.0, 0.0))
        kept.append((number, index_of[listed[number]]))
        chosen.append(mask)
    numbers = np.asarray(kept, np.int64).reshape(-1, 2)
    masks = np.stack(chosen) if chosen else np.zeros((0, *ids.shape), bool)
    return Regions(numbers[:, 0], numbers[:, 1], as_boxes(boxes), masks)


def boxes_of(image: PanopticImage, problems: Problems) -> list[tuple[int, int, Box]]:
    """Return (segment id, category id, pixel xyxy) of an image's regions, ordered by id, at most `MAX_REGIONS`.

    Pixels are read only if the entry lacks boxes, so that listing all questions does not take minutes.

    Args:
        image: of `read_panoptic`.
        problems: gets segments that cannot be used.

    Raises:
        BadRecord: a box is missing, and the PNG to compute it from cannot be read.
    """
    segments = sorted(image.annotation["segments_info"], key=lambda segment: int(segment["id"]))
    for _ in segments[MAX_REGIONS:]:
        problems.leave_out(f"regions beyond {MAX_REGIONS} of an image")
    segments = segments[:MAX_REGIONS]
    ids = None if all(segment.get("bbox") for segment in segments) else segment_ids(image.panoptic)
    found = []
    for segment in segments:
        try:
            box = box_from_xywh(segment["bbox"]) if ids is None else bounds(ids == segment["id"])
        except BadRecord as bad:
            problems.add(bad, f"{image.panoptic.name}: segment {segment['id']}")
            continue
        if box is not None:
            found.append((int(segment["id"]), int(segment["category_id"]), box))
    return found


def words_file(root: Path, dataset: str, split: str) -> Path | None:
    """Return Osprey's file of words for the classes; None if the data does not have it."""
    folders = dict.fromkeys((_layout(root, dataset, split).base, part(root, dataset), root))
    return next((file for folder in folders if (file := folder / WORDS_FILES[dataset]).is_file()), None)


def instances_file(root: Path, split: str) -> Path:
    """Return the path of ADE20K's optional instances in COCO's form. (Cityscapes has one PNG per image instead.)"""
    return _layout(root, "ade20k", split).base / f"ade20k_instance_{split}.json"


def read_instances(file: Path, images: Collection[str], problems: Problems) -> dict[str, list[dict[str, Any]]]:
    """Read the annotations of some images.

    Args:
        file: of `instances_file`.
        images: ids of the images.
        problems: gets bad records.

    Returns:
        Image id → its annotations, possibly none.
    """
    found: dict[str, list[dict[str, Any]]] = {image: [] for image in images}
    for number, (key, entry) in enumerate(elements(file, problems)):
        if key != "annotations":
            continue
        try:
            image = str(id_field(entry, "image_id"))
            category, mask = field(entry, "category_id", int), field(entry, "segmentation", dict)
        except BadRecord as bad:
            problems.add(bad, f"{file.name}: entry {number}")
            continue
        if image in found:
            found[image].append({"category_id": category, "segmentation": mask})
    return found


def truth_of(
    image: PanopticImage, classes: tuple[ClassName, ...], annotated: Sequence[dict[str, Any]] | None = None
) -> Truth:
    """Read an image's ground truth.

    Args:
        image: of `read_panoptic`.
        classes: of the dataset.
        annotated: the image's instances from `read_instances`, if the data has such a file.

    Raises:
        BadRecord: a PNG or a mask cannot be read, or its size differs from that of the panoptic PNG.
    """
    segments = segment_ids(image.panoptic)
    labels = _of_size(image.semantic, segments.shape)
    instances = None if image.instances is None else _of_size(image.instances, segments.shape).astype(np.int64)
    things = None
    if annotated is not None:
        things = tuple((one["category_id"], _mask(one["segmentation"], segments.shape)) for one in annotated)
    return Truth(segments, _indices(labels, image, classes), instances, things)


def _mask(lengths: dict[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """Decode COCO's compressed run lengths to (H, W) bool."""
    size, counts = lengths.get("size"), lengths.get("counts")
    if size != list(shape) or not isinstance(counts, str):
        detail = f"a mask must be compressed run lengths of {shape}, but is {shown(lengths)}"
        raise BadRecord(UNREADABLE_IMAGE, detail)
    try:
        return mask_of({"size": size, "counts": counts})
    except ValueError as error:
        raise BadRecord(UNREADABLE_IMAGE, f"a mask's run lengths are broken: {error}") from error


def _of_size(png: Path, shape: tuple[int, ...]) -> np.ndarray:
    pixels = _pixels(png)
    if pixels.shape != shape:
        raise BadRecord(UNREADABLE_IMAGE, f"{png.name} must be {shape}, as the panoptic PNG is, but is {pixels.shape}")
    return pixels


def _indices(labels: np.ndarray, image: PanopticImage, classes: tuple[ClassName, ...]) -> np.ndarray:
    """Convert Cityscapes' label ids or ADE20K's numbers to class indices; -1 where nothing is scored."""
    labels = labels.astype(np.int64)
    table = np.full(max(256, int(labels.max()) + 1), -1, np.int16)
    shift = 0 if image.instances is not None else 1  # ADE20K's PNGs count from 1, its table from 0
    for index, entry in enumerate(classes):
        table[entry.id + shift] = index
    return table[labels]


def _pixels(png: Path) -> np.ndarray:
    try:
        check_regular_file(png)
        with Image.open(png) as opened:
            return np.asarray(opened)
    except DAMAGED as error:
        raise BadRecord(UNREADABLE_IMAGE, f"{png.name}: {error}") from error
