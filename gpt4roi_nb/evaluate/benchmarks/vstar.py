"""V*Bench: questions about small things in large images, asked without and with the boxes of these things.

    vstar_bench/    test_questions.jsonl; direct_attributes/ and relative_position/ with an image and a JSON file of the
                    same name for each question

191 questions (V*, arXiv 2312.14135): 115 about an attribute, with four options, and 76 about the position of one thing
relative to another, with two. `test_questions.jsonl` holds each question with its lettered options and the letter of
the right one; the JSON file names the things asked about and gives their boxes (x, y, width, height). The protocol
shows only the image, so a model has to find the things. With the boxes given, in the words that tell V*'s own model
what its search has found, nothing is left to find: these metrics are reported separately.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.box_check import box_from_xywh
from gpt4roi_nb.data.image_files import Folder
from gpt4roi_nb.data.json_stream import lines
from gpt4roi_nb.data.problems import (
    BROKEN_JSON,
    MISSING,
    OUT_OF_RANGE,
    WRONG_TYPE,
    BadRecord,
    Problems,
    field,
    id_field,
    path_field,
    shown,
    text_field,
)
from gpt4roi_nb.data.protocol_texts import LETTERS
from gpt4roi_nb.data.record import harmless, one_line
from gpt4roi_nb.evaluate.benchmarks.benchmark import part
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Item, Prediction, Scores
from gpt4roi_nb.evaluate.benchmarks.letters import accuracy, chosen_rightly, lettered, without_letter
from gpt4roi_nb.evaluate.metrics.statistics import mean_metric
from gpt4roi_nb.files import read_json
from gpt4roi_nb.prompt import region

NAME = "vstar_bench"
FILE = "test_questions.jsonl"
CATEGORIES = {"direct_attributes": "attribute", "relative_position": "spatial"}  # → name of the metric
WITH_BOXES = ", boxes given"
FOCUS = "Additional visual information to focus on: {things}."  # V*'s own words (vstar_bench_eval.py)
APART = (
    "Without boxes the model sees only the image, at the model's resolution. Published protocols do the same, and ask "
    "for the letter or, as V*'s own code, compare the options' texts. Metrics with boxes assume that the search is "
    "already done, and are not comparable with these."
)
GUESSING = "Guessing gives 25 (attribute) and 50 (spatial). No figures are published for GPT4RoI."
_OPTION = re.compile(r"^\(([A-Z])\) ?\S", re.MULTILINE)


def files(root: Path, split: str) -> dict[str, Path]:
    """Return the questions, and the folders of images with their boxes."""
    base = part(root, NAME)
    return {"questions": base / FILE} | {f"images and boxes of {name}": base / name for name in CATEGORIES}


def items(config: EvalConfig, problems: Problems) -> Iterator[Item]:
    """Yield two items per question: without boxes and, if the JSON file has usable ones, with boxes."""
    file = files(config.root, config.split)["questions"]
    folder = Folder(file.parent, [file.parent / name for name in CATEGORIES])
    for number, entry in lines(file, problems):
        where = f"{file.name}: line {number}"
        try:
            item = _item(entry, file.parent)
            yield item
            yield _with_boxes(item, path_field(entry, "image"), folder)
        except BadRecord as bad:
            problems.add(bad, where)


def _item(entry: Any, base: Path) -> Item:
    image = str((base / path_field(entry, "image")).absolute())
    category = field(entry, "category", str)
    if category not in CATEGORIES:
        raise BadRecord(WRONG_TYPE, f"'category' must be one of {', '.join(CATEGORIES)}, but is {shown(category)}")
    question = harmless(text_field(entry, "text"))
    options = tuple(f"({letter})" for letter in _OPTION.findall(question))
    if len(options) < 2 or options != LETTERS[: len(options)]:
        raise BadRecord(
            WRONG_TYPE, f"'text' must hold two to four lines '(A) …', '(B) …', …, but holds {shown(options)}"
        )
    target = f"({field(entry, 'label', str)})"
    if target not in options:
        raise BadRecord(OUT_OF_RANGE, f"'label' must be a letter of {', '.join(options)}, but is {shown(target[1:-1])}")
    name = f"{NAME}/{id_field(entry, 'question_id')}"
    facts = {"choice": options.index(target)}
    return Item(name, image, (), question, target, options, kind=category, group=name, facts=facts)


def _with_boxes(item: Item, image: str, folder: Folder) -> Item:
    boxes, names = _things(f"{image.rpartition('.')[0]}.json", folder)
    things = "; ".join(f"{name} {region(number)}" for number, name in enumerate(names, 1))
    return replace(
        item,
        id=f"{item.id}/boxes",
        boxes=boxes,
        question=f"{FOCUS.format(things=things)}\n{item.question}",
        region=1,
        kind=item.kind + WITH_BOXES,
    )


def _things(name: str, folder: Folder) -> tuple[tuple[Box, ...], list[str]]:
    """Return (boxes, names) of the things that a question is about. Raises BadRecord if its JSON file has none."""
    file = folder.file(name)
    try:
        content = read_json(file, "the folder of the image")
    except OSError as error:
        raise BadRecord(MISSING, f"there is no file {shown(name)} with the boxes") from error
    except ValueError as error:
        raise BadRecord(BROKEN_JSON, str(error)) from error
    given, names = field(content, "bbox", list), field(content, "target_object", list)
    if not names or len(given) != len(names) or not all(isinstance(one, str) and one.strip() for one in names):
        raise BadRecord(WRONG_TYPE, f"{shown(name)} must name each box, but has {shown(names)} for {shown(given)}")
    return tuple(map(box_from_xywh, given)), list(map(one_line, names))


def score(items: Sequence[Item], predictions: Sequence[Prediction], config: EvalConfig) -> Scores:
    """Compute accuracy for each category and overall, without boxes and with boxes."""
    right = chosen_rightly(items, predictions)
    metrics = {}
    for label, ending in (("", ""), (" (boxes given)", WITH_BOXES)):
        kinds = {name + ending: title for name, title in CATEGORIES.items()}
        places = [k for k, item in enumerate(items) if item.kind in kinds]
        asked = {items[k].kind for k in places}
        if asked:
            units = [items[k].image for k in places]
            metrics[f"overall{label}"] = mean_metric([right[k] for k in places], units)
        metrics |= {title + label: accuracy(items, right, kind) for kind, title in kinds.items() if kind in asked}
    return Scores(metrics, {"correct": list(right)}, without_letter(predictions), [APART, GUESSING])


VSTAR = lettered(
    name=NAME,
    title="V*Bench, without and with the boxes of what is asked about",
    splits=("test",),  # the only one
    prompt="…?\n(A) …\n(B) …\n(C) …\n(D) …\nAnswer with the option's letter from the given choices directly."
    f'\n(with boxes: "{FOCUS.format(things="… <region1>")}" before it)',
    files=files,
    items=items,
    score=score,
)
