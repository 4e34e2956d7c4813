"""AP of instances by the field's own tools: cityscapesscripts for Cityscapes, pycocotools for ADE20K.

cityscapesscripts reads a PNG a prediction, a hundred of an image, and of its two steps the first (which pixels meet
which) no longer runs with NumPy 2.4. That step is done here, on arrays; the second, from there to AP, is its own.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import redirect_stdout
from copy import copy
from typing import Any

import numpy as np

from gpt4roi_nb.evaluate.class_names import ClassName
from gpt4roi_nb.evaluate.outputs import Instances

GROUP = 1000  # of Cityscapes' instance ids: below it, a group of things


class CityscapesAP:
    """Cityscapes' AP. Classes are its own label ids."""

    def __init__(self) -> None:
        try:
            from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as tool
        except ImportError as error:
            raise ImportError(
                "Cityscapes' AP is computed by cityscapesscripts, which is missing; pip install 'gpt4roi_nb[evaluate]'"
            ) from error
        self._tool = tool
        self._args = copy(tool.args)  # the module's own would be shared by whoever else uses it
        tool.setInstanceLabels(self._args)
        self._names = {label.id: label.name for label in tool.labels if label.name in self._args.instLabels}
        self._void = [label.id for label in tool.labels if label.ignoreInEval]
        self.matches: dict[str, dict[str, Any]] = {}

    def add(self, image_id: str, truth: np.ndarray, masks: np.ndarray, found: Instances) -> None:
        """Notes which predictions meet which true instances.

        Args:
            truth: (H, W) int of instance ids.
            masks: (N, H, W) bool.
            found: predictions; their categories are label ids.
        """
        true: dict[str, list[dict[str, Any]]] = {name: [] for name in self._args.instLabels}
        predicted: dict[str, list[dict[str, Any]]] = {name: [] for name in self._args.instLabels}
        place: dict[int, tuple[str, int]] = {}
        for number, count in zip(*map(np.ndarray.tolist, np.unique(truth, return_counts=True)), strict=True):
            label = number if number < GROUP else number // GROUP
            if label in self._names:
                name = self._names[label]
                place[number] = (name, len(true[name]))
                facts = {"instID": number, "labelID": label, "pixelCount": count, "medDist": -1, "distConf": 0.0}
                true[name].append({**facts, "matchedPred": []})
        met = {k: np.unique(truth[masks[k]], return_counts=True) for k in set(found.regions.tolist())}
        serial = 0
        rows = zip(found.regions.tolist(), found.categories.tolist(), found.scores.tolist(), strict=True)
        for region, label, score in rows:
            numbers, counts = met[region]
            if label not in self._names or not len(numbers):
                continue
            name = self._names[label]
            prediction = {
                "imgName": f"{image_id}/{region}/{label}",
                "predID": serial,
                "labelID": label,
                "pixelCount": int(counts.sum()),
                "confidence": score,
                "voidIntersection": int(counts[np.isin(numbers, self._void)].sum()),
            }
            matched = []
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
                if number in place and place[number][0] == name:
                    instance = true[name][place[number][1]]
                    facts = {key: value for key, value in instance.items() if key != "matchedPred"}
                    matched.append({**facts, "intersection": count})
                    instance["matchedPred"].append({**prediction, "intersection": count})
            predicted[name].append({**prediction, "matchedGt": matched})
            serial += 1
        self.matches[image_id] = {"groundTruth": true, "prediction": predicted}

    def metrics(self) -> dict[str, float]:
        """AP and AP50 in %; nan without a true instance."""
        if not any(one for image in self.matches.values() for one in image["groundTruth"].values()):
            return {"AP": float("nan"), "AP50": float("nan")}
        with np.errstate(all="ignore"):
            averages = self._tool.computeAverages(self._tool.evaluateMatches(self.matches, self._args), self._args)
        return {"AP": 100 * float(averages["allAp"]), "AP50": 100 * float(averages["allAp50%"])}


class CocoAP:
    """COCO's AP of masks, over the things among `classes`."""

    def __init__(self, classes: tuple[ClassName, ...]) -> None:
        try:
            from pycocotools import coco, cocoeval, mask
        except ImportError as error:
            raise ImportError(
                "ADE20K's AP is computed by pycocotools, which is missing; pip install 'gpt4roi_nb[evaluate]'"
            ) from error
        self._coco, self._cocoeval, self._mask = coco.COCO, cocoeval.COCOeval, mask
        self._things = [{"id": entry.id, "name": entry.name} for entry in classes if entry.is_thing]
        self._images: list[dict[str, Any]] = []
        self._true: list[dict[str, Any]] = []
        self._predicted: list[dict[str, Any]] = []

    def add(self, ids: np.ndarray, annotation: Mapping[str, Any], masks: np.ndarray, found: Instances) -> None:
        """Adds an image.

        Args:
            ids: (H, W) int of segment ids.
            annotation: the image's entry of the panoptic file.
            masks: (N, H, W) bool.
            found: predictions; their categories are category ids.
        """
        number = len(self._images) + 1
        self._images.append({"id": number, "height": ids.shape[0], "width": ids.shape[1]})
        things = {entry["id"] for entry in self._things}
        for segment in annotation["segments_info"]:
            mask = ids == segment["id"]
            if segment["category_id"] in things and mask.any():
                entry = {
                    "id": len(self._true) + 1,
                    "image_id": number,
                    "category_id": segment["category_id"],
                    "iscrowd": segment["iscrowd"],
                }
                self._true.append(entry | self._shape(mask))
        shapes = {k: self._shape(masks[k]) for k in set(found.regions.tolist())}
        rows = zip(found.regions.tolist(), found.categories.tolist(), found.scores.tolist(), strict=True)
        for region, category, score in rows:
            entry = {"id": len(self._predicted) + 1, "image_id": number, "category_id": category, "score": score}
            self._predicted.append(entry | shapes[region] | {"iscrowd": 0})

    def _shape(self, mask: np.ndarray) -> dict[str, Any]:
        lengths = self._mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        return {
            "segmentation": lengths,
            "area": float(self._mask.area(lengths)),
            "bbox": self._mask.toBbox(lengths).tolist(),
        }

    def metrics(self) -> dict[str, float]:
        """AP and AP50 in %; nan without a true instance."""
        if not self._true:
            return {"AP": float("nan"), "AP50": float("nan")}
        with redirect_stdout(io.StringIO()):
            evaluation = self._cocoeval(self._filled(self._true), self._filled(self._predicted), "segm")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return {"AP": 100 * float(evaluation.stats[0]), "AP50": 100 * float(evaluation.stats[1])}

    def _filled(self, annotations: list[dict[str, Any]]) -> Any:
        filled = self._coco()
        filled.dataset = {"images": self._images, "categories": self._things, "annotations": annotations}
        filled.createIndex()
        return filled
