"""What the examination asks about a scene: questions of every kind, with exact, moved and other objects' boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from gpt4roi_nb.data.scenes.open_questions import ALL_KINDS, NOTHING, ask
from gpt4roi_nb.data.scenes.questions import ONE_REGION, TWO_REGIONS, Question, compound, followup, is_right
from gpt4roi_nb.data.scenes.scene import Scene
from gpt4roi_nb.data.scenes.spelling import casual, slip
from gpt4roi_nb.data.scenes.unknown import UNKNOWN
from gpt4roi_nb.demo.choices import QA, QAR, draw_pairs, is_letter
from gpt4roi_nb.prompt import Turns

COMPOUND = "compound"
ONE_REGION_QUESTIONS = 2  # per scene, of each one-region kind; of every other kind one
CONVERSATIONS = 2  # per scene
JITTER = 0.1  # most that each edge of a box moves, as a share of the box's side
MISSPELT_EVERY = 3  # one in so many scenes also gets questions with a slip of one letter
QUERIES = ("accuracy", "shuffled", "jittered", "unseen", "misspelt")


class Query(NamedTuple):
    """A question as it is asked.

    objects: the objects whose boxes are its regions, region 1 first. earlier: the turns before it. boxes: (regions, 4),
    pixel xyxy in the scene's image, to use instead: a little off, as if drawn by hand, or not an object's.
    """

    question: Question
    objects: tuple[int, ...]
    earlier: Turns = ()
    boxes: np.ndarray | None = None


Asked = tuple[Scene, Query]
Answerer = Callable[[Sequence[Asked]], list[str]]  # the answers in order; questions about one scene follow one another


class Drawn(NamedTuple):
    """What is asked about a scene.

    queries: by purpose: those of `QUERIES`, and "first", the first of each conversation. pairs: in VCR's form, for an
    answer and for its rationale. conversations: three questions each.
    """

    scene: Scene
    queries: dict[str, list[Query]]
    pairs: list[tuple[Question, Question]]
    conversations: list[list[Question]]


def draw_questions(scene: Scene, rng: np.random.Generator, *, held_out: bool = False) -> list[Question]:
    """Draw questions of every kind that the scene allows, in wordings of training or in held-out ones."""
    drawn: list[Question | None] = []
    for kind in ALL_KINDS:
        number = ONE_REGION_QUESTIONS if kind in ONE_REGION and not held_out else 1
        drawn += [ask(scene, kind, rng, held_out=held_out) for _ in range(number)]
    drawn.append(compound(scene, rng, held_out=held_out))
    return [question for question in drawn if question is not None]


def right(question: Question, answer: str) -> bool:
    """Whether an answer is right: the letter of a multiple-choice question, else by `questions.is_right`."""
    return is_letter(question, answer) if question.kind in (QA, QAR) else is_right(question, answer)


def query_of(question: Question) -> Query:
    """Return a question as a query with its own boxes."""
    return Query(question, question.objects, boxes=np.array(question.boxes, np.float32) if question.boxes else None)


def draw(scene: Scene, seed: int, index: int) -> Drawn:
    """Draw all that is asked about scene `index`."""
    rng = np.random.default_rng((seed, index))
    questions = draw_questions(scene, rng)
    number = len(scene.objects)
    shift = int(rng.integers(1, number))
    with_boxes = [question for question in questions if question.objects and question.kind != UNKNOWN]
    queries = {
        "accuracy": [query_of(question) for question in questions],
        "shuffled": [
            Query(question, tuple((k + shift) % number for k in question.objects or (0,)))
            for question in questions
            if question in with_boxes or question.kind == NOTHING
        ],
        "jittered": [
            Query(question, question.objects, boxes=_jittered(scene, question.objects, rng)) for question in with_boxes
        ],
        "unseen": [query_of(question) for question in draw_questions(scene, rng, held_out=True)],
        "misspelt": [],
    }
    if index % MISSPELT_EVERY == 0:
        queries["misspelt"] = [
            query_of(replace(question, text=slip(rng, casual(rng, question.text)))) for question in questions
        ]
    pairs = draw_pairs(scene, 1, rng)
    conversations = [conversation for _ in range(CONVERSATIONS) if (conversation := _draw_conversation(scene, rng))]
    queries["first"] = [query_of(conversation[0]) for conversation in conversations]
    return Drawn(scene, queries, pairs, conversations)


def _jittered(scene: Scene, objects: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    height, width = scene.image.shape[:2]
    boxes = np.array([scene.objects[k].box for k in objects], np.float32)
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return (boxes + sides * rng.uniform(-JITTER, JITTER, boxes.shape)).clip(0, [width, height] * 2)


def _draw_conversation(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Three questions, the third of the first one's kind; empty if the scene does not allow three."""
    kind = str(rng.choice((*ONE_REGION, *TWO_REGIONS)))
    question = ask(scene, kind, rng)
    conversation: list[Question] = []
    for following in (str(rng.choice(ONE_REGION)), kind, None):
        if question is None:
            return []
        conversation.append(question)
        if following is not None:
            known = dict(enumerate(question.objects, start=1))
            question = followup(scene, following, rng, known, previous=question.kind)
    return conversation


def converse(
    answer: Answerer, conversations: Sequence[tuple[Scene, Sequence[Question]]], first: Sequence[str]
) -> list[str]:
    """Return the last answer of each conversation, asked after the model's own answers. first: the first answers."""
    said = list(first)
    earlier: list[list[tuple[str, str]]] = [[] for _ in conversations]
    for turn in range(1, max((len(conversation) for _, conversation in conversations), default=1)):
        asked = []
        for (scene, conversation), before, text in zip(conversations, earlier, said, strict=True):
            before += [("user", conversation[turn - 1].text), ("assistant", text or "?")]
            asked.append((scene, Query(conversation[turn], conversation[turn].objects, tuple(before))))
        said = answer(asked)
    return said
