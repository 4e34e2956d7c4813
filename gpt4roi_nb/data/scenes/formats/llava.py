"""LLaVA-Instruct-150K: conversations about images, and the detector's boxes that go with them.

The conversations name no regions; `<image>` stands at the start or the end of the first human turn. The boxes are in a
pickle as published (`llava_150k_bbox_pred_results.pkl`) and in an `.npz` with the same content: `filename` (P,),
`offsets` (P + 1,), `pred_bboxes` (M, 5) float32, `labels` (M,); image p has the rows offsets[p] to offsets[p + 1].
"""

import io
import pickle
from typing import Any

import numpy as np

from gpt4roi_nb.data.scenes.formats.expressions import ATTRIBUTES, by_looks, reach
from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile, ObjectFile, Record
from gpt4roi_nb.data.scenes.formats.lvis import category_id
from gpt4roi_nb.data.scenes.formats.world_image import WorldImage
from gpt4roi_nb.data.scenes.question_kinds import KINDS, an, listed, pick, value_of, value_words
from gpt4roi_nb.data.scenes.questions import ask

CONVERSATIONS = "llava/llava_instruct_150k.json"
DETECTIONS = "llava/detections"
SCORES = (0.5, 1.0)
ROUNDS = (2, 4)

ASKED = {
    "category": ("What kind of thing is the {}?", "What shape does the {} have?"),
    "colour": ("What colour is the {}?", "Which colour does the {} have?"),
    "material": ("What is the {} made of?", "Which material is the {} made of?"),
    "size": ("Is the {} small or large?", "How large is the {}?"),
}
DESCRIBE = (
    "Describe this picture in detail.",
    "What is to be seen here?",
    "Please tell me everything that you see in the picture.",
    "Give a full account of the scene.",
)


def _pickled(records: list[Record]) -> bytes:
    content = [
        {
            "filename": record["filename"],
            "pred_bboxes": np.array(record["pred_bboxes"], np.float32).reshape(-1, 5),
            "labels": np.array(record["labels"], np.int64),
        }
        for record in records
    ]
    return pickle.dumps(content, protocol=4)


def _zipped(records: list[Record]) -> bytes:
    arrays: dict[str, Any] = {
        "filename": np.array([record["filename"] for record in records], str),
        "offsets": np.cumsum([0, *(len(record["labels"]) for record in records)], dtype=np.int64),
        "pred_bboxes": np.array([box for record in records for box in record["pred_bboxes"]], np.float32).reshape(
            -1, 5
        ),
        "labels": np.array([label for record in records for label in record["labels"]], np.int64),
    }
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


FILES = (
    JsonFile(CONVERSATIONS),
    ObjectFile("llava/llava_150k_bbox_pred_results.pkl", DETECTIONS, _pickled),
    ObjectFile("llava/llava_150k_bbox_pred_results.npz", DETECTIONS, _zipped),
)


def add(shown: WorldImage, added: Added) -> None:
    """Add an image's detections and, if it is for training, a conversation and a description."""
    rng = shown.rng("llava")
    size = np.array([shown.width, shown.height] * 2)
    scores = rng.uniform(*SCORES, len(shown.objects)).round(6).tolist()
    boxes = [
        [*(np.array(thing.box) / size).tolist(), score] for thing, score in zip(shown.objects, scores, strict=True)
    ]
    labels = [category_id(thing) - 1 for thing in shown.objects]  # the detector's labels count LVIS's categories from 0
    detection = {"filename": f"{shown.stem}.jpg", "pred_bboxes": boxes, "labels": labels}
    added.row(DETECTIONS, "", detection)
    if shown.split == "train":
        for turns in (_conversation(shown, rng), [(pick(rng, DESCRIBE), _description(shown))]):
            added.row(CONVERSATIONS, "", _record(shown, turns, rng))


def _record(shown: WorldImage, turns: list[tuple[str, str]], rng: np.random.Generator) -> Record:
    (first, answer), *rest = turns
    first = f"<image>\n{first}" if rng.random() < 0.5 else f"{first}\n<image>"
    values = [text for turn in ((first, answer), *rest) for text in turn]
    speakers = ("human", "gpt")
    return {
        "id": shown.stem,
        "image": f"{shown.stem}.jpg",
        "conversations": [{"from": speakers[k % 2], "value": value} for k, value in enumerate(values)],
    }


def _conversation(shown: WorldImage, rng: np.random.Generator) -> list[tuple[str, str]]:
    turns: list[tuple[str, str]] = []
    for _ in range(int(rng.integers(ROUNDS[0], ROUNDS[1] + 1))):
        turn = _about_one(shown, rng) if rng.random() < 0.6 else None
        if turn is None:
            question = ask(shown.scene, pick(rng, KINDS[-2:]), rng)
            turn = (question.text, question.answer) if question else None
        if turn is not None and turn[0] not in [text for text, _ in turns]:
            turns.append(turn)
    return turns


def _about_one(shown: WorldImage, rng: np.random.Generator) -> tuple[str, str] | None:
    """A question about an attribute of an object that other attributes identify."""
    index = int(rng.integers(len(shown.objects)))
    asked = pick(rng, ATTRIBUTES)
    names = [name for name in by_looks(shown.scene, index) if asked not in dict(name.values)]
    if not names:
        return None
    noun = pick(rng, names).noun()
    value = value_of(shown.objects[index], asked)
    value = value_words(asked, value)
    return pick(rng, ASKED[asked]).format(noun), f"The {noun} is {'made of ' if asked == 'material' else ''}{value}."


def _description(shown: WorldImage) -> str:
    things = [an(thing.phrase) for thing in sorted(shown.objects, key=lambda thing: reach(thing, "right"))]
    return f"On a table in front of a wall there are, from left to right, {listed(things)}."
