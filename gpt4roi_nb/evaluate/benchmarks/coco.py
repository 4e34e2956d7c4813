"""COCO 2017: the category of each true box, right on exactly its name; mAP of these names at score 1."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpt4roi_nb.data.coco import CocoFile
from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.problems import OUT_OF_RANGE, BadRecord, Problems, field
from gpt4roi_nb.evaluate.benchmarks.item import UNKNOWN_CATEGORY, Item, Prediction, Scores, Setting
from gpt4roi_nb.evaluate.benchmarks.published import Published
from gpt4roi_nb.evaluate.benchmarks.registry import part
from gpt4roi_nb.evaluate.metrics.statistics import Counts, Figure, mean_figure
from gpt4roi_nb.evaluate.scorers import PYCOCOTOOLS

DATASET = "COCO 2017"
SPLITS = ("val", "train")
SCORERS = ("generate",)
PROMPT = "What is the category of <region1>?"
FIXED_PROMPT = False
MAPPING = "exact name, but for case, blanks, an article in front and a full stop behind"
MAX_NEW_TOKENS = 24
JUDGES = (PYCOCOTOOLS,)
PUBLISHED = (Published("GPT4RoI", "val, true boxes, exact name match", {"accuracy": 64.01}),)
MAP_DRAWS = 100  # each accumulates all categories anew
_ARTICLE = re.compile(r"^(?:an?|the)\s+")


def files(root: Path, split: str) -> dict[str, Path]:
    """The instances, and the pictures."""
    folder = part(root, "coco")
    return {
        "annotations": folder / "annotations" / f"instances_{split}2017.json",
        "pictures": folder / f"{split}2017",
    }


def items(setting: Setting, problems: Problems) -> Iterator[Item]:
    """A question a box that is no crowd."""
    found = files(setting.root, setting.split)
    file = found["annotations"]

    def keep(entry: dict[str, Any]) -> tuple[int, int]:
        return field(entry, "category_id", int), field(entry, "id", int)

    coco = CocoFile(file, problems, keep)
    for image_id, image in coco.images.items():
        for box, (category, annotation), _ in coco.boxes_of(image_id):
            if category not in coco.categories:
                bad = BadRecord(
                    OUT_OF_RANGE, f"category {category} is not among the {len(coco.categories)} of the file"
                )
                problems.add(bad, f"{file.name}: annotations, id {annotation}")
                continue
            yield Item(
                id=f"coco/{annotation}",
                image=str(found["pictures"] / image.file),
                boxes=(box,),
                question=setting.question or PROMPT,
                target=coco.categories[category],
                region=1,
                kind=coco.categories[category],
                group=f"coco/{image_id}",
                facts={"category": category, "annotation": annotation, "image": image_id, "names": coco.categories},
            )


def category_name(answer: str) -> str:
    """An answer as a category's name may be written: small letters, no article, no full stop."""
    return _ARTICLE.sub("", " ".join(answer.lower().split()).rstrip(".!").strip())


def score(items: Sequence[Item], predictions: Sequence[Prediction], setting: Setting) -> Scores:
    """Accuracy, and mAP over the boxes that were asked about and the crowds of their pictures."""
    names: dict[str, int] = {}
    if items:
        names = {category_name(name): number for number, name in items[0].facts["names"].items()}
    said = [names.get(category_name(one.answer)) for one in predictions]
    right = [category == item.facts["category"] for category, item in zip(said, items, strict=True)]
    unknown = sum(category is None and bool(one.answer) for category, one in zip(said, predictions, strict=True))
    figures = {
        "accuracy": mean_figure(right, [item.image for item in items]),
        "mAP": mean_average_precision(items, said, crowds(files(setting.root, setting.split)["annotations"])),
    }
    return Scores(
        figures,
        {"correct": list(right)},
        {UNKNOWN_CATEGORY: unknown} if unknown else {},
        ["mAP is over given boxes, each with one name at score 1: it ranks nothing"],
    )


class Crowd(NamedTuple):
    """A box (x, y, width, height) in pixels around many of one category."""

    image: Hashable
    category: int
    bbox: tuple[float, ...]


def crowds(file: Path) -> list[Crowd]:
    """The crowds of a file, which nothing is asked about; those that cannot be used are left out."""
    found = []
    for key, entry in elements(file, Problems()):
        if key != "annotations" or not isinstance(entry, dict) or not entry.get("iscrowd"):
            continue
        try:
            image, category, bbox = entry.get("image_id"), field(entry, "category_id", int), field(entry, "bbox", list)
        except BadRecord:
            continue
        if len(bbox) == 4 and all(type(value) in (int, float) for value in bbox):
            found.append(Crowd(image, category, tuple(bbox)))
    return found


def mean_average_precision(items: Sequence[Item], said: Sequence[int | None], crowds: Sequence[Crowd] = ()) -> Figure:
    """pycocotools' AP at IoU 0.50:0.95, of the boxes that were asked about and the categories said of them.

    crowds: as the tool has it, a box within a crowd of the category that it is wrongly given does not count.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = list(dict.fromkeys(item.facts["image"] for item in items))
    truth, found = [], []
    for number, (item, category) in enumerate(zip(items, said, strict=True), 1):
        x1, y1, x2, y2 = item.boxes[0]
        bbox = [x1, y1, x2 - x1, y2 - y1]
        one = {"id": number, "image_id": item.facts["image"], "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0}
        truth.append(one | {"category_id": item.facts["category"]})
        if category is not None:
            found.append({"image_id": one["image_id"], "bbox": bbox, "category_id": category, "score": 1.0})
    if not found:
        return Figure(0.0, tuple(map(str, images)))
    shown = set(images)
    for number, crowd in enumerate((one for one in crowds if one.image in shown), len(items) + 1):
        one = {"id": number, "image_id": crowd.image, "bbox": list(crowd.bbox), "iscrowd": 1}
        truth.append(one | {"area": crowd.bbox[2] * crowd.bbox[3], "category_id": crowd.category})
    categories = [{"id": number, "name": name} for number, name in items[0].facts["names"].items()]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints how long it took
        coco = COCO()
        coco.dataset = {"images": [{"id": image} for image in images], "annotations": truth, "categories": categories}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    count = len(evaluation.params.imgIds)
    order = {image: place for place, image in enumerate(evaluation.params.imgIds)}
    units = tuple(str(image) for image in sorted(images, key=order.__getitem__))
    per_image = list(evaluation.evalImgs)

    def of(counts: Counts) -> float:
        # Each cell of evalImgs is of one category, area and image: images that were drawn twice stand there twice.
        drawn = np.repeat(np.arange(count), counts)
        cells = [
            per_image[start + place] if place >= 0 else None
            for start in range(0, len(per_image), count)
            for place in drawn
        ]
        again = COCOeval.__new__(COCOeval)
        again.params, again._paramsEval = evaluation.params, evaluation._paramsEval
        again.evalImgs = cells
        with contextlib.redirect_stdout(io.StringIO()):
            again.accumulate()
        precision = again.eval["precision"][:, :, :, 0, -1]
        return float(100 * precision[precision > -1].mean()) if (precision > -1).any() else float("nan")

    return Figure(float(100 * evaluation.stats[0]), units, of, MAP_DRAWS)
