"""Conversations in the wordings of the published benchmarks, for `load("conversations", …)`, with the world's answers.

They are made from what `lvis`, `paco` and `visual7w` add for a training image, in the words of `protocol_texts`.
"""

from collections.abc import Callable

import numpy as np

from gpt4roi_nb.data.protocol_texts import (
    CATEGORY_PROMPT,
    CHOICE_PROMPT,
    LETTERS,
    NAME_PROMPT,
    SEGMENT_PROMPT,
    choice_question,
    clean_name,
)
from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile, Record
from gpt4roi_nb.data.scenes.formats.lvis import LVIS_CATEGORIES, LVIS_FILES
from gpt4roi_nb.data.scenes.formats.own import FOLDER, row
from gpt4roi_nb.data.scenes.formats.paco import NAMES, PACO_FILES
from gpt4roi_nb.data.scenes.formats.visual7w import POINTING, TELLING
from gpt4roi_nb.data.scenes.formats.world_image import WorldImage
from gpt4roi_nb.data.scenes.question_kinds import an, pick

TOPIC = "benchmarks"
FILES = (JsonFile(f"{FOLDER}/{TOPIC}.json"),)
Say = Callable[[list[list[float]], str, str], None]  # boxes, question, answer
CHOICES_PER_IMAGE = 2  # per data set


def add(shown: WorldImage, added: Added) -> None:
    """Add an image's questions, if it is for training. Call this after the data sets' own `add`."""
    if shown.split != "train":
        return
    rng = shown.rng("own benchmarks")
    image = f"{shown.stem}.jpg"

    def say(boxes: list[list[float]], question: str, answer: str) -> None:
        row(added, TOPIC, image, boxes, [(question, answer)])

    thing = pick(rng, shown.objects)
    say([corners(thing.box)], CATEGORY_PROMPT, thing.category)
    thing = pick(rng, shown.objects)
    say([corners(thing.box)], SEGMENT_PROMPT, an(thing.phrase))
    for surface in shown.stuff:
        name = surface.category
        say([corners(surface.box)], *pick(rng, ((CATEGORY_PROMPT, name), (SEGMENT_PROMPT, f"the {name}"))))
    for file, names in (
        (LVIS_FILES["train"], [clean_name(record["name"]) for record in LVIS_CATEGORIES]),
        (PACO_FILES["train"], [clean_name(name) for name in NAMES]),
    ):
        found = rows_of(added, file, "annotations")
        parts = [one for one in found if is_part(names[one["category_id"] - 1])]
        there = {names[one["category_id"] - 1] for one in found}
        asked = parts if parts else found  # PACO's names for whole objects differ from LVIS's
        if asked:
            one = pick(rng, asked)
            say([from_sides(one["bbox"])], NAME_PROMPT, spoken(names[one["category_id"] - 1]))
        for _ in range(CHOICES_PER_IMAGE if found else 0):
            one = pick(rng, found)
            true = names[one["category_id"] - 1]
            others = [name for name in names if name not in there and is_part(name) == is_part(true)]
            if others:
                pair = [true, pick(rng, others)]
                order = rng.permutation(2).tolist()
                say([from_sides(one["bbox"])], CHOICE_PROMPT.format(*(pair[k] for k in order)), an(spoken(true)))
    _add_visual7w(added, rng, say)


def rows_of(added: Added, file: str, part: str) -> list[Record]:
    """Return what an image has added to one list of a file."""
    return [record for name, within, record in added.rows if (name, within) == (file, part)]


def spoken(name: str) -> str:
    """Return a category without its addition in brackets, as one says it."""
    return name.partition("(")[0].strip()


def is_part(name: str) -> bool:
    """Whether a spoken name is that of a part."""
    return name.endswith(" half")


def corners(box: tuple[float, float, float, float]) -> list[float]:
    """Return a box as a list of floats."""
    return [float(side) for side in box]


def from_sides(sides: list[float]) -> list[float]:
    """Convert [x, y, width, height] to pixel xyxy."""
    x, y, width, height = sides
    return [x, y, x + width, y + height]


def _add_visual7w(added: Added, rng: np.random.Generator, say: Say) -> None:
    """Ask what `visual7w` asks, in VCR's form, with the options in any order."""
    placed = {one["box_id"]: one for one in rows_of(added, POINTING, "boxes")}
    for name in (POINTING, TELLING):
        for image in rows_of(added, name, "images"):
            for pair in image["qa_pairs"]:
                offered = [pair["answer"], *pair["multiple_choices"]]
                order = rng.permutation(len(offered)).tolist()
                letter = LETTERS[order.index(0)]
                if name == TELLING:
                    say([], choice_question(0, pair["question"], [offered[k] for k in order]), letter)
                    continue
                chosen = [placed[offered[k]] for k in order]
                boxes = [from_sides([one[side] for side in ("x", "y", "width", "height")]) for one in chosen]
                texts = [f"<region{number}>" for number in range(1, len(boxes) + 1)]
                say(boxes, choice_question(len(boxes), pair["question"], texts), letter)
