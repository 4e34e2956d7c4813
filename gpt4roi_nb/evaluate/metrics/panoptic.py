"""PQ, AP and mIoU of region classification, by the field's own tools.

PQ is cityscapesscripts' `evalPanopticSemanticLabeling`, which is panopticapi's computation, for both data sets. AP of
Cityscapes is cityscapesscripts' too, AP of ADE20K is pycocotools'. mIoU comes from a confusion matrix.

Since the masks are the true ones, only what they are called is wrong or right. With the Sentence-BERT mapping the
scores are nearly flat, so that AP, which ranks by them, says little.
"""

from __future__ import annotations

import io
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gpt4roi_nb.evaluate.benchmarks.panoptic_files import (
    PanopticData,
    PanopticImage,
    Truth,
    truth_of,
)
from gpt4roi_nb.evaluate.metrics.instance_scores import CityscapesAP, CocoAP
from gpt4roi_nb.evaluate.metrics.outputs import NONE, Segment, instances, panoptic, semantic
from gpt4roi_nb.evaluate.metrics.statistics import Counts, Figure

PQ_FIELDS = ("iou", "tp", "fp", "fn")
IOU_FIELDS = ("hits", "true", "predicted")  # pixels


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
        self._ids: list[str] = []
        self._pq: list[np.ndarray] = []  # (C, 4) an image, as `PQ_FIELDS`
        self._pixels: list[np.ndarray] = []  # (C, 3) an image, as `IOU_FIELDS`

    def add(
        self, image: PanopticImage, masks: np.ndarray, probabilities: np.ndarray, truth: Truth | None = None
    ) -> None:
        """Scores an image.

        Args:
            masks: (N, H, W) bool, of `regions_of`.
            probabilities: (N, C + 1), the last column void, of `region_probabilities` or `one_hot`.
            truth: of `truth_of`, where several judges share it; without, it is read.

        Raises:
            BadRecord: the truth cannot be read.
        """
        classes, things = self.data.classes, self.data.things
        if probabilities.shape[1] != len(classes) + 1:
            raise ValueError(
                f"probabilities must have a column for each of the {len(classes)} classes and one for void, but their "
                f"shape is {probabilities.shape}"
            )
        truth = truth if truth is not None else truth_of(image, classes)
        ids, segments = panoptic(masks, probabilities, things)
        matrix = confusion(truth.classes, semantic(masks, probabilities), len(classes))
        quality = self._panoptic_quality(image, truth.segments, ids, segments)
        found = instances(probabilities, things)
        found = found._replace(categories=np.array([entry.id for entry in classes])[found.categories])
        if isinstance(self._ap, CityscapesAP):
            self._ap.add(image.id, _instances(image, truth), masks, found)
        else:
            self._ap.add(truth.segments, image.annotation, masks, found)
        self._ids.append(image.id)
        self._pq.append(quality)
        self._pixels.append(np.stack([np.diag(matrix), matrix.sum(1), matrix[:, :-1].sum(0)], axis=1))

    def _panoptic_quality(
        self, image: PanopticImage, true_ids: np.ndarray, ids: np.ndarray, segments: list[Segment]
    ) -> np.ndarray:
        classes = self.data.classes
        with tempfile.TemporaryDirectory() as folder:
            colours = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
            Image.fromarray(colours).save(Path(folder) / "predicted.png", compress_level=1)
            predicted = {
                "image_id": image.id,
                "file_name": "predicted.png",
                "segments_info": [{"id": one.id, "category_id": classes[one.category].id} for one in segments],
            }
            # The tool reads the area of each true segment, which not every file tells.
            listed = [
                {**one} if "area" in one else {**one, "area": np.count_nonzero(true_ids == one["id"])}
                for one in image.annotation["segments_info"]
            ]
            true = {**image.annotation, "file_name": image.panoptic.name, "segments_info": listed}
            categories = {entry.id: {"isthing": int(entry.is_thing)} for entry in classes}
            with redirect_stdout(io.StringIO()):
                stat = self._tool.pq_compute_single_core(
                    0, [(true, predicted)], str(image.panoptic.parent), folder, categories
                )
        return np.array([[getattr(stat[entry.id], name) for name in PQ_FIELDS] for entry in classes], np.float64)

    def figures(self) -> dict[str, Figure]:
        """PQ, AP, mIoU, then SQ, RQ, PQ of things and of stuff, AP50; nan where nothing could be scored.

        Their units are the images.
        """
        size = len(self.data.classes)
        units = tuple(self._ids)
        quality = np.array(self._pq).reshape(len(units), size * len(PQ_FIELDS))
        pixels = np.array(self._pixels, np.float64).reshape(len(units), size * len(IOU_FIELDS))
        things = np.array(self.data.things, bool)

        def of_quality(name: str, classes: np.ndarray) -> Figure:
            def of(counts: Counts) -> float:
                return _percent(_qualities((counts @ quality).reshape(size, -1))[name][classes])

            return Figure(of(np.ones(len(units), np.int64)), units, of)

        def of_pixels(counts: Counts) -> float:
            return _percent(_ious((counts @ pixels).reshape(size, -1)))

        precision = self._ap.figures(units)
        everything = np.ones(size, bool)
        return {
            "PQ": of_quality("PQ", everything),
            "AP": precision["AP"],
            "mIoU": Figure(of_pixels(np.ones(len(units), np.int64)), units, of_pixels),
            "SQ": of_quality("SQ", everything),
            "RQ": of_quality("RQ", everything),
            "PQ things": of_quality("PQ", things),
            "PQ stuff": of_quality("PQ", ~things),
            "AP50": precision["AP50"],
        }

    def per_class(self) -> dict[str, dict[str, float]]:
        """PQ and IoU in % of each class by name; nan for a class that neither appears nor is predicted."""
        size = len(self.data.classes)
        quality = _qualities(np.sum([np.zeros((size, 4)), *self._pq], axis=0))["PQ"]
        unions = _ious(np.sum([np.zeros((size, 3)), *self._pixels], axis=0))
        return {
            entry.name: {"PQ": 100 * float(quality[k]), "IoU": 100 * float(unions[k])}
            for k, entry in enumerate(self.data.classes)
        }


def _instances(image: PanopticImage, truth: Truth) -> np.ndarray:
    if truth.instances is None:
        raise ValueError(f"{image.id} has no file of instance ids, which Cityscapes' AP is computed of")
    return truth.instances


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


def _ious(pixels: np.ndarray) -> np.ndarray:
    """(C,) intersection over union of (C, 3) `IOU_FIELDS`; nan for a class that neither appears nor is predicted."""
    hits, true, predicted = pixels.T.astype(np.float64)
    union = true + predicted - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def _qualities(pq: np.ndarray) -> dict[str, np.ndarray]:
    """(C,) of PQ, SQ and RQ by class, as panopticapi averages them; nan for a class without any segment."""
    iou, tp, fp, fn = pq.T
    weight = tp + 0.5 * fp + 0.5 * fn
    there = weight > 0
    nothing = np.full(len(pq), np.nan)
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
