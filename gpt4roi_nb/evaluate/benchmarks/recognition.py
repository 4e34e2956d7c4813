"""Cityscapes and ADE20K-150: open-vocabulary recognition of given regions. See `panoptic_files.py` for the files.

The regions are the segments of the true panoptic segmentation: a model gets the box of each and says what is there. The
true mask is then scored as the class that the answer is mapped to. Both mappings are reported, and every region on
which they disagree is listed.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from gpt4roi_nb.data.problems import WRONG_TYPE, BadRecord, Problems
from gpt4roi_nb.data.protocol_texts import SEGMENT_PROMPT
from gpt4roi_nb.evaluate.benchmarks.benchmark import Benchmark, Published
from gpt4roi_nb.evaluate.benchmarks.class_names import WORDS_FILES, read_words
from gpt4roi_nb.evaluate.benchmarks.item import EMPTY_ANSWER, UNKNOWN_CATEGORY, EvalConfig, Item, Prediction, Scores
from gpt4roi_nb.evaluate.benchmarks.panoptic_files import (
    boxes_of,
    instances_file,
    needed_files,
    read_instances,
    read_panoptic,
    regions_of,
    truth_of,
    words_file,
)
from gpt4roi_nb.evaluate.metrics.coco_ap import encoded_mask
from gpt4roi_nb.evaluate.metrics.ground_truth import PanopticData
from gpt4roi_nb.evaluate.metrics.mapping import (
    TEMPLATE,
    LexicalMapping,
    SentenceBertMapping,
    disagreements,
    one_hot,
    region_probabilities,
)
from gpt4roi_nb.evaluate.metrics.panoptic import SegmentationEvaluator
from gpt4roi_nb.evaluate.metrics.scorers import CITYSCAPES_SCRIPTS, EMBEDDER, PYCOCOTOOLS, SENTENCES
from gpt4roi_nb.evaluate.metrics.statistics import Metric, mean_metric

LEXICAL = "lexical"
DISAGREEMENTS = "disagreements.jsonl"
OWN_WORDS = "classes with this package's own synonyms"
UNREADABLE = "images whose ground truth cannot be read"
WEAK = (
    "AP says little with the Sentence-BERT mapping: its scores are a softmax of cosines without a temperature, and "
    "nearly flat. The lexical mapping has only the scores 1 and 0."
)


def recognition_items(dataset: str, config: EvalConfig, problems: Problems) -> Iterator[Item]:
    """Yield one item per region; `kind` is its class. `limit` draws whole images."""
    data = read_panoptic(config.root, dataset, config.split, problems)
    names = {entry.id: entry.name for entry in data.classes}
    for image in data.images:
        try:
            found = boxes_of(image, problems)
        except BadRecord as bad:
            problems.add(bad, image.panoptic.name)
            continue
        for segment, category, box in found:
            if category not in names:
                detail = f"segment {segment} is of category {category}, which the file does not list"
                problems.add(BadRecord(WRONG_TYPE, detail), image.panoptic.name)
                continue
            yield Item(
                id=f"{dataset}/{image.id}/{segment}",
                image=str(image.path.absolute()),
                boxes=(box,),
                question=config.question or SEGMENT_PROMPT,
                target=names[category],
                region=1,
                kind=names[category],
                group=f"{dataset}/{image.id}",
                facts={"image_id": image.id, "segment_id": segment},
            )


def recognition_scores(
    dataset: str, items: Sequence[Item], predictions: Sequence[Prediction], config: EvalConfig
) -> Scores:
    """Compute PQ, AP, mIoU with their parts, and the accuracy over regions, for both mappings.

    If the configuration's folder is kept, write `disagreements.jsonl` into it: every region to which the mappings give
    different classes.

    Args:
        dataset: "cityscapes" or "ade20k".
        items, predictions: in the same order.
        config: of the run.
    """
    data = read_panoptic(config.root, dataset, config.split)
    counts: Counter[str] = Counter()
    notes: list[str] = []
    words = _words(data, config, counts, notes)
    answers = [prediction.answer for prediction in predictions]
    sbert, lexical = SentenceBertMapping(words, config.mapping_model), LexicalMapping(words)
    by_sentence, by_words = sbert.choose(answers), lexical.choose(answers)
    empty = [choice is None for choice in by_sentence]
    rows = {
        "": region_probabilities(sbert.scores(answers), void=empty),
        LEXICAL: one_hot(lexical.scores(answers)),
    }
    evaluators = {name: SegmentationEvaluator(data) for name in rows}
    counts[EMPTY_ANSWER] = sum(empty)
    counts[UNKNOWN_CATEGORY] = sum(choice is None for choice in by_words) - sum(empty)
    truths = _instances(data, items, config, counts, notes)
    masks = _score_images(data, items, rows, evaluators, truths, counts)
    units = [str(item.facts["image_id"]) for item in items]
    correct = {
        "": [choice == item.target for choice, item in zip(by_sentence, items, strict=True)],
        LEXICAL: [choice == item.target for choice, item in zip(by_words, items, strict=True)],
    }
    metrics: dict[str, Metric] = {}
    for name, evaluator in evaluators.items():
        label = f" ({name})" if name else ""
        metrics |= {f"{key}{label}": metric for key, metric in evaluator.metrics().items()}
        metrics[f"accuracy{label}"] = mean_metric(correct[name], units)
    apart = disagreements(by_sentence, by_words)
    listed = f", listed in {DISAGREEMENTS}" if config.keep else ""
    if config.keep:
        lines = []
        for k in apart:
            region = {"id": items[k].id, "image": items[k].image, "box": list(items[k].boxes[0])}
            said = {"answer": answers[k], "sentence_bert": by_sentence[k], "lexical": by_words[k]}
            lines.append(json.dumps({**region, "target": items[k].target, **said}, ensure_ascii=False) + "\n")
        (config.folder / DISAGREEMENTS).write_text("".join(lines), encoding="utf-8")
    notes = [WEAK, f"The mappings disagree on {len(apart)} of {len(items)} regions{listed}.", *notes]
    columns: dict[str, list[Any]] = {
        "correct": correct[""],
        "mapped_sbert": by_sentence,
        "mapped_lexical": by_words,
        "mask": masks,
    }
    return Scores(_in_order(metrics), columns, dict(+counts), notes)


def _words(
    data: PanopticData, config: EvalConfig, counts: Counter[str], notes: list[str]
) -> dict[str, tuple[str, ...]]:
    """Return the words for each class, Osprey's if the data has its file; note their origin in `counts` and `notes`."""
    words = {entry.name: entry.names for entry in data.classes}
    file = words_file(config.root, data.dataset, config.split)
    given = {} if file is None else read_words(file, data.classes, data.dataset)
    counts[OWN_WORDS] = len(words.keys() - given.keys())
    if file is not None:
        counts[f"classes with the words of {file.name}"] = len(given)
    if counts[OWN_WORDS]:
        notes.append(
            f"{counts[OWN_WORDS]} of {len(words)} classes use this package's own synonyms, so the metrics are not "
            f"comparable with published ones. To use Osprey's words, put `osprey/eval/utils/"
            f"{WORDS_FILES[data.dataset]}` of its repository into the data folder."
        )
    return words | given


def _instances(
    data: PanopticData, items: Sequence[Item], config: EvalConfig, counts: Counter[str], notes: list[str]
) -> dict[str, list[dict[str, Any]]]:
    """Return ADE20K's instances of the images that were asked about, if the data has their file."""
    if data.dataset != "ade20k":
        return {}
    file = instances_file(config.root, config.split)
    if not file.is_file():
        notes.append(
            f"AP is computed against the panoptic segments, since there is no {file.name}; published AP uses that file."
        )
        return {}
    problems = Problems()
    found = read_instances(file, {item.facts["image_id"] for item in items}, problems)
    counts[f"instances of {file.name}"] = sum(map(len, found.values()))
    counts[f"bad records of {file.name}"] = problems.counts().total()
    return found


def _score_images(
    data: PanopticData,
    items: Sequence[Item],
    rows: dict[str, np.ndarray],
    evaluators: dict[str, SegmentationEvaluator],
    instances: Mapping[str, Sequence[dict[str, Any]]],
    counts: Counter[str],
) -> list[str | None]:
    """Score the images that were asked about, and return each item's mask as run lengths.

    instances: by image id, from `read_instances`; empty if the data has no such file.
    """
    places: dict[str, dict[int, int]] = defaultdict(dict)  # of the items, by image and segment
    for k, item in enumerate(items):
        places[item.facts["image_id"]][item.facts["segment_id"]] = k
    masks: list[str | None] = [None] * len(items)
    by_id = {image.id: image for image in data.images}
    for image_id, asked in places.items():
        image = by_id[image_id]
        try:
            found, truth = regions_of(image, data.classes), truth_of(image, data.classes, instances.get(image_id))
        except BadRecord:
            counts[UNREADABLE] += 1
            continue
        # A region that was not asked about, or got no answer, has no class.
        chosen = [asked.get(number) for number in found.ids.tolist()]
        for name, evaluator in evaluators.items():
            void = np.eye(rows[name].shape[1])[-1]
            table = [void if k is None else rows[name][k] for k in chosen]
            evaluator.add(image, found.masks, np.array(table).reshape(-1, len(void)), truth)
        for place, mask in zip(chosen, found.masks, strict=True):
            if place is not None:
                masks[place] = _text(mask)
    return masks


def region_masks(dataset: str, config: EvalConfig, items: Sequence[Item]) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield the mask of each item's region, as far as the panoptic PNGs can be read."""
    data = read_panoptic(config.root, dataset, config.split)
    asked: dict[str, dict[int, str]] = defaultdict(dict)  # id of an item, by image and segment
    for item in items:
        asked[item.facts["image_id"]][item.facts["segment_id"]] = item.id
    for image in data.images:
        if image.id not in asked:
            continue
        try:
            found = regions_of(image, data.classes)
        except BadRecord:
            continue
        for number, mask in zip(found.ids.tolist(), found.masks, strict=True):
            if number in asked[image.id]:
                height, width = mask.shape
                yield asked[image.id][number], [{"size": [height, width], "counts": _text(mask)}]


def _text(mask: np.ndarray) -> str:
    counts: bytes = encoded_mask(mask)["counts"]
    return counts.decode("ascii")


def _in_order(metrics: dict[str, Metric]) -> dict[str, Metric]:
    """Put PQ, AP and mIoU of both mappings first."""
    first = [f"{name}{label}" for label in ("", f" ({LEXICAL})") for name in ("PQ", "AP", "mIoU")]
    return {name: metrics[name] for name in (*first, *(name for name in metrics if name not in first))}


def _benchmark(name: str, title: str, by_osprey: dict[str, float], by_opal: dict[str, float]) -> Benchmark:
    return Benchmark(
        name=name,
        title=title,
        splits=("val", "train"),
        scoring=("generate",),
        prompt=SEGMENT_PROMPT,
        mapping=f"Sentence-BERT ({EMBEDDER}; largest cosine over a class's names in `{TEMPLATE}`); lexical",
        max_new_tokens=32,
        files=lambda root, split: needed_files(root, name, split),
        items=partial(recognition_items, name),
        score=partial(recognition_scores, name),
        masks=partial(region_masks, name),
        scorers=(CITYSCAPES_SCRIPTS, PYCOCOTOOLS, SENTENCES),
        published=(
            Published(
                "GPT4RoI 7B, as reported by Osprey (arXiv 2312.10032)",
                f"val, true boxes in, Sentence-BERT mapping with Osprey's words ({WORDS_FILES[name]}) and prompt",
                by_osprey,
                model="GPT4RoI-7B",
                split="val",
            ),
            Published(
                "GPT4RoI 7B, as reported by OPAL (ICLR 2026)",
                "val, true boxes in, lexical mapping",
                {f"{metric} ({LEXICAL})": value for metric, value in by_opal.items()},
                model="GPT4RoI-7B",
                split="val",
            ),
        ),
    )


CITYSCAPES = _benchmark(
    "cityscapes",
    "Cityscapes",
    {"PQ": 34.70, "AP": 21.93, "mIoU": 36.73},
    {"PQ": 39.7, "AP": 25.3, "mIoU": 40.6},
)
ADE20K = _benchmark(
    "ade20k",
    "ADE20K-150",
    {"PQ": 36.32, "AP": 26.08, "mIoU": 25.82},
    {"PQ": 44.5, "AP": 33.7, "mIoU": 36.5},
)
