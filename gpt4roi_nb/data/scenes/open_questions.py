"""What a newcomer asks about a scene: the whole of it, where things stand, empty places, and what it cannot tell.

`ask` draws a question of any kind, those of `questions` included. `followup` draws one about regions that were named
before, and `about_out_of_domain` one about an image that is not of this world. Answers are read off the scene.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.scenes import questions, region_wordings
from gpt4roi_nb.data.scenes.image_kinds import describe, extreme, present, variety
from gpt4roi_nb.data.scenes.place_kinds import place
from gpt4roi_nb.data.scenes.question_kinds import (
    KINDS,
    ONE_REGION,
    Draft,
    Pair,
    pick,
    plain_answer,
    tables_of,
)
from gpt4roi_nb.data.scenes.questions import FIRST_FIRST_SHARE, Question
from gpt4roi_nb.data.scenes.relation_kinds import around, between, lies_between, related, relation, shared
from gpt4roi_nb.data.scenes.scene import Scene
from gpt4roi_nb.data.scenes.spelling import as_typed
from gpt4roi_nb.data.scenes.unknown import NOT_MY_SCENE, OUT_OF_DOMAIN, UNKNOWN, unknown

OF_IMAGE = ("describe", "extreme", "present", "variety")
OF_ONE = ("around", "anything")
OF_TWO = ("relation", "between", "shared")
NOTHING = "nothing"
OPEN_KINDS: tuple[str, ...] = (*OF_IMAGE, *OF_ONE, *OF_TWO, NOTHING, UNKNOWN)
ALL_KINDS: tuple[str, ...] = (*KINDS, *OPEN_KINDS)

IMAGE_KINDS = {"describe": describe, "extreme": extreme, "present": present, "variety": variety}
SOMETHING_SHARE = 0.6  # of "between" questions are about objects with something between, if the scene allows it
OLD_REGIONS = 0.5  # share of follow-ups about two regions without a new one
# What is asked about a box without an object: mostly what it is, and sometimes what it is like, as if it were one.
ABOUT_NOTHING = {"phrase": 0.5, "anything": 0.2, "category": 0.15, "colour": 0.05, "material": 0.05, "size": 0.05}
BOX_SIDES = (0.1, 0.7)  # of a box in an image that is out of domain, as shares of its sides


def ask(scene: Scene, kind: str, rng: np.random.Generator, *, held_out: bool = False) -> Question | None:
    """Draw a question of any kind in `ALL_KINDS`; its first region is region 1.

    Args:
        scene: the scene to ask about. Its masks are not needed.
        kind: one of `KINDS` or `OPEN_KINDS`.
        rng: decides objects, boxes and wording.
        held_out: use a wording that training never sees.

    Returns:
        The question, or None if the scene has no clear one of that kind.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind in KINDS:
        return questions.ask(scene, kind, rng, held_out=held_out)
    if kind not in OPEN_KINDS:
        raise ValueError(f"kind must be one of {', '.join(ALL_KINDS)}; got {kind!r}")
    number = len(scene.objects)
    if kind in IMAGE_KINDS:
        return _question(kind, IMAGE_KINDS[kind](scene, rng, held_out), (), rng)
    if kind == NOTHING:
        return _about_place(scene, rng, held_out)
    if kind == UNKNOWN:
        objects = tuple(rng.permutation(number)[:2].tolist())
        refused = unknown(rng, held_out, tuple(f"<region{k + 1}>" for k in range(len(objects))))
        named = [k for k in range(len(objects)) if f"<region{k + 1}>" in refused.text]
        return _question(kind, refused, objects[: len(named)], rng)
    if kind in OF_ONE:
        index = int(rng.integers(number))
        return _question(kind, _of_one(scene, kind, index, "<region1>", rng, held_out), (index,), rng)
    pairs = _pairs(scene, kind, range(number))
    if not pairs:
        return None
    if kind == "between" and rng.random() < SOMETHING_SHARE:
        pairs = [(i, j) for i, j in pairs if lies_between(scene, i, j)] or pairs
    drawn = pick(rng, pairs)
    order = (0, 1) if rng.random() < FIRST_FIRST_SHARE else (1, 0)
    mentions = (f"<region{order[0] + 1}>", f"<region{order[1] + 1}>")
    draft = _of_two(scene, kind, (drawn[order[0]], drawn[order[1]]), order, mentions, rng, held_out)
    return _question(kind, draft, drawn, rng)


def _question(kind: str, draft: Draft | None, objects: tuple[int, ...], rng: np.random.Generator) -> Question | None:
    return None if draft is None else Question(kind, as_typed(rng, draft.text), draft.answer, objects, draft.target)


def _of_one(
    scene: Scene, kind: str, index: int, mention: str, rng: np.random.Generator, held_out: bool
) -> Draft | None:
    if kind == "around":
        return around(scene, index, mention, rng, held_out)
    text = pick(rng, region_wordings.ANYTHING.of(held_out)).format(a=mention)
    return Draft(text, *plain_answer(scene.objects[index], "phrase"))


def _pairs(scene: Scene, kind: str, objects: range) -> list[tuple[int, int]]:
    pairs = [(i, j) for i in objects for j in objects if i != j]
    if kind == "relation":
        return [(i, j) for i, j in pairs if related(scene, i, j)]
    if kind == "between":
        return [(i, j) for i, j in pairs if lies_between(scene, i, j) is not None]
    return pairs


def _of_two(
    scene: Scene,
    kind: str,
    pair: tuple[int, int],
    order: tuple[int, int],
    mentions: tuple[str, str],
    rng: np.random.Generator,
    held_out: bool,
) -> Draft | None:
    """A question about two objects. pair: in the order that the question names them. order: their regions, from 0."""
    first, second = (scene.objects[k] for k in pair)
    named = Pair(first, second, mentions, (f"region{order[0] + 1}", f"region{order[1] + 1}"))
    if kind == "relation":
        return relation(scene, named, rng, held_out)
    if kind == "between":
        return between(scene, named, pair, rng, held_out)
    return shared(named, rng, held_out)


def wording_about(kind: str, rng: np.random.Generator, held_out: bool) -> str:
    """Draw a plain wording of a kind in `ABOUT_NOTHING`, with `{a}` in it."""
    table = region_wordings.ANYTHING.of(held_out) if kind == "anything" else getattr(tables_of(held_out), kind.upper())
    return pick(rng, table)


def _about_place(scene: Scene, rng: np.random.Generator, held_out: bool) -> Question | None:
    found = place(scene, rng)
    if found is None:
        return None
    kind = str(rng.choice(list(ABOUT_NOTHING), p=list(ABOUT_NOTHING.values())))
    text = as_typed(rng, wording_about(kind, rng, held_out).format(a="<region1>"))
    return Question(NOTHING, text, found.answer, (), found.target, boxes=(found.box,))


def followup(
    scene: Scene, kind: str, rng: np.random.Generator, known: dict[int, int], *, held_out: bool = False
) -> Question | None:
    """Draw a later question of a conversation, of a kind in `OPEN_KINDS` or, with "it", in `ONE_REGION`.

    Args:
        scene: the scene to ask about.
        kind: the kind of question.
        rng: decides objects and wording.
        known: object index by region number, numbered from 1 without gaps; with "it" exactly one.
        held_out: use a wording that training never sees.

    Returns:
        A question that names an old region as `region 1`, `region1`, `<region1>` or, if only one is known, "it", and a
        new one, if any, as `<regionN>` with the next number. `objects` holds the old regions' objects and then the new
        one's. None if there is no clear question, and for `NOTHING`, whose box is not an object's.
    """
    regions = tuple(known[number] for number in sorted(known))
    if kind in IMAGE_KINDS:
        return _question(kind, IMAGE_KINDS[kind](scene, rng, held_out), regions, rng)
    if kind == NOTHING or not regions:
        return None
    if kind in ONE_REGION:
        if len(regions) != 1:
            return None
        text = pick(rng, region_wordings.IT[kind].of(held_out))
        return _question(kind, Draft(text, *plain_answer(scene.objects[regions[0]], kind)), regions, rng)
    number = int(rng.integers(len(regions)))
    mention = _old(rng, number + 1, len(regions))
    if kind in OF_ONE:
        return _question(kind, _of_one(scene, kind, regions[number], mention, rng, held_out), regions, rng)
    if kind == UNKNOWN:
        return _question(kind, unknown(rng, held_out, (mention,)), regions, rng)
    unseen = [k for k in range(len(scene.objects)) if k not in regions]
    fresh = bool(unseen) and (len(regions) < 2 or rng.random() >= OLD_REGIONS)
    objects = (*regions, pick(rng, unseen)) if fresh else regions
    ends = [(k, len(regions)) for k in range(len(regions))] if fresh else _pairs(scene, "", range(len(regions)))
    ends = [(k, m) for k, m in ends if kind != "relation" or related(scene, objects[k], objects[m])]
    if not ends:
        return None
    old, new = pick(rng, ends)
    order = (old, new) if rng.random() < FIRST_FIRST_SHARE else (new, old)
    one, two = (f"<region{k + 1}>" if k >= len(regions) else _old(rng, k + 1, 2) for k in order)
    draft = _of_two(scene, kind, (objects[order[0]], objects[order[1]]), order, (one, two), rng, held_out)
    return _question(kind, draft, objects, rng)


def _old(rng: np.random.Generator, number: int, known: int) -> str:
    """A name for a region that was named before."""
    names = (f"region {number}", f"region{number}", f"<region{number}>")
    return pick(rng, (*names, "it") if known == 1 else names)


def about_out_of_domain(
    scene: Scene, size: tuple[int, int], rng: np.random.Generator, *, held_out: bool = False
) -> Question:
    """Draw a question about an image that is not of this world: one that might be asked about a scene, with any boxes.

    Args:
        scene: any scene; the question is one of its own, and does not fit the image.
        size: (width, height) of the image in pixels.
        rng: decides question and boxes.
        held_out: use a wording that training never sees.

    Returns:
        The question, with its boxes in pixels of the image.
    """
    asked = None
    while asked is None:
        asked = ask(scene, pick(rng, ALL_KINDS), rng, held_out=held_out)
    boxes = tuple(_anywhere(size, rng) for _ in asked.objects or asked.boxes)
    return replace(asked, kind=OUT_OF_DOMAIN, answer=NOT_MY_SCENE, objects=(), target=OUT_OF_DOMAIN, boxes=boxes)


def _anywhere(size: tuple[int, int], rng: np.random.Generator) -> Box:
    sides = [max(1, round(side * rng.uniform(*BOX_SIDES))) for side in size]
    left, top = (int(rng.integers(whole - side + 1)) for whole, side in zip(size, sides, strict=True))
    return left, top, left + sides[0], top + sides[1]
