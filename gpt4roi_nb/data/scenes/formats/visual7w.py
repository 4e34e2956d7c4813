"""Visual-7W: pointing, which offers four boxes, and telling, which offers four texts.

`answer` is the right choice, `multiple_choices` are the three wrong ones: box ids or texts.
"""

import numpy as np

from gpt4roi_nb.data.scenes.formats.expressions import by_looks, by_place
from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile, Record
from gpt4roi_nb.data.scenes.formats.world_image import WorldImage
from gpt4roi_nb.data.scenes.question_kinds import article_for, pick, value_of
from gpt4roi_nb.data.scenes.scene import CATEGORIES, COLOURS

POINTING = "visual7w/dataset_v7w_pointing.json"
TELLING = "visual7w/dataset_v7w_telling.json"
FILES = (
    JsonFile(POINTING, ("boxes", "images"), {"dataset": "visual7w-pointing"}),
    JsonFile(TELLING, ("images",), {"dataset": "visual7w-telling"}),
)
CHOICES = 4
WRONG = CHOICES - 1
QUESTIONS = 2  # at most, per kind and image

WHICH = ("Which thing is the {}?", "Which one is the {}?", "Which is the {}?")
ASKED = {
    "category": ("What kind of thing is the {}?", CATEGORIES),
    "colour": ("What colour is the {}?", COLOURS),
}
COUNT = "How many things are there?"


def add(shown: WorldImage, added: Added) -> None:
    """Add an image to both files."""
    rng = shown.rng("visual7w")
    file_name = f"v7w_{shown.number}.jpg"
    added.links.append(f"visual7w/images/{file_name}")
    image = {"filename": file_name, "image_id": shown.number, "split": shown.split}
    for index, thing in enumerate(shown.objects):
        x1, y1, x2, y2 = thing.box
        box = {
            "box_id": shown.object_id(index),
            "name": thing.category,
            "height": y2 - y1,
            "width": x2 - x1,
            "y": y1,
            "x": x1,
            "image_id": shown.number,
        }
        added.row(POINTING, "boxes", box)
    added.row(POINTING, "images", image | {"qa_pairs": _pointing(shown, rng)})
    added.row(TELLING, "images", image | {"qa_pairs": _telling(shown, rng)})


def _pair(shown: WorldImage, k: int, kind: str, question: str, answer: object, wrong: list[object]) -> Record:
    return {
        "qa_id": shown.number * QUESTIONS + k,
        "image_id": shown.number,
        "question": question,
        "answer": answer,
        "multiple_choices": wrong,
        "type": kind,
    }


def _pointing(shown: WorldImage, rng: np.random.Generator) -> list[Record]:
    """Questions that one object answers; the wrong boxes are those of other objects."""
    pairs: list[Record] = []
    if len(shown.objects) < CHOICES:
        return pairs
    for index in rng.permutation(len(shown.objects)).tolist():
        names = by_place(shown.scene, index) or by_looks(shown.scene, index)
        if names:
            others = [k for k in range(len(shown.objects)) if k != index]
            wrong = [shown.object_id(k) for k in rng.permutation(others).tolist()[:WRONG]]
            question = pick(rng, WHICH).format(pick(rng, names).words(rng))
            pairs.append(_pair(shown, len(pairs), "which", question, shown.object_id(index), [*wrong]))
        if len(pairs) == QUESTIONS:
            break
    return pairs


def _telling(shown: WorldImage, rng: np.random.Generator) -> list[Record]:
    """A question about an attribute of an object that its other attributes identify, and one that counts."""
    pairs: list[Record] = []
    asked = pick(rng, tuple(ASKED))
    wording, values = ASKED[asked]
    for index in rng.permutation(len(shown.objects)).tolist():
        names = [name for name in by_looks(shown.scene, index) if asked not in dict(name.values)]
        if names:
            right = value_of(shown.objects[index], asked)
            wrong = rng.permutation([value for value in values if value != right]).tolist()[:WRONG]
            texts = [_answer(asked, value) for value in (right, *wrong)]
            pairs.append(_pair(shown, 0, "what", wording.format(pick(rng, names).noun()), texts[0], [*texts[1:]]))
            break
    number = len(shown.objects)
    wrong = rng.permutation([k for k in range(max(1, number - 2), number + 3) if k != number]).tolist()[:WRONG]
    pairs.append(_pair(shown, len(pairs), "how", COUNT, f"{number}.", [f"{k}." for k in wrong]))
    return pairs


def _answer(asked: str, value: str) -> str:
    text = article_for(asked, value)
    return f"{text[0].upper()}{text[1:]}."
