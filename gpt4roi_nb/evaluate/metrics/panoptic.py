"""PQ, AP and mIoU of region classification, by the standard tools.

cityscapesscripts' `evalPanopticSemanticLabeling`, which does the same as panopticapi, computes PQ of both datasets.
cityscapesscripts also computes AP of Cityscapes, pycocotools that of ADE20K. mIoU comes from a confusion matrix.

Since the masks are the true ones, only their classes can be wrong. With the Sentence-BERT mapping the scores are nearly
flat, so that AP, which ranks by them, says little.
"""

from __future__ import annotations

import io
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from PIL import Image

from gpt4roi_nb.data.masks import rgb_ids
from gpt4roi_nb.evaluate.metrics.cityscapes_ap import CityscapesAP
from gpt4roi_nb.evaluate.metrics.coco_ap import CocoAP
from gpt4roi_nb.evaluate.metrics.ground_truth import PanopticData, PanopticImage, Truth
from gpt4roi_nb.evaluate.metrics.outputs import NONE, Segment, instances, panoptic, semantic
from gpt4roi_nb.evaluate.metrics.statistics import Counts, Metric
from gpt4roi_nb.evaluate.metrics.tools import tool

PQ_FIELDS = ("iou", "tp", "fp", "fn")
IOU_FIELDS = ("hits", "true", "predicted")  # pixels


class SegmentationEvaluator:
    """Collects the images of a dataset with the class probabilities of their regions, and computes the metrics.

    Args:
        data: the dataset and its classes.

    Raises:
        ImportError: cityscapesscripts or pycocotools is missing.
    """

    def __init__(self, data: PanopticData) -> None:
        self.data = data
        self._tool = tool("cityscapesscripts.evaluation.evalPanopticSemanticLabeling", "PQ is computed")
        self._categories = {entry.id: {"isthing": int(entry.is_thing)} for entry in data.classes}
        self._ap: CityscapesAP | CocoAP
        self._ap = CityscapesAP() if data.dataset == "cityscapes" else CocoAP(data.classes)
        self._ids: list[str] = []
        self._pq: list[np.ndarray] = []  # (C, 4) per image, as `PQ_FIELDS`
        self._pixels: list[np.ndarray] = []  # (C, 3) per image, as `IOU_FIELDS`

    def add(self, image: PanopticImage, masks: np.ndarray, probabilities: np.ndarray, truth: Truth) -> None:
        """Score an image.

        Args:
            image: of the dataset.
            masks: (N, H, W) bool, of its regions.
            probabilities: (N, C + 1), the last column void, from `region_probabilities` or `one_hot`.
            truth: its ground truth.

        Raises:
            ValueError: shapes do not fit, or Cityscapes' instance ids are missing.
        """
        classes, things = self.data.classes, self.data.things
        if probabilities.shape[1] != len(classes) + 1:
            raise ValueError(
                f"probabilities must have a column for each of the {len(classes)} classes and one for void, but their "
                f"shape is {probabilities.shape}"
            )
        ids, segments = panoptic(masks, probabilities, things)
        matrix = confusion(truth.classes, semantic(masks, probabilities), len(classes))
        quality = self._panoptic_quality(image, truth.segments, ids, segments)
        found = instances(probabilities, things)
        found = found._replace(categories=np.array([entry.id for entry in classes])[found.categories])
        if isinstance(self._ap, CityscapesAP):
            self._ap.add(image.id, _instances(image, truth), masks, found)
        else:
            self._ap.add(image.id, truth, image.annotation, masks, found)
        self._ids.append(image.id)
        self._pq.append(quality)
        self._pixels.append(np.stack([np.diag(matrix), matrix.sum(1), matrix[:, :-1].sum(0)], axis=1))

    def _panoptic_quality(
        self, image: PanopticImage, true_ids: np.ndarray, ids: np.ndarray, segments: list[Segment]
    ) -> np.ndarray:
        classes = self.data.classes
        with tempfile.TemporaryDirectory() as folder:
            Image.fromarray(rgb_ids(ids)).save(Path(folder) / "predicted.png", compress_level=1)
            predicted = {
                "image_id": image.id,
                "file_name": "predicted.png",
                "segments_info": [{"id": one.id, "category_id": classes[one.category].id} for one in segments],
            }
            # The tool reads the area of each true segment, which not every file has.
            listed = [
                {**one} if "area" in one else {**one, "area": np.count_nonzero(true_ids == one["id"])}
                for one in image.annotation["segments_info"]
            ]
            true = {**image.annotation, "file_name": image.panoptic.name, "segments_info": listed}
            with redirect_stdout(io.StringIO()):
                stat = self._tool.pq_compute_single_core(
                    0, [(true, predicted)], str(image.panoptic.parent), folder, self._categories
                )
        return np.array([[getattr(stat[entry.id], name) for name in PQ_FIELDS] for entry in classes], np.float64)

    def metrics(self) -> dict[str, Metric]:
        """Return PQ, AP, mIoU, then SQ, RQ, PQ of things and of stuff, AP50; nan if nothing could be scored.

        Units are the images.
        """
        size = len(self.data.classes)
        units = tuple(self._ids)
        everything = np.ones((1, len(units)), np.int64)
        quality = np.array(self._pq).reshape(len(units), size * len(PQ_FIELDS))
        pixels = np.array(self._pixels, np.float64).reshape(len(units), size * len(IOU_FIELDS))

        def of_quality(name: str, things: bool | None = None) -> Metric:
            def of_samples(counts: Counts) -> np.ndarray:
                rows = (counts @ quality).reshape(len(counts), size, len(PQ_FIELDS))
                return np.array([100 * self._average(row, things).get(name, np.nan) for row in rows])

            return Metric(float(of_samples(everything)[0]), units, of_samples)

        def of_pixels(counts: Counts) -> np.ndarray:
            return np.array([_percent(_ious(row)) for row in (counts @ pixels).reshape(len(counts), size, -1)])

        precision = self._ap.metrics()
        return {
            "PQ": of_quality("pq"),
            "AP": precision["AP"],
            "mIoU": Metric(float(of_pixels(everything)[0]), units, of_pixels),
            "SQ": of_quality("sq"),
            "RQ": of_quality("rq"),
            "PQ things": of_quality("pq", True),
            "PQ stuff": of_quality("pq", False),
            "AP50": precision["AP50"],
        }

    def _average(self, rows: np.ndarray, things: bool | None) -> dict[str, float]:
        """Return the tool's averages of (C, 4) `PQ_FIELDS`; empty without segments."""
        stat = self._tool.PQStat()
        for entry, row in zip(self.data.classes, rows.tolist(), strict=True):
            for name, value in zip(PQ_FIELDS, row, strict=True):
                setattr(stat[entry.id], name, value)
        try:
            average: dict[str, float] = stat.pq_average(self._categories, things)[0]
        except ZeroDivisionError:  # its average over no class
            return {}
        return average


def _instances(image: PanopticImage, truth: Truth) -> np.ndarray:
    if truth.instances is None:
        raise ValueError(f"{image.id} has no file of instance ids, which Cityscapes' AP needs")
    return truth.instances


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count pixels by true and predicted class. Pixels without a true class do not count.

    Args:
        truth, predicted: (H, W) int, -1 for none.
        classes: number of classes, C.

    Returns:
        (C, C + 1) int64, true × predicted; the last column is "no class".

    Raises:
        ValueError: the sizes differ.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth and prediction must have one size, but are {truth.shape} and {predicted.shape}")
    counted = truth != NONE
    columns = np.where(predicted == NONE, classes, predicted)[counted].astype(np.int64)
    cells = np.bincount(truth[counted].astype(np.int64) * (classes + 1) + columns, minlength=classes * (classes + 1))
    return cells.reshape(classes, classes + 1)


def _ious(pixels: np.ndarray) -> np.ndarray:
    """Compute (C,) IoU from (C, 3) `IOU_FIELDS`; nan for a class that neither occurs nor is predicted."""
    hits, true, predicted = pixels.T.astype(np.float64)
    union = true + predicted - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def _percent(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return 100 * float(known.mean()) if len(known) else float("nan")
