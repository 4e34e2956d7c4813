"""Example questions that fit the regions on the image."""

from __future__ import annotations

from collections.abc import Sequence

# In the words that the demo checkpoint was taught; a large model answers them as well.
_NO_REGION = ("How many objects are there?", "Which objects do you see?")
_ONE_REGION = ("What is {a}?", "What colour is {a}?", "What is {a} made of?")
_TWO_REGIONS = (
    "What is {a}, and is it the same colour as {b}?",
    "Is {a} to the left or to the right of {b}?",
    "Which is larger, {a} or {b}?",
)


def example_questions(asked: Sequence[int], new: Sequence[int]) -> list[str]:
    """Questions that name each new region, as a session requires, up to two; else the regions asked about before.

    asked, new: numbers of the regions that the conversation has, and of those that were drawn since.
    """
    subjects = list(new[:2]) or list(asked[-2:])
    if len(new) == 1 and asked:
        subjects = [new[0], asked[-1]]
        names = [f"<region{number}>" for number in subjects]
        return [_ONE_REGION[0].format(a=names[0])] + [text.format(a=names[0], b=names[1]) for text in _TWO_REGIONS[:2]]
    names = [f"<region{number}>" for number in subjects]
    if len(names) == 2:
        return [text.format(a=names[0], b=names[1]) for text in _TWO_REGIONS]
    if len(names) == 1:
        return [text.format(a=names[0]) for text in _ONE_REGION]
    return list(_NO_REGION)
