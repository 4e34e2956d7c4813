"""LVIS and PACO: what a region is called (SS, S-IoU), and which of two names is its.

PACO asks about objects and their parts; `mug:handle` is "mug handle".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4roi_nb.data.coco import CocoFile
from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.problems import OUT_OF_RANGE, BadRecord, Problems, field
from gpt4roi_nb.evaluate.benchmarks.benchmark import CATEGORY_PROMPT, Benchmark, Published, part
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Item, Prediction, Scores
from gpt4roi_nb.evaluate.metrics.scorers import EMBEDDER, SENTENCES
from gpt4roi_nb.evaluate.metrics.similarity import (
    chose_right,
    clean_answer,
    clean_name,
    distinct,
    draw,
    similarity,
    surface_forms,
    word_iou,
)
from gpt4roi_nb.evaluate.metrics.statistics import mean_metric

NAME_PROMPT = f"{CATEGORY_PROMPT} Using only one word or phrase."
CHOICE_PROMPT = "Is the object <region1> of the image a {} or a {}?"
TRIES = 50  # draws of a false name


@dataclass(frozen=True)
class Category:
    """name: as the file has it. forms: what counts as saying it."""

    name: str
    forms: tuple[str, ...]


def categories(file: Path) -> dict[int, Category]:
    """The categories of a COCO-like file by id. Of those that cannot be used `CocoFile` tells."""
    found = {}
    for key, entry in elements(file, Problems()):
        if key != "categories":
            continue
        try:
            number, name = field(entry, "id", int), field(entry, "name", str)
            synonyms = [text for text in field(entry, "synonyms", list, []) if isinstance(text, str)]
        except BadRecord:
            continue
        found[number] = Category(name, surface_forms(clean_name(name), synonyms))
    return found


def naming_items(
    benchmark: str, file: Path, images: Path, config: EvalConfig, problems: Problems, kind: Callable[[str], str]
) -> Iterator[Item]:
    """Two items a usable annotation: its name, and the choice between it and a false one.

    kind: the slice of a category's name. The false name is of the same slice, of a category that the picture does not
    show, and drawn by seed and annotation.
    """
    known = categories(file)

    def keep(entry: dict[str, Any]) -> tuple[int, int]:
        return field(entry, "category_id", int), field(entry, "id", int)

    coco = CocoFile(file, problems, keep)
    for image_id, image in coco.images.items():
        found = []
        for box, (category, annotation), _ in coco.boxes_of(image_id):
            if category in known and category in coco.categories:
                found.append((box, category, annotation))
            else:
                bad = BadRecord(OUT_OF_RANGE, f"category {category} is not among the {len(known)} of the file")
                problems.add(bad, f"{file.name}: annotations, id {annotation}")
        shown = [known[category] for _, category, _ in found]
        for box, category, annotation in found:
            true = known[category]
            common: dict[str, Any] = {
                "image": str(images / image.file),
                "boxes": (box,),
                "target": clean_name(true.name),
                "region": 1,
                "group": f"{benchmark}/{image_id}",
            }
            facts: dict[str, Any] = {"true": true.forms, "asked": "name"}
            yield Item(
                id=f"{benchmark}/{annotation}/name", question=NAME_PROMPT, kind=kind(true.name), facts=facts, **common
            )
            false = _false(true, shown, list(known.values()), kind, config.seed, annotation)
            if false is None:
                problems.leave_out("choices without a false name to offer")
                continue
            pair = [true, false]
            if draw(config.seed + 1, annotation).random() < 0.5:
                pair.reverse()
            names = [one.forms[0] for one in pair]
            yield Item(
                id=f"{benchmark}/{annotation}/choice",
                question=CHOICE_PROMPT.format(*names),
                kind=kind(true.name),
                options=tuple(names),
                facts={"true": true.forms, "false": false.forms, "asked": "choice"},
                **common,
            )


def _false(
    true: Category,
    shown: Sequence[Category],
    all_: Sequence[Category],
    kind: Callable[[str], str],
    seed: int,
    name: int,
) -> Category | None:
    rng = draw(seed, name)
    for _ in range(TRIES):
        drawn = all_[int(rng.integers(len(all_)))]
        fits = kind(drawn.name) == kind(true.name) and distinct(true.forms, drawn.forms)
        if fits and all(drawn is not one for one in shown):
            return drawn
    return None


def score(items: Sequence[Item], predictions: Sequence[Prediction], config: EvalConfig) -> Scores:
    """SS, S-IoU and the accuracy of the binary choice."""
    correct: list[bool | None] = [None] * len(items)
    scores: list[float | None] = [None] * len(items)
    named = [k for k, item in enumerate(items) if item.facts["asked"] == "name"]
    chosen = [k for k, item in enumerate(items) if item.facts["asked"] == "choice"]
    answers = [clean_answer(predictions[k].answer) for k in named]
    alike = similarity(answers, [items[k].target for k in named], config.mapping_model).tolist() if named else []
    for k, value in zip(named, alike, strict=True):
        scores[k] = value
        correct[k] = clean_answer(predictions[k].answer).lower() == items[k].target.lower()
    for k in chosen:
        facts = items[k].facts
        correct[k] = chose_right(predictions[k].answer, facts["true"], facts["false"])
    words = [word_iou(answer, items[k].target) for answer, k in zip(answers, named, strict=True)]
    units = [items[k].image for k in named]
    metrics = {
        "SS": mean_metric(alike, units),
        "S-IoU": mean_metric(words, units),
        "binary choice": mean_metric([bool(correct[k]) for k in chosen], [items[k].image for k in chosen]),
    }
    return Scores(
        metrics,
        {"correct": correct, "score": scores},
        notes=[
            "guessing gives 50 of the binary choice; of names `correct` means the exact name, which is no figure here"
        ],
    )


def _benchmark(
    name: str,
    title: str,
    file: str,
    splits: tuple[str, ...],
    images: Callable[[str], dict[str, str]],
    published: tuple[Published, ...],
    kind: Callable[[str], str] = lambda name: "object",
) -> Benchmark:
    """file: name of its annotations before the split. images: from a split to COCO's folders: what each is → folder."""

    def files(root: Path, split: str) -> dict[str, Path]:
        folders = {what: part(root, "coco") / folder for what, folder in images(split).items()}
        return {"annotations": part(root, name) / f"{file}_{split}.json"} | folders

    def items(config: EvalConfig, problems: Problems) -> Iterator[Item]:
        annotations = files(config.root, config.split)["annotations"]
        return naming_items(name, annotations, part(config.root, "coco"), config, problems, kind)

    return Benchmark(
        name=name,
        title=title,
        splits=splits,
        scoring=("generate",),
        prompt=f"{NAME_PROMPT}\n{CHOICE_PROMPT.format('…', '…')}",
        fixed_prompt=True,
        mapping=f"SS by {EMBEDDER}; binary choice by substring, what is denied left out",
        max_new_tokens=24,
        files=files,
        more_folders=lambda root, split: [part(root, "coco") / name for name in ("", "train2017", "val2017")],
        items=items,
        score=score,
        scorers=(SENTENCES,),
        published=published,
    )


_OSPREY = "GPT4RoI-7B, in Osprey (not checked against it)", "val, Osprey's 1,000 images"
LVIS = _benchmark(
    "lvis",
    "LVIS v1",
    "lvis_v1",
    ("val", "train"),
    lambda split: {"COCO's pictures": f"{split}2017"},  # though a split's lie in two folders
    (
        Published(*_OSPREY, {"SS": 51.3, "S-IoU": 12.0}),
        Published("GPT4RoI, box", "val, 1,548 questions, ControlMLLM's draw of false names", {"binary choice": 58.59}),
        Published("GPT4RoI, box", "val, Ferret's own draw of false names", {"binary choice": 61.76}),
    ),
)
PACO = _benchmark(
    "paco",
    "PACO-LVIS",
    "paco_lvis_v1",
    ("val", "test", "train"),
    lambda split: {f"COCO's {folder}": folder for folder in ("train2017", "val2017")},  # a split's lie in both
    (Published(*_OSPREY, {"SS": 48.0, "S-IoU": 12.1}),),
    kind=lambda name: "part" if ":" in name else "object",
)
