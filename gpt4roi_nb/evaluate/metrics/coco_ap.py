"""COCO's AP of boxes and masks, by pycocotools."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from copy import copy
from functools import lru_cache
from typing import Any

import numpy as np

from gpt4roi_nb.evaluate.metrics.ground_truth import ClassName, Truth
from gpt4roi_nb.evaluate.metrics.outputs import Instances
from gpt4roi_nb.evaluate.metrics.statistics import Metric
from gpt4roi_nb.evaluate.metrics.tools import tool

DRAWS = 200  # samples per interval: each ranks all predictions


def coco_ap(
    images: Sequence[Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]],
    true: Sequence[Mapping[str, Any]],
    predicted: Sequence[Mapping[str, Any]],
    kind: str,
    draws: int = DRAWS,
) -> dict[str, Metric]:
    """Compute AP and AP50 by pycocotools, at IoU 0.50:0.95 and 0.50; nan without a true instance.

    Args:
        images, categories, true: as in COCO's files; an image's `name` is its unit.
        predicted: like `true`, with a `score`.
        kind: "bbox" or "segm".
        draws: samples per interval; each accumulates all categories again.
    """
    coco_class = tool("pycocotools.coco", "AP is computed").COCO
    evaluate = tool("pycocotools.cocoeval", "AP is computed").COCOeval
    if not true:
        units = tuple(str(image["name"]) for image in images)
        return {name: Metric(float("nan"), units) for name in ("AP", "AP50")}

    def filled(annotations: Sequence[Mapping[str, Any]]) -> Any:
        coco = coco_class()
        coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
        coco.createIndex()
        return coco

    with redirect_stdout(io.StringIO()):  # it prints how long it took
        evaluation = evaluate(filled(true), filled(predicted), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = {image["id"]: str(image["name"]) for image in images}
    units = tuple(names[image] for image in evaluation.params.imgIds)
    # Matches by category, range of areas and image; the first range is all areas.
    shape = len(evaluation.params.catIds), len(evaluation.params.areaRng), len(units)
    cells = np.array(evaluation.evalImgs, dtype=object).reshape(shape)[:, 0]
    again = copy(evaluation)
    again.params = again._paramsEval = copy(evaluation.params)
    again.params.areaRng, again.params.maxDets = again.params.areaRng[:1], again.params.maxDets[-1:]

    @lru_cache(maxsize=1)  # AP50 uses the samples of AP
    def of_samples(counts: bytes) -> np.ndarray:
        values = []
        for row in np.frombuffer(counts, np.int64).reshape(-1, len(units)):
            drawn = np.repeat(np.arange(len(units)), row)  # an image drawn twice is there twice
            again.evalImgs = cells[:, drawn].ravel().tolist()
            again.params.imgIds = list(range(len(drawn)))
            with redirect_stdout(io.StringIO()):
                again.accumulate()
            precision = again.eval["precision"][..., 0, 0]
            known = [one[one > -1] for one in (precision, precision[0])]
            values.append([100 * one.mean() if len(one) else np.nan for one in known])
        return np.array(values)

    return {
        "AP": Metric(float(100 * evaluation.stats[0]), units, lambda counts: of_samples(counts.tobytes())[:, 0], draws),
        "AP50": Metric(
            float(100 * evaluation.stats[1]), units, lambda counts: of_samples(counts.tobytes())[:, 1], draws
        ),
    }


class CocoAP:
    """Computes COCO's AP of masks over the things among `classes`."""

    def __init__(self, classes: tuple[ClassName, ...]) -> None:
        self._things = [{"id": entry.id, "name": entry.name} for entry in classes if entry.is_thing]
        self._images: list[dict[str, Any]] = []
        self._true: list[dict[str, Any]] = []
        self._predicted: list[dict[str, Any]] = []

    def add(
        self, image_id: str, truth: Truth, annotation: Mapping[str, Any], masks: np.ndarray, found: Instances
    ) -> None:
        """Add an image. True instances are `truth.things` or, if that is None, the segments of things.

        Args:
            image_id: id of the image.
            truth: its ground truth.
            annotation: the image's entry of the panoptic file.
            masks: (N, H, W) bool.
            found: predictions; their categories are category ids.
        """
        height, width = truth.segments.shape
        number = len(self._images) + 1
        self._images.append({"id": number, "name": image_id, "height": height, "width": width})
        things = {entry["id"] for entry in self._things}
        if truth.things is None:
            segments = annotation["segments_info"]
            true = [(one["category_id"], one["iscrowd"], truth.segments == one["id"]) for one in segments]
        else:
            true = [(category, 0, mask) for category, mask in truth.things]
        for category, crowd, mask in true:
            if category in things and mask.any():
                facts = {"image_id": number, "category_id": category, "iscrowd": crowd}
                self._true.append({"id": len(self._true) + 1, **facts, **_shape(mask)})
        shapes = {k: _shape(masks[k]) for k in set(found.regions.tolist())}
        rows = zip(found.regions.tolist(), found.categories.tolist(), found.scores.tolist(), strict=True)
        for region, category, score in rows:
            entry = {"id": len(self._predicted) + 1, "image_id": number, "category_id": category, "score": score}
            self._predicted.append(entry | shapes[region] | {"iscrowd": 0})

    def metrics(self) -> dict[str, Metric]:
        """Return AP and AP50; nan without a true instance. Units are the images, in the order added."""
        return coco_ap(self._images, self._things, self._true, self._predicted, "segm")


def encoded_mask(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask (H, W) bool for pycocotools: `size`, and `counts` in bytes."""
    coco_mask = tool("pycocotools.mask", "masks are held")
    return dict(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))))


def mask_of(lengths: Mapping[str, Any]) -> np.ndarray:
    """Decode pycocotools' run lengths to a mask (H, W) bool.

    Args:
        lengths: `size`, and `counts` as text.

    Raises:
        ValueError: the run lengths do not fit the size.
    """
    decoded: np.ndarray = tool("pycocotools.mask", "masks are held").decode(dict(lengths))
    mask = decoded.astype(bool)
    if encoded_mask(mask)["counts"] != lengths["counts"].encode():  # the tool does not report missing runs
        raise ValueError("its runs do not add up to its size")
    return mask


def _shape(mask: np.ndarray) -> dict[str, Any]:
    coco_mask = tool("pycocotools.mask", "masks are held")
    lengths = encoded_mask(mask)
    area, bbox = float(coco_mask.area(lengths)), coco_mask.toBbox(lengths).tolist()
    return {"segmentation": lengths, "area": area, "bbox": bbox}
