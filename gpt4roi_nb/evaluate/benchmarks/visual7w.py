"""Visual-7W: pointing offers four boxes, telling four texts; the answer is a letter.

`answer` is the right choice and `multiple_choices` are the three wrong ones; the seed draws the order of the options.

Two wordings: VCR's, as for GPT4RoI, and ViP-LLaVA's (llava/visual_prompt_organizer.py of its repository).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.box_check import box_from_xywh
from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.problems import (
    MISSING,
    OUT_OF_RANGE,
    WRONG_TYPE,
    BadRecord,
    Problems,
    UniqueTable,
    field,
    path_field,
    shown,
    text_field,
)
from gpt4roi_nb.data.protocol_texts import LETTERS, choice_question
from gpt4roi_nb.data.record import one_line
from gpt4roi_nb.evaluate.benchmarks.benchmark import Published, part
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Item, Prediction, Scores
from gpt4roi_nb.evaluate.benchmarks.letters import accuracy, chosen_rightly, lettered, without_letter
from gpt4roi_nb.prompt import region

VIP_LLAVA = "vip-llava"
BARE_LETTERS = tuple(letter.strip("()") for letter in LETTERS)
_KINDS = ("pointing", "telling")


def files(root: Path, split: str) -> dict[str, Path]:
    """Return both question files, or the one that exists, and the folder of images."""
    folder = part(root, "visual7w")
    found = {f"{kind} questions": folder / f"dataset_v7w_{kind}.json" for kind in _KINDS}
    there = {name: path for name, path in found.items() if path.exists()}
    return (there or found) | {"images": folder / "images"}


def items(config: EvalConfig, problems: Problems) -> Iterator[Item]:
    """Yield one item per question of the split."""
    found = files(config.root, config.split)
    for kind in _KINDS:
        if file := found.get(f"{kind} questions"):
            yield from _questions(file, kind, found["images"], config, problems)


def _questions(file: Path, kind: str, images: Path, config: EvalConfig, problems: Problems) -> Iterator[Item]:
    boxes: UniqueTable[int, Box] = UniqueTable()
    entries: list[Any] = []
    for number, (key, entry) in enumerate(elements(file, problems)):
        if key == "images":
            entries.append(entry)
        elif key == "boxes":
            try:
                sides = [field(entry, side, float) for side in ("x", "y", "width", "height")]
                boxes.add(field(entry, "box_id", int), box_from_xywh(sides))
            except BadRecord as bad:
                problems.add(bad, f"{file.name}: boxes, entry {number} of the file")
    for number, entry in enumerate(entries):
        try:
            if field(entry, "split", str) != config.split:
                continue
            image = str(images / path_field(entry, "filename"))
            pairs = field(entry, "qa_pairs", list)
        except BadRecord as bad:
            problems.add(bad, f"{file.name}: images, entry {number}")
            continue
        for pair in pairs:
            try:
                yield _item(pair, kind, image, boxes, config)
            except BadRecord as bad:
                name = pair.get("qa_id") if isinstance(pair, dict) else pair
                problems.add(bad, f"{file.name}: question {shown(name)}")


def _item(pair: Any, kind: str, image: str, boxes: dict[int, Box], config: EvalConfig) -> Item:
    name = field(pair, "qa_id", int)
    wrong = field(pair, "multiple_choices", list)
    if len(wrong) != len(LETTERS) - 1:
        raise BadRecord(
            WRONG_TYPE, f"'multiple_choices' must hold {len(LETTERS) - 1} wrong choices, but holds {shown(wrong)}"
        )
    if "answer" not in pair:
        raise BadRecord(MISSING, "there is no 'answer'")
    offered = [pair["answer"], *wrong]
    order = random.Random(f"{config.seed}/{kind}/{name}").sample(range(len(offered)), len(offered))
    right = order.index(0)
    question = one_line(text_field(pair, "question"))
    if kind == "pointing":
        for box_id in offered:
            if type(box_id) is not int or box_id not in boxes:
                raise BadRecord(OUT_OF_RANGE, f"the file has no usable box {shown(box_id)}")
        placed = [boxes[offered[k]] for k in order]
        texts = [region(number) for number in range(1, len(order) + 1)]
    else:
        if not all(isinstance(text, str) and text.strip() for text in offered):
            raise BadRecord(WRONG_TYPE, f"the choices must be texts, but are {shown(offered)}")
        placed, texts = [], [one_line(offered[k]) for k in order]
    letters = BARE_LETTERS if config.wording == VIP_LLAVA else LETTERS
    return Item(
        id=f"visual7w/{kind}/{name}",
        image=image,
        boxes=tuple(placed),
        question=vip_llava_question(question, texts)
        if config.wording == VIP_LLAVA
        else choice_question(len(placed), question, texts),
        target=letters[right],
        options=letters,
        region=right + 1 if placed else 0,
        kind=kind,
        group=image,
        facts={"choice": right},
    )


def vip_llava_question(question: str, options: Sequence[str]) -> str:
    """Write a multiple-choice question as ViP-LLaVA's code does."""
    lines = [f"{letter}. {option}" for letter, option in zip(BARE_LETTERS, options, strict=True)]
    return "\n".join([question, *lines, "Answer with the option's letter from the given choices directly."])


def score(items: Sequence[Item], predictions: Sequence[Prediction], config: EvalConfig) -> Scores:
    """Compute the accuracy of pointing and of telling, if asked."""
    right = chosen_rightly(items, predictions)
    asked = {item.kind for item in items}
    metrics = {kind: accuracy(items, right, kind) for kind in _KINDS if kind in asked}
    return Scores(metrics, {"correct": list(right)}, without_letter(predictions), ["guessing gives 25"])


_REGIONS = [region(number) for number in range(1, len(LETTERS) + 1)]
_TELLING = "\n(telling: without regions, the options are texts)"
_WORDINGS = {
    "vcr": choice_question(len(LETTERS), "Which …?", _REGIONS) + _TELLING,
    VIP_LLAVA: vip_llava_question("Which …?", _REGIONS) + _TELLING,
}

VISUAL7W = lettered(
    name="visual7w",
    title="Visual-7W",
    splits=("val", "test", "train"),
    prompt=_WORDINGS["vcr"],
    wordings=_WORDINGS,
    files=files,
    items=items,
    score=score,
    published=(
        *(
            Published(
                f"{model}, second-hand, through ViP-LLaVA",
                "test, pointing",
                {"pointing": accuracy},
                model=model,
                split="test",
            )
            for model, accuracy in (("GPT4RoI-7B", 81.83), ("GPT4RoI-13B", 84.82))
        ),
        *(
            Published(
                f"{model} (arXiv 2312.00784)",
                "test, pointing; half-transparent rectangles of colours drawn by chance, sampled at temperature 0.2",
                {"pointing": accuracy},
                model=model,
                split="test",
            )
            for model, accuracy in (("ViP-LLaVA-7B", 86.09), ("ViP-LLaVA-13B", 88.28))
        ),
    ),
)
