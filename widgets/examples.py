"""Example questions that fit the regions on the image."""

from __future__ import annotations

from collections.abc import Sequence

# Worded as in the demo checkpoint's training; a large model answers them as well. The first two examples come from
# GOOD: about regions it answers each of them right on at least 0.9 of fresh scenes; about the whole image, where it is
# weaker, these two on at least 0.85 (tests/demo/test_checkpoint.py). It describes three images in four rightly.
GOOD_OF_IMAGE = ("How many objects are there?", "How many things are on the table?")
MORE_OF_IMAGE = (
    "Describe the image.",
    "Count the objects.",
    "How many large objects are there?",
    "How many small objects are there?",
)
GOOD_OF_ONE = (
    "What is {a}?",
    "What colour is {a}?",
    "What is {a} made of?",
    "What shape is {a}?",
    "Is {a} small or large?",
)
GOOD_OF_TWO = (
    "Are {a} and {b} the same colour?",
    "What is {a}, and is it the same colour as {b}?",
    "Are {a} and {b} the same shape?",
    "Is {a} to the left or to the right of {b}?",
    "Are {a} and {b} made of the same material?",
)
MORE_OF_TWO = ("Which is larger, {a} or {b}?", "Is {a} in front of or behind {b}?", "What are {a} and {b}?")


def example_questions(asked: Sequence[int], new: Sequence[int], turn: int = 0) -> list[str]:
    """Make three example questions.

    They name each new region, as a session requires, up to two; without new regions, those that were asked about.

    Args:
        asked: numbers of the regions in the conversation.
        new: numbers of the regions drawn since.
        turn: another number gives other questions.
    """
    subjects = list(new[:2]) or list(asked[-2:])
    if len(new) == 1 and asked:
        subjects = [new[0], asked[-1]]
    names = [f"<region{number}>" for number in subjects]
    if not names:
        return [*GOOD_OF_IMAGE, _in_turn(MORE_OF_IMAGE, turn)]
    if len(names) == 1:
        chosen = [_in_turn(GOOD_OF_ONE, 3 * turn + place) for place in range(3)]
    elif len(new) == 1:
        chosen = [_in_turn(GOOD_OF_ONE, turn), _in_turn(GOOD_OF_TWO, turn), _in_turn(MORE_OF_TWO, turn)]
    else:
        chosen = [_in_turn(GOOD_OF_TWO, 2 * turn + place) for place in range(2)] + [_in_turn(MORE_OF_TWO, turn)]
    return [text.format(a=names[0], b=names[-1]) for text in chosen]


def example_tasks(tasks: Sequence[str], number: int) -> list[str]:
    """Return the tasks of a model that takes no free question, about the region of this number."""
    return [task.replace("<region1>", f"<region{number}>") for task in tasks]


def _in_turn(texts: Sequence[str], place: int) -> str:
    return texts[place % len(texts)]
