"""Conversations in the world's own words, for `load("conversations", …)`: what a newcomer asks, and true answers.

There is one file per topic, so that a mixture can weigh them. They use only wordings of training, about images for
training. A quarter of these images adds an image that is not of this world, to the file `strangers`.
"""

import numpy as np

from gpt4roi_nb.data.scenes import open_questions, questions
from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile, Record
from gpt4roi_nb.data.scenes.formats.world_image import WorldImage
from gpt4roi_nb.data.scenes.out_of_domain import out_of_domain_image
from gpt4roi_nb.data.scenes.question_kinds import KINDS, ONE_REGION, TWO_REGIONS, pick
from gpt4roi_nb.data.scenes.questions import Question
from gpt4roi_nb.data.scenes.spelling import casual, slip

FOLDER = "own"
TOPICS: dict[str, tuple[str, ...]] = {  # the kinds of question, each asked once per image
    "image": (*open_questions.OF_IMAGE, "count", "which"),
    "regions": (*ONE_REGION, *TWO_REGIONS, "compound"),
    "relations": (*open_questions.OF_ONE, *open_questions.OF_TWO),
    "nothing": (open_questions.NOTHING,) * 3,
    "unknown": (open_questions.UNKNOWN,) * 2,
}
TALKS, OUT_OF_DOMAIN_FILE = "talks", "strangers"
FILES = tuple(JsonFile(f"{FOLDER}/{topic}.json") for topic in (*TOPICS, TALKS, OUT_OF_DOMAIN_FILE))

TURNS = 3  # of a conversation
TALKS_PER_IMAGE = 2
SLIP_SHARE = 0.1  # of the questions that get a slip of one letter
JITTER_SHARE, JITTER = (
    0.3,
    0.08,
)  # share of objects' boxes that are moved; how far each edge moves, as a share of the side
OUT_OF_DOMAIN_EVERY = 4  # one in so many images for training adds an image of another world
OUT_OF_DOMAIN_QUESTIONS = 2


def add(shown: WorldImage, added: Added) -> None:
    """Add an image's conversations, and sometimes an image of another world, if it is for training."""
    if shown.split != "train":
        return
    rng = shown.rng("own")
    image = f"{shown.stem}.jpg"
    added.links.append(f"{FOLDER}/images/{image}")
    for topic, kinds in TOPICS.items():
        for kind in kinds:
            question = _asked(shown, kind, rng)
            if question is not None:
                boxes = _boxes(shown, question, rng)
                row(added, topic, image, boxes, [(written(rng, question.text), question.answer)])
    for _ in range(TALKS_PER_IMAGE):
        turns, objects = _talk(shown, rng)
        boxes = _boxes(shown, Question("", "", "", objects, ""), rng)
        row(added, TALKS, image, boxes, [(written(rng, text), answer) for text, answer in turns])
    if shown.number % OUT_OF_DOMAIN_EVERY == 0:
        _add_out_of_domain(shown, added, rng)


def written(rng: np.random.Generator, text: str) -> str:
    """Return a question as people write it, with slips."""
    text = casual(rng, text)
    return slip(rng, text) if rng.random() < SLIP_SHARE else text


def _asked(shown: WorldImage, kind: str, rng: np.random.Generator) -> Question | None:
    if kind == "compound":
        return questions.compound(shown.scene, rng)
    return open_questions.ask(shown.scene, kind, rng)


def _boxes(shown: WorldImage, question: Question, rng: np.random.Generator) -> list[list[float]]:
    """The boxes of a question's regions; those of objects are sometimes a little off, as if drawn by hand."""
    boxes: list[list[float]] = [[float(side) for side in box] for box in question.regions(shown.scene)]
    if question.boxes:
        return boxes
    return [jittered(box, shown, rng) if rng.random() < JITTER_SHARE else box for box in boxes]


def jittered(box: list[float], shown: WorldImage, rng: np.random.Generator) -> list[float]:
    """Move a box's edges by up to `JITTER` of its sides, inside the image; round to a tenth of a pixel."""
    x1, y1, x2, y2 = box
    moved = np.array(box) + np.array([x2 - x1, y2 - y1] * 2) * rng.uniform(-JITTER, JITTER, 4)
    inside: list[float] = moved.clip(0, [shown.width, shown.height] * 2).round(1).tolist()
    return inside


def _talk(shown: WorldImage, rng: np.random.Generator) -> tuple[list[tuple[str, str]], tuple[int, ...]]:
    """(turns, objects of the regions) of a conversation of `TURNS` questions; fewer if a follow-up is not clear."""
    scene = shown.scene
    question = open_questions.ask(scene, pick(rng, (*ONE_REGION, *open_questions.OF_ONE)), rng)
    while question is None:
        question = open_questions.ask(scene, pick(rng, ONE_REGION), rng)
    turns, objects, previous = [(question.text, question.answer)], question.objects, question.kind
    for _ in range(TURNS - 1):
        kind = pick(rng, (*KINDS, *open_questions.OPEN_KINDS, *ONE_REGION))
        known = dict(enumerate(objects, start=1))
        if kind in KINDS and not (kind in ONE_REGION and rng.random() < 0.5):
            later = questions.followup(scene, kind, rng, known, previous=previous)
        else:
            later = open_questions.followup(scene, kind, rng, known)
        if later is not None:
            turns.append((later.text, later.answer))
            objects, previous = later.objects, later.kind
    return turns, objects


def _add_out_of_domain(shown: WorldImage, added: Added, rng: np.random.Generator) -> None:
    size = max(shown.width // 2, 32)  # as much as a small model sees, and faster to draw
    image = f"stranger_{shown.stem}.jpg"
    added.images[f"{FOLDER}/images/{image}"] = out_of_domain_image(rng, size)
    for _ in range(OUT_OF_DOMAIN_QUESTIONS):
        question = open_questions.about_out_of_domain(shown.scene, (size, size), rng)
        boxes = [[float(side) for side in box] for box in question.boxes]
        row(added, OUT_OF_DOMAIN_FILE, image, boxes, [(written(rng, question.text), question.answer)])


def row(added: Added, topic: str, image: str, boxes: list[list[float]], turns: list[tuple[str, str]]) -> None:
    """Add one record to the file of a topic. boxes: pixel xyxy, region 1 first. turns: (question, answer)."""
    values = [text for turn in turns for text in turn]
    record: Record = {
        "id": image.removesuffix(".jpg"),
        "image": image,
        "boxes": boxes,
        "conversations": [{"from": ("human", "gpt")[k % 2], "value": value} for k, value in enumerate(values)],
    }
    added.row(f"{FOLDER}/{topic}.json", "", record)
