"""COCO 2017: name the category of each true box (exact match), and mAP of these names at score 1."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpt4roi_nb.data.box_check import four_numbers
from gpt4roi_nb.data.coco import CocoFile, is_crowd
from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.problems import OUT_OF_RANGE, BadRecord, Problems, field, id_field
from gpt4roi_nb.data.protocol_texts import CATEGORY_PROMPT
from gpt4roi_nb.evaluate.benchmarks.benchmark import Benchmark, Published, part
from gpt4roi_nb.evaluate.benchmarks.item import UNKNOWN_CATEGORY, EvalConfig, Item, Prediction, Scores
from gpt4roi_nb.evaluate.benchmarks.masks import annotation_masks
from gpt4roi_nb.evaluate.metrics.coco_ap import coco_ap
from gpt4roi_nb.evaluate.metrics.scorers import PYCOCOTOOLS
from gpt4roi_nb.evaluate.metrics.statistics import Metric, mean_metric

MAP_DRAWS = 100  # each accumulates all categories again
_ARTICLE = re.compile(r"^(?:an?|the)\s+")


def files(root: Path, split: str) -> dict[str, Path]:
    """Return the instances and the folder of images."""
    folder = part(root, "coco")
    return {
        "annotations": folder / "annotations" / f"instances_{split}2017.json",
        "images": folder / f"{split}2017",
    }


def items(config: EvalConfig, problems: Problems) -> Iterator[Item]:
    """Yield one question per box that is not a crowd."""
    found = files(config.root, config.split)
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
                image=str(found["images"] / image.file),
                boxes=(box,),
                question=config.question or CATEGORY_PROMPT,
                target=coco.categories[category],
                region=1,
                kind=coco.categories[category],
                group=f"coco/{image_id}",
                facts={"category": category, "annotation": annotation, "image": image_id, "names": coco.categories},
            )


def masks(config: EvalConfig, items: Sequence[Item]) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield the mask of each item's region."""
    file = files(config.root, config.split)["annotations"]
    return annotation_masks(file, {str(item.facts["annotation"]): [item.id] for item in items})


def category_name(answer: str) -> str:
    """Normalise an answer to compare it with category names: lower case, no leading article, no final full stop."""
    return _ARTICLE.sub("", " ".join(answer.lower().split()).rstrip(".!").strip())


def score(items: Sequence[Item], predictions: Sequence[Prediction], config: EvalConfig) -> Scores:
    """Compute accuracy, and mAP over the boxes that were asked about and the crowds of their images."""
    names: dict[str, int] = {}
    if items:
        names = {category_name(name): number for number, name in items[0].facts["names"].items()}
    said = [names.get(category_name(one.answer)) for one in predictions]
    right = [category == item.facts["category"] for category, item in zip(said, items, strict=True)]
    unknown = sum(category is None and bool(one.answer) for category, one in zip(said, predictions, strict=True))
    metrics = {
        "accuracy": mean_metric(right, [item.image for item in items]),
        "mAP": mean_average_precision(items, said, crowds(files(config.root, config.split)["annotations"])),
    }
    return Scores(
        metrics,
        {"correct": list(right)},
        {UNKNOWN_CATEGORY: unknown} if unknown else {},
        ["mAP is over given boxes, each with one name at score 1, so nothing is ranked"],
    )


class Crowd(NamedTuple):
    """A box around many objects of one category. bbox: (x, y, width, height) in pixels."""

    image: Hashable
    category: int
    bbox: tuple[float, ...]


def crowds(file: Path) -> list[Crowd]:
    """Return the usable crowds of a file. Nothing is asked about them."""
    found = []
    for key, entry in elements(file, Problems()):
        if key != "annotations" or not isinstance(entry, dict):
            continue
        try:
            if is_crowd(entry):
                box = four_numbers(field(entry, "bbox", list))
                found.append(Crowd(id_field(entry, "image_id"), field(entry, "category_id", int), box))
        except BadRecord:
            continue
    return found


def mean_average_precision(items: Sequence[Item], said: Sequence[int | None], crowds: Sequence[Crowd] = ()) -> Metric:
    """Compute pycocotools' AP at IoU 0.50:0.95 for the boxes that were asked about and the categories answered.

    Args:
        items: one per box.
        said: category answered for each; None for none.
        crowds: as pycocotools defines it, a box with a wrong category within a crowd of that category does not count.
    """
    images = list(dict.fromkeys(item.facts["image"] for item in items))
    true: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []

    def entry(image: Hashable, category: int, bbox: Sequence[float], crowd: int = 0) -> dict[str, Any]:
        shape = {"bbox": list(bbox), "area": bbox[2] * bbox[3], "iscrowd": crowd}
        return {"image_id": image, "category_id": category, **shape}

    for item, category in zip(items, said, strict=True):
        x1, y1, x2, y2 = item.boxes[0]
        bbox = (x1, y1, x2 - x1, y2 - y1)
        true.append(entry(item.facts["image"], item.facts["category"], bbox) | {"id": len(true) + 1})
        if category is not None:
            found.append(entry(item.facts["image"], category, bbox) | {"id": len(found) + 1, "score": 1.0})
    if not found:
        return Metric(0.0, tuple(map(str, images)))
    shown = set(images)
    for crowd in crowds:
        if crowd.image in shown:
            true.append(entry(crowd.image, crowd.category, crowd.bbox, 1) | {"id": len(true) + 1})
    categories = [{"id": number, "name": name} for number, name in items[0].facts["names"].items()]
    named = [{"id": image, "name": image} for image in images]
    return coco_ap(named, categories, true, found, "bbox", MAP_DRAWS)["AP"]


COCO = Benchmark(
    name="coco",
    title="COCO 2017",
    splits=("val", "train"),
    scoring=("generate",),
    prompt=CATEGORY_PROMPT,
    mapping="exact name, except for case, blanks, a leading article and a final full stop",
    max_new_tokens=24,
    files=files,
    items=items,
    score=score,
    masks=masks,
    scorers=(PYCOCOTOOLS,),
    published=(
        Published("GPT4RoI", "val, true boxes, exact name match", {"accuracy": 64.01}, model="GPT4RoI", split="val"),
    ),
)
