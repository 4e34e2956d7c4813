"""Visual-7W: pointing, where four boxes are offered, and telling, where four texts are; a letter is the answer.

`answer` is the right choice and `multiple_choices` are the three wrong ones; their order as options is drawn by seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpt4roi_nb.data.box_check import Box, box_from_xywh
from gpt4roi_nb.data.instructions import LETTERS, choice_question
from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.problems import MISSING, OUT_OF_RANGE, WRONG_TYPE, BadRecord, Problems, field, text_field
from gpt4roi_nb.data.record import plain, region
from gpt4roi_nb.evaluate.benchmarks.item import Item, Prediction, Scores, Setting
from gpt4roi_nb.evaluate.benchmarks.letters import is_right, letter_of
from gpt4roi_nb.evaluate.benchmarks.published import Published
from gpt4roi_nb.evaluate.benchmarks.registry import part
from gpt4roi_nb.evaluate.metrics.statistics import mean_figure

DATASET = "Visual-7W"
SPLITS = ("val", "test", "train")
SCORERS = ("likelihood", "generate")
PROMPT = (
    choice_question(len(LETTERS), "Which …?", [region(k) for k in range(1, len(LETTERS) + 1)])
    + "\n(telling: without regions, the options are texts)"
)
FIXED_PROMPT = True
MAPPING = "the first option letter of the answer"
MAX_NEW_TOKENS = 16
JUDGES = ()
PUBLISHED = (
    Published("GPT4RoI-7B, second-hand, through ViP-LLaVA", "test, pointing", {"pointing": 81.83}),
    Published("GPT4RoI-13B, second-hand, through ViP-LLaVA", "test, pointing", {"pointing": 84.82}),
)
_KINDS = ("pointing", "telling")


def files(root: Path, split: str) -> dict[str, Path]:
    """Both question files, or the one that is there, and the pictures."""
    folder = part(root, "visual7w")
    found = {f"{kind} questions": folder / f"dataset_v7w_{kind}.json" for kind in _KINDS}
    there = {name: path for name, path in found.items() if path.exists()}
    return (there or found) | {"pictures": folder / "images"}


def items(setting: Setting, problems: Problems) -> Iterator[Item]:
    """A question a pair of the split."""
    found = files(setting.root, setting.split)
    for kind in _KINDS:
        if file := found.get(f"{kind} questions"):
            yield from _questions(file, kind, found["pictures"], setting, problems)


def _questions(file: Path, kind: str, images: Path, setting: Setting, problems: Problems) -> Iterator[Item]:
    boxes: dict[int, Box] = {}
    entries: list[Any] = []
    for number, (key, entry) in enumerate(elements(file, problems)):
        if key == "images":
            entries.append(entry)
        elif key == "boxes":
            try:
                sides = [field(entry, side, float) for side in ("x", "y", "width", "height")]
                boxes[field(entry, "box_id", int)] = box_from_xywh(sides)
            except BadRecord as bad:
                problems.add(bad, f"{file.name}: boxes, entry {number} of the file")
    for number, entry in enumerate(entries):
        try:
            if field(entry, "split", str) != setting.split:
                continue
            image = str(images / text_field(entry, "filename"))
            pairs = field(entry, "qa_pairs", list)
        except BadRecord as bad:
            problems.add(bad, f"{file.name}: images, entry {number}")
            continue
        for pair in pairs:
            try:
                yield _item(pair, kind, image, boxes, setting.seed)
            except BadRecord as bad:
                name = pair.get("qa_id") if isinstance(pair, dict) else pair
                problems.add(bad, f"{file.name}: question {name!r}"[:200])


def _item(pair: Any, kind: str, image: str, boxes: dict[int, Box], seed: int) -> Item:
    name = field(pair, "qa_id", int)
    wrong = field(pair, "multiple_choices", list)
    if len(wrong) != len(LETTERS) - 1:
        raise BadRecord(WRONG_TYPE, f"'multiple_choices' must hold {len(LETTERS) - 1} wrong ones, but holds {wrong!r}")
    if "answer" not in pair:
        raise BadRecord(MISSING, "there is no 'answer'")
    offered = [pair["answer"], *wrong]
    order = random.Random(f"{seed}/{kind}/{name}").sample(range(len(offered)), len(offered))
    right = order.index(0)
    question = plain(text_field(pair, "question"))
    if kind == "pointing":
        for box_id in offered:
            if box_id not in boxes:
                raise BadRecord(OUT_OF_RANGE, f"the file holds no usable box {box_id!r}")
        shown = [boxes[offered[k]] for k in order]
        texts = [region(number) for number in range(1, len(order) + 1)]
    else:
        if not all(isinstance(text, str) and text.strip() for text in offered):
            raise BadRecord(WRONG_TYPE, f"the choices must be texts, but are {offered!r}")
        shown, texts = [], [plain(offered[k]) for k in order]
    return Item(
        id=f"visual7w/{kind}/{name}",
        image=image,
        boxes=tuple(shown),
        question=choice_question(len(shown), question, texts),
        target=LETTERS[right],
        options=LETTERS,
        region=right + 1 if shown else 0,
        kind=kind,
        group=image,
        facts={"choice": right},
    )


def score(items: Sequence[Item], predictions: Sequence[Prediction], setting: Setting) -> Scores:
    """Accuracy of pointing, of telling, and of each question that there is."""
    right = [is_right(one.answer, item.facts["choice"]) for item, one in zip(items, predictions, strict=True)]
    figures = {}
    for kind in _KINDS:
        chosen = [k for k, item in enumerate(items) if item.kind == kind]
        if chosen:
            figures[kind] = mean_figure([right[k] for k in chosen], [items[k].image for k in chosen])
    silent = sum(letter_of(one.answer) is None for one in predictions)
    counts = {"answers without a letter": silent} if silent else {}
    return Scores(figures, {"correct": list(right)}, counts, ["guessing gives 25"])
