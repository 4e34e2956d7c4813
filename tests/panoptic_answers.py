"""Answers for the hand-made images, with chosen errors; their scores, and their files for the official tools."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gpt4roi_nb.data.masks import rgb_ids
from gpt4roi_nb.evaluate.benchmarks.panoptic_files import regions_of, truth_of
from gpt4roi_nb.evaluate.metrics.ground_truth import PanopticData
from gpt4roi_nb.evaluate.metrics.mapping import one_hot
from gpt4roi_nb.evaluate.metrics.outputs import instances, panoptic, semantic
from gpt4roi_nb.evaluate.metrics.panoptic import SegmentationEvaluator

Wrong = dict[tuple[str, int], int | None]  # (image id, segment id) to the class index that it is taken for
CAR_A = {("city_000000_000000", 26000): 2}
BED_A = {("ADE_val_00000001", 7000): 3}


def chosen(data: PanopticData, wrong: Wrong) -> Any:
    for image in data.images:
        regions = regions_of(image, data.classes)
        classes = [
            wrong.get((image.id, number), true)
            for number, true in zip(regions.ids.tolist(), regions.classes.tolist(), strict=True)
        ]
        columns = np.arange(len(data.classes))
        scores = [columns == (-1 if index is None else index) for index in classes]
        yield image, regions.masks, one_hot(np.array(scores, float))


def evaluated(data: PanopticData, wrong: Wrong | None = None) -> SegmentationEvaluator:
    evaluator = SegmentationEvaluator(data)
    for image, masks, probabilities in chosen(data, wrong or {}):
        evaluator.add(image, masks, probabilities, truth_of(image, data.classes))
    return evaluator


def metrics(evaluator: SegmentationEvaluator) -> dict[str, float]:
    return {name: metric.value for name, metric in evaluator.metrics().items()}


def written(data: PanopticData, wrong: Wrong, folder: Path) -> None:
    """Predictions as the official tools read them: panoptic PNGs and JSON, label PNGs, lists of masks."""
    (folder / "panoptic").mkdir(parents=True)
    annotations = []
    for image, masks, probabilities in chosen(data, wrong):
        ids, segments = panoptic(masks, probabilities, data.things)
        Image.fromarray(rgb_ids(ids)).save(folder / "panoptic" / f"{image.id}.png")
        infos = [{"id": one.id, "category_id": data.classes[one.category].id} for one in segments]
        annotations.append({"image_id": image.id, "file_name": f"{image.id}.png", "segments_info": infos})
        numbers = np.array([*(entry.id for entry in data.classes), 0], np.uint8)  # -1 is the last: unlabelled
        Image.fromarray(numbers[semantic(masks, probabilities)]).save(folder / f"{image.id}_labels.png")
        lines = []
        found = instances(probabilities, data.things)
        for k, (region, category, score) in enumerate(zip(*map(np.ndarray.tolist, found), strict=True)):
            Image.fromarray(masks[region].astype(np.uint8) * 255).save(folder / f"{image.id}_{k}.png")
            lines.append(f"{image.id}_{k}.png {data.classes[category].id} {score}\n")
        (folder / f"{image.id}.txt").write_text("".join(lines))
    (folder / "panoptic.json").write_text(json.dumps({"annotations": annotations}))
