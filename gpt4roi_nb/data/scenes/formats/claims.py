"""Multiple-choice items about a scene, in VCR's form: question, four answers, four rationales, one of each right.

Each choice keeps its claims beside its words, so that they can be checked against the scene: the claims of the right
choice are all true, and every wrong choice has at least one false claim. A wrong rationale agrees with the right answer
and is as plausible; only the image tells it from the right one.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from gpt4roi_nb.data.scenes.formats.expressions import ATTRIBUTES, OPPOSITE, stands
from gpt4roi_nb.data.scenes.question_kinds import (
    VALUES,
    an,
    comparable,
    pick,
    plural,
    stuff,
    value_of,
    value_words,
)
from gpt4roi_nb.data.scenes.scene import Scene

CHOICES = 4
SEEN_SHARE = 0.7  # of wrong values that another object of the scene has

Token = str | tuple[int, ...]  # a word, or the indices of the objects meant
Tokens = tuple[Token, ...]


class Claim(NamedTuple):
    """A statement about object `subject`: an attribute and its value; a side, and the object on that side of which it
    stands; or "besides", and how many other objects there are."""

    subject: int
    what: str
    value: str | int


class Choice(NamedTuple):
    """An answer or a rationale."""

    tokens: Tokens
    claims: tuple[Claim, ...]


class Item(NamedTuple):
    """A question with its choices, the right ones first."""

    question: Tokens
    answers: tuple[Choice, ...]
    rationales: tuple[Choice, ...]


def said(text: str, *objects: int | tuple[int, ...]) -> Tokens:
    """Split a text into tokens; `{0}`, `{1}` … stand for the given objects."""
    tokens: list[Token] = []
    for word in text.split():
        if word.startswith("{"):
            meant = objects[int(word[1:-1])]
            tokens.append(meant if isinstance(meant, tuple) else (meant,))
        else:
            tokens.append(word)
    return tuple(tokens)


Values = dict[str, str]


def _own(scene: Scene, index: int) -> Values:
    return {attribute: value_of(scene.objects[index], attribute) for attribute in ATTRIBUTES}


def _phrase(values: Values) -> str:
    return " ".join(values[attribute] for attribute in ATTRIBUTES)


def _claims(index: int, values: Values, attributes: Iterable[str] = ATTRIBUTES) -> tuple[Claim, ...]:
    return tuple(Claim(index, attribute, values[attribute]) for attribute in attributes)


def _wrong_values(scene: Scene, index: int, attribute: str, rng: np.random.Generator, count: int = 1) -> list[str]:
    """Different values that the object does not have, those of other objects first (sometimes in any order)."""
    own = value_of(scene.objects[index], attribute)
    wrong = [value for value in VALUES[attribute] if value != own]
    seen = {value_of(thing, attribute) for thing in scene.objects} if rng.random() < SEEN_SHARE else set()
    shuffled = [wrong[k] for k in rng.permutation(len(wrong)).tolist()]
    return sorted(shuffled, key=lambda value: value not in seen)[:count]


SQUARE = ((False, False), (True, False), (False, True), (True, True))


def _are(
    scene: Scene, indices: list[int], kept: list[set[str]], rng: np.random.Generator, frame: str
) -> tuple[Choice, ...]:
    """Four choices that describe each object completely: each of two values is right or wrong.

    So all choices are equally like one another, and only the image tells which is right. kept: attributes of each
    object that stay right. frame: has `{0}` for the first object and `<0>` for its description.
    """
    free = [(k, attribute) for k in range(len(indices)) for attribute in ATTRIBUTES if attribute not in kept[k]]
    changed = [free[k] for k in rng.choice(len(free), 2, replace=False).tolist()]
    wrong = [_wrong_values(scene, indices[k], attribute, rng)[0] for k, attribute in changed]
    choices = []
    for changes in SQUARE:
        values = [_own(scene, index) for index in indices]
        for (k, attribute), value, is_changed in zip(changed, wrong, changes, strict=True):
            if is_changed:
                values[k][attribute] = value
        text = frame
        for k, of_one in enumerate(values):
            text = text.replace(f"<{k}>", an(_phrase(of_one)))
        claims = tuple(claim for k, index in enumerate(indices) for claim in _claims(index, values[k]))
        choices.append(Choice(said(text, *indices), claims))
    return tuple(choices)


BOTH = ("{0} is <0> and {1} is <1> .", "I see that {0} is <0> , while {1} is <1> .")
SIDE_WORDS = {"left": "to the left", "right": "to the right", "front": "in front", "back": "behind"}


def _sides(scene: Scene, one: int, other: int) -> tuple[Choice, ...] | None:
    """Where an object stands, seen from another; None if that is not clear."""
    if not (comparable(scene, "left_right", one, other) and comparable(scene, "front_behind", one, other)):
        return None
    side = "left" if stands(scene, one, "left", other) else "right"
    depth = "front" if stands(scene, one, "front", other) else "back"
    choices = []
    for across, away in (
        (side, depth),
        (OPPOSITE[side], depth),
        (side, OPPOSITE[depth]),
        (OPPOSITE[side], OPPOSITE[depth]),
    ):
        tail = "in front of {1}" if away == "front" else "behind {1}"
        text = f"{{0}} is {SIDE_WORDS[across]} of {{1}} and {tail} ."
        choices.append(Choice(said(text, one, other), (Claim(one, across, other), Claim(one, away, other))))
    return tuple(choices)


def what(scene: Scene, one: int, other: int, rng: np.random.Generator) -> Item | None:
    """Ask what something is; the rationales say where it stands."""
    sides = _sides(scene, one, other)
    if sides is None:
        return None
    question = pick(rng, ("What is {0} ?", "What do you see at {0} ?", "What kind of thing is {0} ?"))
    return Item(said(question, one), _are(scene, [one], [set()], rng, "{0} is <0> ."), sides)


def where(scene: Scene, one: int, other: int, rng: np.random.Generator) -> Item | None:
    """Ask where something stands; the rationales say what the two objects are."""
    sides = _sides(scene, one, other)
    if sides is None:
        return None
    question = pick(
        rng, ("Where is {0} , seen from {1} ?", "How does {0} stand to {1} ?", "Where does {0} stand , from {1} ?")
    )
    return Item(said(question, one, other), sides, _are(scene, [one, other], [set(), set()], rng, pick(rng, BOTH)))


def attribute(scene: Scene, one: int, other: int, rng: np.random.Generator) -> Item | None:
    """Ask for the colour of something; the rationales describe this object, which is the only one cited."""
    values = [scene.objects[one].colour, *_wrong_values(scene, one, "colour", rng, CHOICES - 1)]
    answers = tuple(Choice(said(f"{{0}} is {value} .", one), (Claim(one, "colour", value),)) for value in values)
    question = pick(rng, ("What colour is {0} ?", "Which colour does {0} have ?", "How is {0} painted ?"))
    return Item(said(question, one), answers, _are(scene, [one], [{"colour"}], rng, "{0} is <0> ."))


def same(scene: Scene, one: int, other: int, rng: np.random.Generator) -> Item | None:
    """Ask whether two things share colour, material or category; the rationales describe both."""
    shared = pick(rng, ("colour", "material", "category"))
    mine, yours = (value_of(scene.objects[k], shared) for k in (one, other))
    if mine == yours:
        (yours,) = _wrong_values(scene, one, shared, rng)
    right = value_of(scene.objects[other], shared)
    choices = []
    for a, b in ((mine, mine), (yours, yours), (mine, yours), (yours, mine)):
        claims = (Claim(one, shared, a), Claim(other, shared, b))
        if a == b:
            text = f"Yes , {{0}} are both {plural(a) if shared == 'category' else stuff(a)} ."
            choices.append(Choice(said(text, (one, other)), claims))
        else:
            first, second = (value_words(shared, v) for v in (a, b))
            choices.append(Choice(said(f"No , {{0}} is {first} and {{1}} is {second} .", one, other), claims))
    choices.sort(key=lambda choice: (choice.claims[0].value, choice.claims[1].value) != (mine, right))
    noun = {"colour": "the same colour", "material": "the same material", "category": "the same shape"}[shared]
    question = pick(rng, (f"Do {{0}} have {noun} ?", f"Are {{0}} of {noun} ?"))
    rationales = _are(scene, [one, other], [{shared}, {shared}], rng, pick(rng, BOTH))
    return Item(said(question, (one, other)), tuple(choices), rationales)


def larger(scene: Scene, one: int, other: int, rng: np.random.Generator) -> Item | None:
    """Ask which of two things is larger; the rationales describe both."""
    if not comparable(scene, "larger", one, other):
        return None
    named = ("colour", "category")
    winner, loser = (one, other) if scene.objects[one].size == "large" else (other, one)

    answers = []
    for index in (winner, loser):
        values = _own(scene, index)
        wrong = pick(rng, named)
        for value in (values[wrong], *_wrong_values(scene, index, wrong, rng)):
            values[wrong] = value
            text = f"{{0}} , the {values['colour']} {values['category']} , is larger ."
            claims = (Claim(index, "size", "large"), *_claims(index, values, named))
            answers.append(Choice(said(text, index), claims))
    question = pick(rng, ("Which is larger , {0} or {1} ?", "Which of {2} is the larger one ?"))
    kept = [{"size", *(named if index == winner else ())} for index in (one, other)]
    rationales = _are(scene, [one, other], kept, rng, pick(rng, BOTH))
    return Item(said(question, one, other, (one, other)), tuple(answers), rationales)


def besides(scene: Scene, one: int, other: int, rng: np.random.Generator) -> Item | None:
    """Ask how many other things there are: numbers in the text that name no object."""
    number = len(scene.objects) - 1
    wrong = rng.permutation([k for k in range(max(0, number - 2), number + 4) if k != number]).tolist()[: CHOICES - 1]
    answers = tuple(
        Choice(said(f"I count {k} besides {{0}} .", one), (Claim(one, "besides", k),)) for k in (number, *wrong)
    )
    question = pick(rng, ("How many things are there besides {0} ?", "How many more things than {0} do you see ?"))
    frame = f"Besides {{0}} , <0> , there are {number} , and {{1}} , <1> , is 1 of them ."
    return Item(said(question, one), answers, _are(scene, [one, other], [set(), set()], rng, frame))


KINDS = (what, where, attribute, same, larger, besides)


def items(scene: Scene, rng: np.random.Generator, count: int) -> list[Item]:
    """Draw up to `count` items of different kinds about a scene with two objects or more."""
    found = []
    for kind in rng.permutation(len(KINDS)).tolist():
        one, other = (int(k) for k in rng.choice(len(scene.objects), 2, replace=False))
        item = KINDS[kind](scene, one, other, rng)
        if item is not None:
            found.append(item)
        if len(found) == count:
            break
    return found
