"""What the language model is asked while it learns: conversations about the scenes of a bank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.scenes import open_questions
from gpt4roi_nb.data.scenes.open_questions import ONE_REGION, OPEN_KINDS, about_out_of_domain
from gpt4roi_nb.data.scenes.question_kinds import pick
from gpt4roi_nb.data.scenes.questions import Question, compound, followup
from gpt4roi_nb.data.scenes.scene import Scene
from gpt4roi_nb.data.scenes.spelling import casual, slip
from gpt4roi_nb.demo.choices import QA, QAR, draw_pairs
from gpt4roi_nb.demo.recipe.paraphrase import paraphrase
from gpt4roi_nb.demo.recipe.protocols import (
    PROTOCOL_KINDS,
    PROTOCOL_LETTERS,
    PROTOCOL_NAMES,
    PROTOCOL_POINTING,
    protocol_questions,
)
from gpt4roi_nb.prompt import Turns

COMPOUND = "compound"
Shares = dict[str, float]


@dataclass(frozen=True)
class Family:
    """Conversations of similar length, since the longest one of a batch sets the slot length of all.

    shares: of the kinds of the first question. rows, questions: images per batch, and conversations about each. turns:
    fewest and most. followups: shares of the kinds of later questions, if not `FOLLOWUPS`. out_of_domain: how many of
    the images are not of this world.
    """

    shares: Shares
    rows: int
    questions: int
    turns: tuple[int, int] = (1, 1)
    followups: Shares | None = None
    out_of_domain: int = 0


Mix = tuple[tuple[Family, float], ...]  # families, and the share of the batches that each one has


SHORT: Shares = {
    "category": 0.12,
    "colour": 0.08,
    "material": 0.08,
    "size": 0.06,
    "phrase": 0.08,
    "larger": 0.14,
    "left_right": 0.22,
    "front_behind": 0.22,
}
REGION_FOLLOWUPS: Shares = {**SHORT, "same": 0.25, "phrase": 0.2}
FOLLOWUPS: Shares = {**REGION_FOLLOWUPS, "count": 0.1, "which": 0.04}


@dataclass(frozen=True)
class Lesson:
    """What the language model is asked in a phase of its own, about scenes that are described in symbols."""

    families: Mix
    image_tokens: bool = False  # without them only regions can be asked about, and a step takes half the time


# Families that lessons and stages share.
CHOOSING = Family({QA: 0.5, QAR: 0.5}, 7, 5)
TALKING = Family({**SHORT, "count": 0.15, "which": 0.02, "same": 0.3}, 8, 7, (2, 3))
TALKING_OF_REGIONS = Family({**SHORT, "same": 0.25}, 10, 6, (2, 3), followups=REGION_FOLLOWUPS)
COUNTING = Family({"count": 0.9, "which": 0.1}, 8, 14)
COMPARING = Family({"same": 0.7, COMPOUND: 0.3}, 8, 12)
ORDERING = Family({"larger": 0.25, "left_right": 0.25, "front_behind": 0.35, "category": 0.15}, 8, 14)
NAMING = Family({"category": 0.35, "colour": 0.1, "material": 0.2, "size": 0.2, "phrase": 0.15}, 8, 14)
EVEN_FOLLOWUPS: Shares = {
    "category": 0.12,
    "colour": 0.12,
    "material": 0.12,
    "size": 0.12,
    "phrase": 0.2,
    "count": 0.08,
    "which": 0.02,
    "larger": 0.25,
    "left_right": 0.2,
    "front_behind": 0.2,
    "same": 0.2,
}
TALKING_ON = Family(EVEN_FOLLOWUPS, 8, 7, (3, 3), followups=EVEN_FOLLOWUPS)
PAIRS: Shares = {"larger": 0.3, "left_right": 0.25, "front_behind": 0.25, "same": 0.2}
TALKING_OF_PAIRS = Family(PAIRS, 8, 7, (3, 3), followups={**EVEN_FOLLOWUPS, **PAIRS})  # of four regions, mostly
COUNTING_MORE = Family({"count": 0.95, "which": 0.05}, 12, 8)  # of more images
ALL_FAMILIES: Mix = ((TALKING, 0.35), (COUNTING, 0.25), (CHOOSING, 0.18), (ORDERING, 0.12), (COMPARING, 0.1))
# The end of the second stage, in three parts: which region is nearer or further left, which is learnt last; then some
# of everything, so that nothing is forgotten over that, most of all numbers and third questions; and then comparisons
# with a fourth region, which only a third question can name.
FINISH_FAMILIES: Mix = ((ORDERING, 0.4), (TALKING, 0.33), (COUNTING, 0.12), (CHOOSING, 0.08), (COMPARING, 0.07))
POLISH_FAMILIES: Mix = (
    (TALKING_ON, 0.38),
    (COUNTING_MORE, 0.28),
    (NAMING, 0.14),
    (ORDERING, 0.08),
    (CHOOSING, 0.07),
    (COMPARING, 0.05),
)
TALK_FAMILIES: Mix = (
    (TALKING_OF_PAIRS, 0.4),
    (TALKING_ON, 0.2),
    (COUNTING_MORE, 0.2),
    (NAMING, 0.1),
    (CHOOSING, 0.05),
    (COMPARING, 0.05),
)
LESSONS = {
    "regions": Lesson(
        (
            (Family(SHORT, 12, 14), 0.3),
            (Family({"same": 0.7, COMPOUND: 0.3}, 12, 9), 0.15),
            (Family({QA: 0.5, QAR: 0.5}, 9, 4), 0.2),
            (TALKING_OF_REGIONS, 0.35),
        )
    ),
    # Whether two regions share a colour, a shape, a material: not learnt among other questions; alone, in 400 steps.
    "similarity": Lesson(((Family({"same": 0.85, COMPOUND: 0.15}, 6, 20), 1.0),)),
    "choices": Lesson(((Family({QA: 0.5, QAR: 0.5}, 6, 5), 0.65), (TALKING_OF_REGIONS, 0.35))),
    "symbols": Lesson(ALL_FAMILIES, image_tokens=True),
}
# What a newcomer asks, learnt by a model that knows all the above. The old families keep it from forgetting.
PLACING = Family({"around": 0.4, "between": 0.24, "relation": 0.2, "shared": 0.16}, 7, 11)
DOUBTING = Family(
    {"nothing": 0.55, "unknown": 0.2, "anything": 0.05, "phrase": 0.08, "category": 0.07, "colour": 0.05},
    8,
    11,
    out_of_domain=1,
)
OPEN_FOLLOWUPS: Shares = {
    "relation": 0.2,
    "around": 0.14,
    "shared": 0.12,
    "describe": 0.06,
    "extreme": 0.08,
    "present": 0.04,
    "unknown": 0.08,
    "phrase": 0.1,
    "colour": 0.06,
    "material": 0.06,
    "size": 0.06,
}
CHATTING = Family(
    {**SHORT, "describe": 0.15, "relation": 0.15, "unknown": 0.06}, 8, 7, (2, 3), followups=OPEN_FOLLOWUPS
)
LISTING = Family(
    {"describe": 0.3, "extreme": 0.2, "present": 0.1, "variety": 0.08, "which": 0.32}, 8, 10, out_of_domain=1
)
# An image has one list of its objects: the more images, the better.
LISTING_MANY = Family({"which": 0.4, "describe": 0.35, "extreme": 0.13, "variety": 0.12}, 16, 3, out_of_domain=1)
NAMED_BY_PROTOCOL = Family({PROTOCOL_NAMES: 1.0}, 8, 9)
CHOSEN_BY_PROTOCOL = Family({PROTOCOL_LETTERS: 0.2, PROTOCOL_POINTING: 0.8}, 7, 4)
ANSWER_FAMILIES: Mix = (
    (LISTING, 0.1),
    (LISTING_MANY, 0.1),
    (PLACING, 0.24),
    (DOUBTING, 0.07),
    (CHATTING, 0.05),
    (NAMED_BY_PROTOCOL, 0.04),
    (CHOSEN_BY_PROTOCOL, 0.17),
    (TALKING_OF_PAIRS, 0.06),
    (TALKING_ON, 0.05),
    (COUNTING_MORE, 0.06),
    (NAMING, 0.03),
    (CHOOSING, 0.02),
    (COMPARING, 0.03),
)
# At last some of everything, so that nothing is forgotten over what was learnt last.
BALANCED_FAMILIES: Mix = (
    (COUNTING_MORE, 0.14),
    (TALKING_ON, 0.19),
    (TALKING_OF_PAIRS, 0.14),
    (NAMING, 0.08),
    (COMPARING, 0.06),
    (LISTING, 0.05),
    (LISTING_MANY, 0.06),
    (PLACING, 0.1),
    (DOUBTING, 0.08),
    (CHOOSING, 0.03),
    (NAMED_BY_PROTOCOL, 0.02),
    (CHOSEN_BY_PROTOCOL, 0.07),
)
IT_SHARE = 0.3  # of the follow-ups about the one region named before that call it "it"
CASUAL_SHARE, SLIP_SHARE = 0.5, 0.08  # of the questions that are typed carelessly
RARE_TRIES = 40  # draws until one has the rare form
REPEAT_SHARE = 0.25  # of follow-ups that ask the same kind again, perhaps only as "And <region2>?"


@dataclass(frozen=True)
class Conversation:
    """turns: as `processor.prompt` takes them, answers included. objects[k]: index of the object of region k + 1.
    last: the last question. boxes: of the regions, if they are not those of objects, in pixels xyxy."""

    turns: Turns
    objects: tuple[int, ...]
    last: Question
    boxes: tuple[Box, ...] = ()

    @property
    def ends_with_a_list(self) -> bool:
        """Whether the last answer names all objects, or says whether one is there."""
        return self.last.kind in ("which", "describe")


def draw_kind(shares: Shares, rng: np.random.Generator) -> str:
    weights = np.array(list(shares.values()))
    return list(shares)[int(rng.choice(len(weights), p=weights / weights.sum()))]


def draw_family(mix: Mix, rng: np.random.Generator) -> Family:
    shares = np.array([share for _, share in mix])
    return mix[int(rng.choice(len(mix), p=shares / shares.sum()))][0]


def draw_question(scene: Scene, rng: np.random.Generator, shares: Shares) -> Question:
    """Draw a first question; if the scene offers none of the drawn kind, draw another kind."""
    while True:
        kind = draw_kind(shares, rng)
        question: Question | None
        if kind in (QA, QAR):
            return draw_pairs(scene, 1, rng)[0][(QA, QAR).index(kind)]
        if kind in PROTOCOL_KINDS:
            offered = protocol_questions(scene.seed, scene.image.shape[0])[kind]
            if not offered:
                continue
            return pick(rng, offered)
        if kind == COMPOUND:
            return compound(scene, rng)
        question = draw_form(kind, partial(open_questions.ask, scene, kind, rng), rng)
        if question is not None:
            return question


def proposes(question: Question) -> bool:
    """Whether the answer begins with yes or no."""
    return question.answer.startswith(("yes", "no"))


def lists(question: Question) -> bool:
    """Whether a question asks for a list, and not for yes or no."""
    return not proposes(question)


def is_answered_by_a_region(question: Question) -> bool:
    """Whether a region is the answer, as to "which is further left?"."""
    return question.answer.startswith("region")


def asks_for_a_difference(question: Question) -> bool:
    """Whether a question asks for a difference, as "do they differ in colour?" does."""
    return "differ" in question.text


Form = tuple[float, Callable[[Question], bool]]
# Forms of a question that are rare, but harder to learn than the others: share of the questions of a kind, at least.
RARE_FORMS: dict[str, Form] = {
    **dict.fromkeys(("category", "colour", "material", "size"), (0.4, proposes)),
    **dict.fromkeys(("larger", "left_right", "front_behind"), (0.4, is_answered_by_a_region)),
    "same": (0.25, asks_for_a_difference),
    "which": (0.75, lists),
}


def draw_form(kind: str, draw: Callable[[], Question | None], rng: np.random.Generator) -> Question | None:
    """What `draw` gives for a kind, in its rare form often enough; None if its first draw gives none."""
    question = draw()
    share, is_rare = RARE_FORMS.get(kind, (0.0, proposes))
    if question is not None and rng.random() < share:
        for _ in range(RARE_TRIES):
            if is_rare(question):
                break
            question = draw() or question
    return question


def draw_conversation(
    scene: Scene,
    turns: int,
    rng: np.random.Generator,
    shares: Shares,
    followups: Shares | None = None,
) -> Conversation:
    """A conversation of so many questions (fewer where the scene offers no clear follow-up), each with its answer.

    shares: of the kinds of the first question. followups: of the kinds of later questions, if not `FOLLOWUPS`.
    """
    question = draw_question(scene, rng, shares)
    said = [("user", question.text), ("assistant", question.answer)]
    # After "What is <region1>, and …", "And <region3>?" asks for a phrase.
    objects, previous = question.objects, "phrase" if question.kind == COMPOUND else question.kind
    followups = followups or FOLLOWUPS
    for _ in range(0 if question.boxes else turns - 1):
        kind = previous if previous in followups and rng.random() < REPEAT_SHARE else None
        kind = kind or draw_kind(followups, rng)
        known = dict(enumerate(objects, start=1))
        if kind in OPEN_KINDS or (
            kind in ONE_REGION and len(known) == 1 and "unknown" in followups and rng.random() < IT_SHARE
        ):
            later = open_questions.followup(scene, kind, rng, known)
        else:
            later = draw_form(kind, partial(followup, scene, kind, rng, known, previous=previous), rng)
        if later is None:
            continue
        said += [("user", later.text), ("assistant", later.answer)]
        objects, previous, question = later.objects, later.kind, later
    return Conversation(tuple(said), objects, question, question.boxes)


def out_of_domain_conversation(scene: Scene, size: int, rng: np.random.Generator) -> Conversation:
    """A question about an image of side `size` that is not of this world, as one might ask `scene`."""
    question = about_out_of_domain(scene, (size, size), rng)
    return Conversation((("user", question.text), ("assistant", question.answer)), (), question, question.boxes)


def careless(conversation: Conversation, rng: np.random.Generator) -> Conversation:
    """The same with its questions worded as people type them, except for multiple choice and benchmarks' questions."""
    if conversation.last.kind in (QA, QAR, *PROTOCOL_KINDS):
        return conversation
    turns = []
    for role, text in conversation.turns:
        if role == "user":
            text = paraphrase(rng, text)
            text = casual(rng, text) if rng.random() < CASUAL_SHARE else text
            text = slip(rng, text) if rng.random() < SLIP_SHARE else text
        turns.append((role, text))
    return replace(conversation, turns=tuple(turns))
