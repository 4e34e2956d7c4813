"""V*Bench: a JSON file beside each image, and `test_questions.jsonl`, for validation images only.

The benchmark has one split. In the JSON file the right option comes first; the list of questions has lettered options
in any order.
"""

import numpy as np

from gpt4roi_nb.data.scenes.formats.expressions import Expression, by_looks
from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile
from gpt4roi_nb.data.scenes.formats.world_image import WorldImage, xywh
from gpt4roi_nb.data.scenes.question_kinds import VALUES, comparable, pick, value_of, value_words

FOLDER = "vstar_bench"
QUESTIONS = f"{FOLDER}/test_questions.jsonl"
FILES = (JsonFile(QUESTIONS, lines=True),)
SPLIT = "val"
WRONG = 3
REQUEST = "Answer with the option's letter from the given choices directly."
ASKED = {"colour": "color", "material": "material"}  # by attribute: what the questions call it
SIDES = ("left", "right")
KINDS = 2  # of questions per image


def add(shown: WorldImage, added: Added) -> None:
    """Add a question about an attribute and one about two sides, if the scene has clear ones."""
    if shown.split != SPLIT:
        return
    rng = shown.rng("vstar")
    names = {k: found for k in rng.permutation(len(shown.objects)).tolist() if (found := by_looks(shown.scene, k))}
    _add_attribute(shown, names, rng, added)
    _add_sides(shown, names, rng, added)


def _add_attribute(
    shown: WorldImage, names: dict[int, list[Expression]], rng: np.random.Generator, added: Added
) -> None:
    asked = pick(rng, tuple(ASKED))
    for index, found in names.items():
        silent = [
            name for name in found if asked not in dict(name.values)
        ]  # otherwise the question gives away the answer
        if silent:
            name = pick(rng, silent).noun()
            right = value_of(shown.objects[index], asked)
            wrong = rng.permutation([value for value in VALUES[asked] if value != right]).tolist()[:WRONG]
            values = [value_words(asked, value) for value in (right, *wrong)]
            sentences = [f"The {ASKED[asked]} of the {name} is {value}." for value in values]
            question = f"What is the {ASKED[asked]} of the {name}?"
            _add(shown, added, "direct_attributes", {index: name}, question, values, sentences, rng)
            return


def _add_sides(shown: WorldImage, names: dict[int, list[Expression]], rng: np.random.Generator, added: Added) -> None:
    pairs = ((one, other) for one in names for other in names if one != other)
    for one, other in pairs:
        if comparable(shown.scene, "left_right", one, other):
            first, second = (pick(rng, names[k]).noun() for k in (one, other))
            middles = [shown.objects[k].box[0] + shown.objects[k].box[2] for k in (one, other)]
            sides = SIDES if middles[0] < middles[1] else SIDES[::-1]
            sentences = [f"The {first} is on the {side} side of the {second}." for side in sides]
            question = f"Is the {first} on the left or right side of the {second}?"
            _add(shown, added, "relative_position", {one: first, other: second}, question, list(sides), sentences, rng)
            return


def _add(
    shown: WorldImage,
    added: Added,
    category: str,
    things: dict[int, str],
    question: str,
    values: list[str],
    sentences: list[str],
    rng: np.random.Generator,
) -> None:
    """things: by index, what the question calls its objects. values, sentences: the right one first."""
    name = f"{category}/sa_{shown.number}"
    added.links.append(f"{FOLDER}/{name}.jpg")
    added.texts[f"{FOLDER}/{name}.json"] = {
        "target_object": list(things.values()),
        "bbox": [[round(side) for side in xywh(shown.objects[index].box)] for index in things],
        "question": question,
        "options": sentences,
    }
    order = rng.permutation(len(values)).tolist()
    options = [f"({letter}) {values[k]}" for letter, k in zip("ABCD", order, strict=False)]
    record = {
        "image": f"{name}.jpg",
        "text": "\n".join([question, *options, REQUEST]),
        "category": category,
        "label": "ABCD"[order.index(0)],
        "question_id": shown.number * KINDS + (category == "relative_position"),
    }
    added.row(QUESTIONS, "", record)
