"""What the language model is asked while it learns: conversations about the scenes of a bank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpt4roi_nb.data.questions import ONE_REGION, Question, ask, compound, followup
from gpt4roi_nb.data.scenes import Scene
from gpt4roi_nb.prompt import Turns

COMPOUND = "compound"
Shares = dict[str, float]
# Shares of the kinds. What needs more practice is asked more often: two regions must be compared before a word is said.
SHARES: Shares = {
    "category": 0.09,
    "colour": 0.08,
    "material": 0.09,
    "size": 0.06,
    "phrase": 0.08,
    "same": 0.17,
    COMPOUND: 0.19,
    "larger": 0.05,
    "left_right": 0.05,
    "front_behind": 0.05,
    "count": 0.05,
    "which": 0.04,
}
# Before the image's tokens come in: whether two things agree is the slowest to learn, so most questions ask for it.
REGION_SHARES: Shares = {
    "category": 0.14,
    "colour": 0.13,
    "material": 0.13,
    "size": 0.08,
    "phrase": 0.04,
    "same": 0.28,
    COMPOUND: 0.18,
    "left_right": 0.02,
}
FOLLOWUP_SHARES: Shares = {**{kind: share for kind, share in SHARES.items() if kind != COMPOUND}, "phrase": 0.2}
# Questions of about one length come together, since the longest of a batch sets the room that each one takes.
LONG_KINDS = ("same", COMPOUND, "which")
# Of questions for an attribute, those that propose a value ("is it red?"): rarer among users, but harder to learn.
PROPOSING_SHARE = 0.6
REPEAT_SHARE = 0.25  # of follow-ups that ask the same kind again, perhaps only as "And <region2>?"
MOST_TURNS = 3


@dataclass(frozen=True)
class Conversation:
    """turns: as `processor.prompt` takes them, answers included. objects[k]: index of the object of region k + 1.
    last: the question of the last turn but one, which the last turn answers."""

    turns: Turns
    objects: tuple[int, ...]
    last: Question


def draw_kind(shares: Shares, rng: np.random.Generator) -> str:
    weights = np.array(list(shares.values()))
    return list(shares)[int(rng.choice(len(weights), p=weights / weights.sum()))]


def draw_family(shares: Shares, rng: np.random.Generator) -> Shares:
    """The shares of kinds of similar length, so that over many draws every kind has its own share."""
    long = {kind: share for kind, share in shares.items() if kind in LONG_KINDS}
    short = {kind: share for kind, share in shares.items() if kind not in LONG_KINDS}
    return long if rng.random() < sum(long.values()) / sum(shares.values()) else short


def draw_question(scene: Scene, rng: np.random.Generator, shares: Shares = SHARES) -> Question:
    """A first question; of the next kind drawn where the scene has none of a kind."""
    while True:
        kind = draw_kind(shares, rng)
        question = compound(scene, rng) if kind == COMPOUND else ask(scene, kind, rng)
        if kind in ONE_REGION and kind != "phrase" and rng.random() < PROPOSING_SHARE:
            while question is not None and not proposes(question):
                question = ask(scene, kind, rng)
        if question is not None:
            return question


def proposes(question: Question) -> bool:
    """Whether the answer begins with yes or no."""
    return question.answer.startswith(("yes", "no"))


def draw_conversation(scene: Scene, turns: int, rng: np.random.Generator, shares: Shares = SHARES) -> Conversation:
    """A conversation of so many questions (fewer where the scene offers no clear follow-up), each with its answer.

    shares: of the kinds of the first question.
    """
    question = draw_question(scene, rng, shares)
    said = [("user", question.text), ("assistant", question.answer)]
    # After "What is <region1>, and …", "And <region3>?" asks for a phrase.
    objects, previous = question.objects, "phrase" if question.kind == COMPOUND else question.kind
    for _ in range(turns - 1):
        kind = previous if previous in FOLLOWUP_SHARES and rng.random() < REPEAT_SHARE else None
        kind = kind or draw_kind(FOLLOWUP_SHARES, rng)
        known = dict(enumerate(objects, start=1))
        later = followup(scene, kind, rng, known, previous=previous)
        if later is None:
            continue
        said += [("user", later.text), ("assistant", later.answer)]
        objects, previous, question = later.objects, later.kind, later
    return Conversation(tuple(said), objects, question)
