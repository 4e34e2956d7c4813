"""Open-vocabulary recognition with given regions, which Cityscapes and ADE20K-150 have in common.

The regions are the segments of the true panoptic segmentation: a model gets the box of each and says what is there, and
the true mask is scored under the class that its answer is mapped to. Both mappings are reported, and every region on
which they disagree is listed.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt4roi_nb.data.problems import WRONG_TYPE, BadRecord, Problems
from gpt4roi_nb.evaluate.benchmarks.item import EMPTY_ANSWER, UNKNOWN_CATEGORY, Item, Prediction, Scores, Setting
from gpt4roi_nb.evaluate.benchmarks.panoptic_files import (
    PanopticData,
    boxes_of,
    read_panoptic,
    regions_of,
    truth_of,
)
from gpt4roi_nb.evaluate.metrics.mapping import (
    TEMPLATE,
    Disagreement,
    LexicalMapping,
    SentenceBertMapping,
    disagreements,
    one_hot,
    region_probabilities,
)
from gpt4roi_nb.evaluate.metrics.panoptic import SegmentationJudge
from gpt4roi_nb.evaluate.metrics.statistics import Figure, mean_figure
from gpt4roi_nb.evaluate.scorers import CITYSCAPES, EMBEDDER, PYCOCOTOOLS, SENTENCES

PROMPT = "What is the category of <region1>?"  # the protocol asks for a short phrase, in whatever words
MAPPING = f"Sentence-BERT ({EMBEDDER}; largest cosine over a class's names in `{TEMPLATE}`); lexical"
JUDGES = (CITYSCAPES, PYCOCOTOOLS, SENTENCES)
MAX_NEW_TOKENS = 32
LEXICAL = "lexical"
DISAGREEMENTS = "disagreements.jsonl"
UNREADABLE = "images whose ground truth cannot be read"
WEAK = (
    "AP ranks weakly with the Sentence-BERT mapping: its scores are a softmax of cosines without a temperature, and "
    "nearly flat. The lexical mapping has no scores but 1 and 0."
)


def items(dataset: str, setting: Setting, problems: Problems) -> Iterator[Item]:
    """An item for each of the regions of each image; `kind` is its class, and images are drawn whole."""
    data = read_panoptic(setting.root, dataset, setting.split, problems)
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
                image=str(image.picture.absolute()),
                boxes=(box,),
                question=setting.question or PROMPT,
                target=names[category],
                region=1,
                kind=names[category],
                group=f"{dataset}/{image.id}",
                facts={"image_id": image.id, "segment_id": segment},
            )


def score(dataset: str, items: Sequence[Item], predictions: Sequence[Prediction], setting: Setting) -> Scores:
    """PQ, AP, mIoU and what they are made of, and the share of regions named rightly, by both mappings.

    Writes `disagreements.jsonl` into the setting's folder, if that is kept: every region that the mappings give
    different classes.
    """
    data = read_panoptic(setting.root, dataset, setting.split)
    words = {entry.name: entry.names for entry in data.classes}
    answers = [prediction.answer for prediction in predictions]
    sbert, lexical = SentenceBertMapping(words, setting.mapping_model), LexicalMapping(words)
    by_sentence, by_words = sbert.choose(answers), lexical.choose(answers)
    empty = [choice is None for choice in by_sentence]
    rows = {
        "": region_probabilities(sbert.scores(answers), void=empty),
        LEXICAL: one_hot(lexical.scores(answers)),
    }
    judges = {name: SegmentationJudge(data) for name in rows}
    counts = Counter({EMPTY_ANSWER: sum(empty)})
    counts[UNKNOWN_CATEGORY] = sum(choice is None for choice in by_words) - sum(empty)
    masks = _judge_images(data, items, rows, judges, counts)
    units = [str(item.facts["image_id"]) for item in items]
    correct = {
        "": [choice == item.target for choice, item in zip(by_sentence, items, strict=True)],
        LEXICAL: [choice == item.target for choice, item in zip(by_words, items, strict=True)],
    }
    figures: dict[str, Figure] = {}
    for name, judge in judges.items():
        label = f" ({name})" if name else ""
        figures |= {f"{key}{label}": figure for key, figure in judge.figures().items()}
        figures[f"accuracy{label}"] = mean_figure(correct[name], units)
    apart = disagreements(answers, by_sentence, by_words)
    listed = f", listed in {DISAGREEMENTS}" if setting.keep else ""
    if setting.keep:
        _list_disagreements(setting.folder / DISAGREEMENTS, items, apart)
    notes = [WEAK, f"The mappings disagree on {len(apart)} of {len(items)} regions{listed}."]
    columns: dict[str, list[Any]] = {
        "correct": correct[""],
        "mapped_sbert": by_sentence,
        "mapped_lexical": by_words,
        "mask": masks,
    }
    return Scores(_in_order(figures), columns, dict(+counts), notes)


def _judge_images(
    data: PanopticData,
    items: Sequence[Item],
    rows: dict[str, np.ndarray],
    judges: dict[str, SegmentationJudge],
    counts: Counter[str],
) -> list[str | None]:
    """Scores the images that were asked about; returns each item's mask as run lengths."""
    places: dict[str, dict[int, int]] = defaultdict(dict)  # of the items, by image and segment
    for k, item in enumerate(items):
        places[item.facts["image_id"]][item.facts["segment_id"]] = k
    masks: list[str | None] = [None] * len(items)
    by_id = {image.id: image for image in data.images}
    for image_id, asked in places.items():
        image = by_id[image_id]
        try:
            found, truth = regions_of(image, data.classes), truth_of(image, data.classes)
        except BadRecord:
            counts[UNREADABLE] += 1
            continue
        # A region that was not asked about, or got no answer, is one without a class.
        chosen = [asked.get(number) for number in found.ids.tolist()]
        for name, judge in judges.items():
            void = np.eye(rows[name].shape[1])[-1]
            table = [void if k is None else rows[name][k] for k in chosen]
            judge.add(image, found.masks, np.array(table).reshape(-1, len(void)), truth)
        for place, mask in zip(chosen, found.masks, strict=True):
            if place is not None:
                masks[place] = run_lengths(mask)
    return masks


def run_lengths(mask: np.ndarray) -> str:
    """A mask (H, W) bool as the text that COCO's files hold in `counts`."""
    from pycocotools import mask as coco_mask

    return str(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode("ascii"))


def _list_disagreements(file: Path, items: Sequence[Item], found: Sequence[Disagreement]) -> None:
    """Writes a line for each."""
    lines = []
    for one in found:
        item = items[one.region]
        facts = {"id": item.id, "image": item.image, "box": list(item.boxes[0]), "target": item.target}
        said = {"answer": one.answer, "sentence_bert": one.by_sentence, "lexical": one.by_words}
        lines.append(json.dumps(facts | said, ensure_ascii=False) + "\n")
    file.write_text("".join(lines), encoding="utf-8")


def _in_order(figures: dict[str, Figure]) -> dict[str, Figure]:
    """PQ, AP and mIoU of both mappings first."""
    first = [f"{name}{label}" for label in ("", f" ({LEXICAL})") for name in ("PQ", "AP", "mIoU")]
    return {name: figures[name] for name in (*first, *(name for name in figures if name not in first))}
