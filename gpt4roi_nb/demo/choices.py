"""Multiple-choice questions in VCR's form about scenes of the generated world, answered by a letter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from gpt4roi_nb.data.protocol_texts import LETTERS, choice_question
from gpt4roi_nb.data.scenes.formats.claims import Choice, Item, Tokens, items
from gpt4roi_nb.data.scenes.questions import Question
from gpt4roi_nb.data.scenes.scene import Scene, make_scene
from gpt4roi_nb.prompt import listed

QA, QAR = "qa", "qar"  # asks for the answer, or for the rationale of the right answer


def sentence(tokens: Tokens) -> str:
    """Join an item's tokens as `data.vcr` does: objects as references, no blank before closing marks."""
    words = [token if isinstance(token, str) else listed([index + 1 for index in token]) for token in tokens]
    return re.sub(r" ([.,?])", r"\1", " ".join(words))


def choice_pair(scene: Scene, item: Item, rng: np.random.Generator) -> tuple[Question, Question]:
    """Return the question for the answer and the one for the rationale, each with its options in any order."""
    asked, right = sentence(item.question), sentence(item.answers[0].tokens)
    return (
        _choice(scene, QA, asked, item.answers, None, rng),
        _choice(scene, QAR, asked, item.rationales, right, rng),
    )


def _choice(
    scene: Scene, kind: str, asked: str, choices: Sequence[Choice], answer: str | None, rng: np.random.Generator
) -> Question:
    order = rng.permutation(len(choices)).tolist()
    options = [sentence(choices[k].tokens) for k in order]
    letter = LETTERS[order.index(0)]
    every = tuple(range(len(scene.objects)))
    return Question(kind, choice_question(len(every), asked, options, answer), letter, every, letter)


def draw_pairs(scene: Scene, count: int, rng: np.random.Generator) -> list[tuple[Question, Question]]:
    """Draw up to `count` items of different kinds, as `choice_pair` words them."""
    return [choice_pair(scene, item, rng) for item in items(scene, rng, count)]


def is_letter(question: Question, answer: str) -> bool:
    """Whether the first letter in brackets is the right one."""
    found = re.search(r"\([A-D]\)", answer)
    return found is not None and found.group() == question.target


def choice_texts(count: int) -> Iterator[str]:
    """Yield the questions and answers about `count` scenes, for training a tokenizer."""
    for seed in range(count):
        scene = make_scene(seed, size=64)
        for pair in draw_pairs(scene, 3, np.random.default_rng(seed)):
            for question in pair:
                yield question.text
                yield question.answer
