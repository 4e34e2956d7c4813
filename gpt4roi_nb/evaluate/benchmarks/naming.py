"""LVIS and PACO: name a region (SS, S-IoU), and choose between two names (binary choice).

Each file of questions behind the published figures (`naming_subsets.py`) is a split; the first is the default. The
datasets' own annotations, such as `lvis/lvis_v1_val.json` or `paco/paco_lvis_v1_val.json`, are splits too, and ask both
questions about every annotation (LVIS: 245,000). PACO asks about objects and their parts; `mug:handle` is "mug handle".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4roi_nb.data.coco import CocoFile
from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.problems import OUT_OF_RANGE, BadRecord, Problems, field
from gpt4roi_nb.data.protocol_texts import CHOICE_PROMPT, NAME_PROMPT, clean_name
from gpt4roi_nb.data.record import harmless
from gpt4roi_nb.evaluate.benchmarks.benchmark import Benchmark, Published, part
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Item, Prediction, Scores
from gpt4roi_nb.evaluate.benchmarks.masks import annotation_masks
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
    distinct,
    draw,
    names_true,
    similarity,
    surface_forms,
    word_iou,
)
from gpt4roi_nb.evaluate.metrics.statistics import Metric, mean_metric

TRIES = 50  # draws to find a false name


@dataclass(frozen=True)
class Category:
    """A category of an annotation file.

    Attributes:
        name, synonyms: as in the file.
        forms: texts that count as naming it.
    """

    name: str
    synonyms: tuple[str, ...]
    forms: tuple[str, ...]


def categories(file: Path) -> dict[int, Category]:
    """Read the categories of a COCO-like file by id. `CocoFile` reports those that cannot be used."""
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
    """Yield two items per usable annotation of a dataset's own file: its name, and a choice between it and another.

    The false name is of the same slice (PACO's objects or parts), of a category that the image does not show, and drawn
    by seed and annotation.

    Args:
        benchmark: name of the benchmark.
        file: the annotations.
        images: folder that their image names are relative to.
        config: of the run.
        problems: gets bad records.
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
            pair = [harmless(clean_name(one.name)) for one in (true, false)]
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
    """Compute SS and S-IoU of names, and the accuracy of choices by both rules, as far as these were asked.

    Args:
        subsets: each with its file; only the one that is the run's split is used.
        items, predictions: in the same order.
        config: of the run.
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
        notes.append("for names, `correct` means the exact name, which is not a metric here")
    if chosen:
        units = [items[k].image for k in chosen]
        rows = [(predictions[k].answer, items[k].facts) for k in chosen]
        right = [names_true(answer, facts["ferret"]) for answer, facts in rows]
        strict = [chose_right(answer, facts["true"], facts["false"]) for answer, facts in rows]
        for k, value in zip(chosen, right, strict=True):
            correct[k] = value
        metrics |= {"binary choice": mean_metric(right, units), "binary choice (strict)": mean_metric(strict, units)}
        notes.append(
            "in the binary choice guessing gives 50, and answering with both names 100: the published rule looks only "
            "for the true name; by the strict rule the false name must be absent, too"
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
    """Build a naming benchmark.

    Args:
        subsets: files of questions, one split each.
        file: start of the names of the dataset's own annotations; one of `splits` follows.
        splits: of the dataset's own annotations.
        images: such a split → COCO's folders, as description → folder.
    """

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
        return annotation_items(name, annotations(config), coco, config, problems)

    def annotations(config: EvalConfig) -> Path:
        return part(config.root, name) / f"{file}_{config.split}.json"

    def masks(config: EvalConfig, items: Sequence[Item]) -> Iterator[tuple[str, Sequence[Any]]]:
        for subset, questions in located(config.root):
            if subset.split == config.split:
                return subset.all_masks(questions)
        items_of: dict[str, list[str]] = {}
        for item in items:  # benchmark/annotation/question
            items_of.setdefault(item.id.split("/")[1], []).append(item.id)
        return annotation_masks(annotations(config), items_of)

    def scored(items: Sequence[Item], predictions: Sequence[Prediction], config: EvalConfig) -> Scores:
        return score(located(config.root), items, predictions, config)

    return Benchmark(
        name=name,
        title=title,
        splits=(*(subset.split for subset in subsets), *splits),
        scoring=("generate",),
        prompt=f"names: {NAME_PROMPT}\nchoices: {CHOICE_PROMPT.format('…', '…')}",
        fixed_prompt=True,
        mapping=f"SS by {EMBEDDER}; binary choice by substring, without what the answer denies",
        max_new_tokens=24,
        files=files,
        more_folders=lambda root, split: [part(root, "coco") / name for name in ("", "train2017", "val2017")],
        items=items,
        score=scored,
        masks=masks,
        scorers=(SENTENCES,),
        published=published,
    )


def _by_osprey(subset: Subset, similarity: float, iou: float) -> Published:
    return Published(
        "GPT4RoI-7B, as reported by Osprey (arXiv 2312.10032; not checked against the paper)",
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
    lambda split: {"COCO's images": f"{split}2017"},  # though a split's images lie in two folders
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
    lambda split: {f"COCO's {folder}": folder for folder in ("train2017", "val2017")},  # a split's images lie in both
    (_by_osprey(OSPREY_PACO, 48.0, 12.1),),
)
