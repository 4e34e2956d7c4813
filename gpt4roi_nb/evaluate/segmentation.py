"""PQ, AP and mIoU of region classification, by the field's own tools.

PQ is cityscapesscripts' `evalPanopticSemanticLabeling`, which is panopticapi's computation, for both data sets. AP of
Cityscapes is cityscapesscripts' too, AP of ADE20K is pycocotools'. mIoU comes from a confusion matrix.

Since the masks are the true ones, only what they are called is wrong or right. With the Sentence-BERT mapping the scores
are nearly flat, so that AP, which ranks by them, says little.
"""

from __future__ import annotations

import io
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gpt4roi_nb.evaluate.instance_scores import CityscapesAP, CocoAP
from gpt4roi_nb.evaluate.outputs import NONE, Segment, instances, panoptic, semantic
from gpt4roi_nb.evaluate.panoptic_files import (
    PanopticData,
    PanopticImage,
    instance_truth,
    segment_ids,
    semantic_truth,
)

PQ_FIELDS = ("iou", "tp", "fp", "fn")


@dataclass
class _Image:
    """What an image adds. pq: (C, 4) as `PQ_FIELDS`. confusion: (C, C + 1), true by predicted, the last for none."""

    pq: np.ndarray
    confusion: np.ndarray


class SegmentationJudge:
    """Takes in the images of a data set with the class probabilities of their regions, then gives the figures.

    Args:
        data: what `read_panoptic` found.

    Raises:
        ImportError: cityscapesscripts or pycocotools is missing.
    """

    def __init__(self, data: PanopticData) -> None:
        self.data = data
        self._tool = _panoptic_tool()
        self._ap: CityscapesAP | CocoAP
        self._ap = CityscapesAP() if data.dataset == "cityscapes" else CocoAP(data.classes)
        self._images: dict[str, _Image] = {}

    def add(self, image: PanopticImage, masks: np.ndarray, probabilities: np.ndarray) -> None:
        """Scores an image.

        Args:
            masks: (N, H, W) bool, of `regions_of`.
            probabilities: (N, C + 1), the last column void, of `region_probabilities` or `one_hot`.
        """
        classes, things = self.data.classes, self.data.things
        if probabilities.shape[1] != len(classes) + 1:
            raise ValueError(
                f"probabilities must have a column for each of the {len(classes)} classes and one for void, but their "
                f"shape is {probabilities.shape}"
            )
        ids, segments = panoptic(masks, probabilities, things)
        truth = semantic_truth(image, classes)
        scored = _Image(
            self._panoptic_quality(image, ids, segments),
            confusion(truth, semantic(masks, probabilities), len(classes)),
        )
        found = instances(probabilities, things)
        numbers = np.array([entry.id for entry in classes])[found.categories]
        if isinstance(self._ap, CityscapesAP):
            self._ap.add(image.id, instance_truth(image), masks, found._replace(categories=numbers))
        else:
            self._ap.add(segment_ids(image.panoptic), image.annotation, masks, found._replace(categories=numbers))
        self._images[image.id] = scored

    def _panoptic_quality(self, image: PanopticImage, ids: np.ndarray, segments: list[Segment]) -> np.ndarray:
        classes = self.data.classes
        with tempfile.TemporaryDirectory() as folder:
            colours = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
            Image.fromarray(colours).save(Path(folder) / "predicted.png", compress_level=1)
            predicted = {
                "image_id": image.id,
                "file_name": "predicted.png",
                "segments_info": [{"id": one.id, "category_id": classes[one.category].id} for one in segments],
            }
            true = {**image.annotation, "segments_info": [dict(one) for one in image.annotation["segments_info"]]}
            categories = {entry.id: {"isthing": int(entry.is_thing)} for entry in classes}
            with redirect_stdout(io.StringIO()):
                stat = self._tool.pq_compute_single_core(
                    0, [(true, predicted)], str(image.panoptic.parent), folder, categories
                )
        return np.array([[getattr(stat[entry.id], name) for name in PQ_FIELDS] for entry in classes], np.float64)

    def metrics(self) -> dict[str, float]:
        """Figures in %: PQ, SQ, RQ and PQ of things and stuff, AP, AP50, mIoU. nan where nothing could be scored."""
        return self._without_ap(list(self._images)) | self._ap.metrics()

    def per_class(self) -> dict[str, dict[str, float]]:
        """PQ and IoU in % of each class by name; nan for a class that neither appears nor is predicted."""
        total = sum((one.pq for one in self._images.values()), np.zeros((len(self.data.classes), 4)))
        matrix = self._confusion(list(self._images))
        qualities, unions = _qualities(total)["PQ"], _ious(matrix)
        return {
            entry.name: {"PQ": 100 * float(qualities[k]), "IoU": 100 * float(unions[k])}
            for k, entry in enumerate(self.data.classes)
        }

    def _without_ap(self, ids: list[str]) -> dict[str, float]:
        total = sum((self._images[name].pq for name in ids), np.zeros((len(self.data.classes), 4)))
        values = _qualities(total)
        things = np.array(self.data.things, bool)
        figures = {name: _percent(values[name]) for name in ("PQ", "SQ", "RQ")}
        figures |= {"PQ things": _percent(values["PQ"][things]), "PQ stuff": _percent(values["PQ"][~things])}
        return figures | {"mIoU": _percent(_ious(self._confusion(ids)))}

    def _confusion(self, ids: list[str]) -> np.ndarray:
        size = len(self.data.classes)
        return sum((self._images[name].confusion for name in ids), np.zeros((size, size + 1), np.int64))

    def resampled(self, draws: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The figures (draws,) of as many sets of images, drawn with replacement: what intervals are made of."""
        names = list(self._images)
        figures: dict[str, list[float]] = {}
        for _ in range(draws if names else 0):
            drawn = [names[k] for k in rng.integers(len(names), size=len(names))]
            for name, value in self._without_ap(drawn).items():
                figures.setdefault(name, []).append(value)
        return {name: np.array(values) for name, values in figures.items()}


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(C, C + 1) int64 of pixels, true by predicted; the last column is "no class". Pixels without truth do not count.

    truth, predicted: (H, W) int, -1 for none.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth and prediction must be of one size, but are {truth.shape} and {predicted.shape}")
    counted = truth != NONE
    columns = np.where(predicted == NONE, classes, predicted)[counted].astype(np.int64)
    cells = np.bincount(truth[counted].astype(np.int64) * (classes + 1) + columns, minlength=classes * (classes + 1))
    return cells.reshape(classes, classes + 1)


def _ious(matrix: np.ndarray) -> np.ndarray:
    """(C,) intersection over union; nan for a class that neither appears nor is predicted."""
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(1) + matrix[:, :-1].sum(0) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def _qualities(pq: np.ndarray) -> dict[str, np.ndarray]:
    """(C,) of PQ, SQ and RQ by class, as panopticapi averages them; nan for a class without any segment."""
    iou, tp, fp, fn = pq.T
    weight = tp + 0.5 * fp + 0.5 * fn
    nothing = np.full(len(pq), np.nan)
    there = weight > 0
    segmentation = np.where(there, np.divide(iou, tp, out=np.zeros(len(pq)), where=tp > 0), np.nan)
    return {
        "PQ": np.divide(iou, weight, out=nothing.copy(), where=there),
        "SQ": segmentation,
        "RQ": np.divide(tp, weight, out=nothing.copy(), where=there),
    }


def _percent(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return 100 * float(known.mean()) if len(known) else float("nan")


def _panoptic_tool() -> Any:
    try:
        from cityscapesscripts.evaluation import evalPanopticSemanticLabeling as tool
    except ImportError as error:
        raise ImportError(
            "PQ is computed by cityscapesscripts, which is missing; pip install 'gpt4roi_nb[evaluate]'"
        ) from error
    return tool
