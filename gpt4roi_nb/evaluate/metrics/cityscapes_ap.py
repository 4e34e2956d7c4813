"""AP of Cityscapes by cityscapesscripts.

cityscapesscripts reads one PNG per prediction, a hundred per image, and the first of its two steps (which pixels
overlap) no longer runs with NumPy 2.4. That step is done here, on arrays. The second, from there to AP, calls its code.
That takes seconds, so for samples of images only the ranking is repeated, by the same rules.
"""

from __future__ import annotations

from copy import copy
from typing import Any, NamedTuple

import numpy as np

from gpt4roi_nb.evaluate.metrics.outputs import Instances
from gpt4roi_nb.evaluate.metrics.statistics import Counts, Metric
from gpt4roi_nb.evaluate.metrics.tools import tool

DRAWS = 200  # samples per interval: each ranks all predictions
GROUP = 1000  # Cityscapes' instance ids below this are groups of things


class Ranked(NamedTuple):
    """The predictions of a class in an image, as ranked.

    Attributes:
        instances, predictions, missed: numbers of instances, predictions and missed instances.
        right, scores: (M,) of the predictions that count.
    """

    instances: int
    predictions: int
    missed: int
    right: np.ndarray
    scores: np.ndarray


class CityscapesAP:
    """Computes Cityscapes' AP. Classes are Cityscapes' label ids."""

    def __init__(self) -> None:
        module = "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling"
        self._tool = tool(module, "Cityscapes' AP is computed")
        self._args = copy(self._tool.args)  # other users of the module share its own
        self._tool.setInstanceLabels(self._args)
        self._names = {label.id: label.name for label in self._tool.labels if label.name in self._args.instLabels}
        self._void = [label.id for label in self._tool.labels if label.ignoreInEval]
        self.matches: dict[str, dict[str, Any]] = {}

    def add(self, image_id: str, truth: np.ndarray, masks: np.ndarray, found: Instances) -> None:
        """Record which predictions overlap which true instances of an image.

        Args:
            image_id: id of the image.
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

    def metrics(self) -> dict[str, Metric]:
        """Return AP and AP50; nan without a true instance. Units are the images, in the order added."""
        labels, overlaps = self._args.instLabels, self._args.overlaps
        # By class and overlap: the right and wrong predictions and the missed instances of each image.
        table = [
            [[self._outcome(image, label, overlap) for image in self.matches.values()] for overlap in overlaps]
            for label in labels
        ]
        precisions = np.full((1, len(labels), len(overlaps)), np.nan)
        for k, j in np.ndindex(*precisions.shape[1:]):
            outcomes = table[k][j]
            if any(one.instances for one in outcomes):
                # The official code fails if all predictions of a class are ignored; nothing is found then.
                counted = any(len(one.scores) for one in outcomes)
                precisions[0, k, j] = self._official(labels[k], overlaps[j]) if counted else 0.0
        average, at_half = float("nan"), float("nan")
        if not np.isnan(precisions).all():
            averages = self._tool.computeAverages(precisions, self._args)
            average, at_half = 100 * float(averages["allAp"]), 100 * float(averages["allAp50%"])
        units = tuple(self.matches)

        def of_samples(counts: Counts, overlaps: int) -> np.ndarray:
            return np.array([_of_sample(table, row, overlaps) for row in counts])

        return {
            "AP": Metric(average, units, lambda counts: of_samples(counts, len(overlaps)), DRAWS),
            "AP50": Metric(at_half, units, lambda counts: of_samples(counts, 1), DRAWS),
        }

    def _official(self, label: str, overlap: float) -> float:
        args = copy(self._args)
        args.instLabels, args.overlaps = [label], np.array([overlap])
        return float(self._tool.evaluateMatches(self.matches, args)[0, 0, 0])

    def _outcome(self, image: dict[str, Any], label: str, overlap: float) -> Ranked:
        """Rank an image's predictions of a class as cityscapesscripts does, including its rules on what to ignore."""
        smallest = self._args.minRegionSizes[0]
        true = [one for one in image["groundTruth"][label] if one["instID"] >= GROUP and one["pixelCount"] >= smallest]
        right: list[bool] = []
        scores: list[float] = []
        missed = 0
        for one in true:
            found = sorted((p["confidence"] for p in one["matchedPred"] if _iou(one, p) > overlap), reverse=True)
            missed += not found
            right += [k == 0 for k in range(len(found))]  # the best counts; others of the same instance are wrong
            scores += found
        for one in image["prediction"][label]:
            if any(_iou(one, met) > overlap for met in one["matchedGt"]):
                continue
            ignored = one["voidIntersection"]
            for met in one["matchedGt"]:
                ignored += met["intersection"] * ((met["instID"] < GROUP) + (met["pixelCount"] < smallest))
            if ignored / one["pixelCount"] <= overlap:
                right.append(False)
                scores.append(one["confidence"])
        return Ranked(len(true), len(image["prediction"][label]), missed, np.array(right, bool), np.array(scores))


def _of_sample(table: list[list[list[Ranked]]], counts: np.ndarray, overlaps: int) -> float:
    """Compute AP in % of a sample. table: by class, overlap and image; only the first `overlaps` count."""
    drawn = np.repeat(np.arange(len(counts)), counts).tolist()
    with_truth = [row for row in table if any(row[0][k].instances for k in drawn)]
    values = [_stepwise([cell[k] for k in drawn]) for row in with_truth for cell in row[:overlaps]]
    return 100 * float(np.mean(values)) if values else float("nan")


def _iou(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Compute the IoU of an instance and a prediction. other: has the number of pixels that they share."""
    shared = float(other["intersection"])
    return shared / (one["pixelCount"] + other["pixelCount"] - shared)


def _stepwise(outcomes: list[Ranked]) -> float:
    """Compute the area under the precision-recall curve as cityscapesscripts integrates it."""
    if not any(one.predictions for one in outcomes):
        return 0.0
    scores = np.concatenate([one.scores for one in outcomes])
    right = np.concatenate([one.right for one in outcomes])
    missed = sum(one.missed for one in outcomes)
    order = np.argsort(scores)
    hits = np.append(np.cumsum(right[order]), 0)
    _, first = np.unique(scores[order], return_index=True)
    if not len(first) or not right.sum() + missed:
        return 0.0
    below = hits[first - 1]  # right predictions with a lower score; index -1 is the 0 at the end
    true_positives = right.sum() - below
    precision = np.append(true_positives / (len(scores) - first), 1.0)
    recall = np.append(true_positives / (right.sum() + missed), 0.0)
    around = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ (0.5 * (around[:-2] - around[2:])))
