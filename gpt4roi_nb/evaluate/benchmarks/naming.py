"""LVIS and PACO: what a region is called (SS, S-IoU), and which of two names is its (binary choice).

The splits are the files of questions behind the published figures (`naming_subsets.py`), one a split, of which the
first is the default; and the data sets' own annotations, `lvis/lvis_v1_val.json` or `paco/paco_lvis_v1_val.json`, which
ask both about every annotation and are taken only when asked for: LVIS's has 245,000. PACO asks about objects and their
parts; `mug:handle` is "mug handle".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4roi_nb.data.coco import CocoFile
from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.problems import OUT_OF_RANGE, BadRecord, Problems, field
from gpt4roi_nb.data.protocol_texts import CHOICE_PROMPT, NAME_PROMPT
from gpt4roi_nb.evaluate.benchmarks.benchmark import Benchmark, Published, part
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Item, Prediction, Scores
from gpt4roi_nb.evaluate.benchmarks.naming_items import (
    CHOICE,
    NAME,
    Asked,
    choice_item,
    kind_of,
    name_item,
)
from gpt4roi_nb.evaluate.benchmarks.naming_subsets import (
    CONTROLMLLM,
    FERRET,
    OSPREY_LVIS,
    OSPREY_PACO,
    OWN_IMAGES,
    Subset,
)
from gpt4roi_nb.evaluate.metrics.scorers import EMBEDDER, SENTENCES
from gpt4roi_nb.evaluate.metrics.similarity import (
    chose_right,
    clean_answer,
    clean_name,
    distinct,
    draw,
    names_true,
    similarity,
    surface_forms,
    word_iou,
)
from gpt4roi_nb.evaluate.metrics.statistics import Metric, mean_metric

TRIES = 50  # draws of a false name


@dataclass(frozen=True)
class Category:
    """name, synonyms: as the file has them. forms: what counts as saying it."""

    name: str
    synonyms: tuple[str, ...]
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
        found[number] = Category(name, tuple(synonyms), surface_forms(clean_name(name), synonyms))
    return found


def annotation_items(
    benchmark: str, file: Path, images: Path, config: EvalConfig, problems: Problems
) -> Iterator[Item]:
    """Two items a usable annotation of a data set's own file: its name, and the choice between it and a false one.

    The false name is of the same slice (PACO's objects or parts), of a category that the image does not show, and drawn
    by seed and annotation.
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
            name, image_path, group = f"{benchmark}/{annotation}", str(images / image.file), f"{benchmark}/{image_id}"
            yield name_item(Asked(f"{name}/{NAME}", image_path, box, group), true.name)
            false = _false(true, shown, list(known.values()), config.seed, annotation)
            if false is None:
                problems.leave_out("choices without a false name to offer")
                continue
            pair = [clean_name(true.name), clean_name(false.name)]
            if draw(config.seed + 1, annotation).random() < 0.5:
                pair.reverse()
            asked = Asked(f"{name}/{CHOICE}", image_path, box, group)
            yield choice_item(asked, CHOICE_PROMPT.format(*pair), pair, true.name, true.synonyms, false.forms)


def _false(
    true: Category,
    shown: Sequence[Category],
    all_: Sequence[Category],
    seed: int,
    name: int,
) -> Category | None:
    rng = draw(seed, name)
    for _ in range(TRIES):
        drawn = all_[int(rng.integers(len(all_)))]
        fits = kind_of(drawn.name) == kind_of(true.name) and distinct(true.forms, drawn.forms)
        if fits and all(drawn is not one for one in shown):
            return drawn
    return None


def score(
    subsets: Sequence[tuple[Subset, Path]], items: Sequence[Item], predictions: Sequence[Prediction], config: EvalConfig
) -> Scores:
    """SS and S-IoU of names, and the accuracy of choices by both rules, of what was asked of them.

    subsets: with the file of each, for the split that is one of them.
    """
    correct: list[bool | None] = [None] * len(items)
    scores: list[float | None] = [None] * len(items)
    metrics: dict[str, Metric] = {}
    notes = []
    named = [k for k, item in enumerate(items) if item.facts["asked"] == NAME]
    chosen = [k for k, item in enumerate(items) if item.facts["asked"] == CHOICE]
    if named:
        answers = [clean_answer(predictions[k].answer) for k in named]
        alike = similarity(answers, [items[k].target for k in named], config.mapping_model).tolist()
        for k, answer, value in zip(named, answers, alike, strict=True):
            scores[k] = value
            correct[k] = answer.lower() == items[k].target.lower()
        words = [word_iou(answer, items[k].target) for answer, k in zip(answers, named, strict=True)]
        units = [items[k].image for k in named]
        metrics |= {"SS": mean_metric(alike, units), "S-IoU": mean_metric(words, units)}
        notes.append("of names `correct` means the exact name, which is no figure here")
    if chosen:
        units = [items[k].image for k in chosen]
        rows = [(predictions[k].answer, items[k].facts) for k in chosen]
        right = [names_true(answer, facts["ferret"]) for answer, facts in rows]
        strict = [chose_right(answer, facts["true"], facts["false"]) for answer, facts in rows]
        for k, value in zip(chosen, right, strict=True):
            correct[k] = value
        metrics |= {"binary choice": mean_metric(right, units), "binary choice (strict)": mean_metric(strict, units)}
        notes.append(
            "guessing gives 50 of the binary choice, and answers with both names 100: the published rule looks for the "
            "true name alone; by the strict one the false name must be absent, too"
        )
    counts = {f"questions in {one.file}": one.size(file) for one, file in subsets if one.split == config.split}
    return Scores(metrics, {"correct": correct, "score": scores}, counts, notes)


def _benchmark(
    name: str,
    title: str,
    subsets: Sequence[Subset],
    file: str,
    splits: tuple[str, ...],
    images: Callable[[str], dict[str, str]],
    published: tuple[Published, ...],
) -> Benchmark:
    """subsets: a split each. file: name of the data set's own annotations before the split, one of `splits`. images:
    from such a split to COCO's folders: what each is → folder."""

    def files(root: Path, split: str) -> dict[str, Path]:
        coco = part(root, "coco")
        for subset, questions in located(root):
            if subset.split == split:
                own = questions.parent / OWN_IMAGES
                needed = {f"COCO's {folder}": coco / folder for folder in subset.folders}
                if not needed:
                    needed = {"images": own if own.is_dir() else coco / "val2017"}
                what = f"questions ({subset.what}; the split {splits[0]!r} asks about all annotations instead)"
                return {what: questions} | needed
        folders = {what: coco / folder for what, folder in images(split).items()}
        return {"annotations": part(root, name) / f"{file}_{split}.json"} | folders

    def located(root: Path) -> list[tuple[Subset, Path]]:
        return [(subset, part(root, name) / subset.file) for subset in subsets]

    def items(config: EvalConfig, problems: Problems) -> Iterator[Item]:
        coco = part(config.root, "coco")
        for subset, questions in located(config.root):
            if subset.split == config.split:
                return subset.read(questions, coco, problems)
        annotations = part(config.root, name) / f"{file}_{config.split}.json"
        return annotation_items(name, annotations, coco, config, problems)

    def scored(items: Sequence[Item], predictions: Sequence[Prediction], config: EvalConfig) -> Scores:
        return score(located(config.root), items, predictions, config)

    return Benchmark(
        name=name,
        title=title,
        splits=(*(subset.split for subset in subsets), *splits),
        scoring=("generate",),
        prompt=f"names: {NAME_PROMPT}\nchoices: {CHOICE_PROMPT.format('…', '…')}",
        fixed_prompt=True,
        mapping=f"SS by {EMBEDDER}; binary choice by substring, what is denied left out",
        max_new_tokens=24,
        files=files,
        more_folders=lambda root, split: [part(root, "coco") / name for name in ("", "train2017", "val2017")],
        items=items,
        score=scored,
        scorers=(SENTENCES,),
        published=published,
    )


def _by_osprey(subset: Subset, similarity: float, iou: float) -> Published:
    return Published(
        "GPT4RoI-7B, as reported by Osprey (arXiv 2312.10032; not checked against it)",
        f"{subset.file}; Osprey's script samples at temperature 0.2",
        {"SS": similarity, "S-IoU": iou},
        model="GPT4RoI-7B",
        split=subset.split,
    )


def _choice(subset: Subset, draw: str, accuracy: float) -> Published:
    protocol = f"{subset.file}, 1,548 questions: {draw}"
    return Published("GPT4RoI, box", protocol, {"binary choice": accuracy}, model="GPT4RoI", split=subset.split)


LVIS = _benchmark(
    "lvis",
    "LVIS v1",
    (OSPREY_LVIS, FERRET, CONTROLMLLM),
    "lvis_v1",
    ("val", "train"),
    lambda split: {"COCO's pictures": f"{split}2017"},  # though a split's lie in two folders
    (
        _by_osprey(OSPREY_LVIS, 51.3, 12.0),
        _choice(CONTROLMLLM, "ControlMLLM's draw", 58.59),
        _choice(FERRET, "Ferret's own draw", 61.76),
    ),
)
PACO = _benchmark(
    "paco",
    "PACO-LVIS",
    (OSPREY_PACO,),
    "paco_lvis_v1",
    ("val", "test", "train"),
    lambda split: {f"COCO's {folder}": folder for folder in ("train2017", "val2017")},  # a split's lie in both
    (_by_osprey(OSPREY_PACO, 48.0, 12.1),),
)
