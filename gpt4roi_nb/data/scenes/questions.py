"""Questions about a scene of the generated world, with answers that are read off the scene.

`ask` draws one question, `compound` a question in two parts, `followup` one about regions that were named before.
`is_right` judges an answer. Regions are written `<regionN>`; the answers are short, lower-case English.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from types import ModuleType

import numpy as np

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.scenes import wordings
from gpt4roi_nb.data.scenes.question_kinds import (
    KINDS,
    NO_REGION,
    ONE_REGION,
    TWO_REGIONS,
    VALUES,
    Draft,
    Pair,
    an,
    article_for,
    both_are,
    comparable,
    count,
    one_region,
    pick,
    plain_answer,
    plural,
    same_attribute,
    stuff,
    tables_of,
    two_regions,
    value_of,
    which,
)
from gpt4roi_nb.data.scenes.scene import CATEGORIES, COLOURS, MATERIALS, MAX_OBJECTS, SIZES, Scene
from gpt4roi_nb.data.scenes.scoring import matches
from gpt4roi_nb.data.scenes.spelling import as_typed

__all__ = [
    "KINDS",
    "NO_REGION",
    "ONE_REGION",
    "TWO_REGIONS",
    "Question",
    "ask",
    "compound",
    "followup",
    "is_right",
    "vocabulary_texts",
]

MAX_REGIONS = 7  # of one conversation in the generated world
FIRST_FIRST_SHARE = 0.65  # of pairs that name the lower region number first
BOTH_SHARE = 0.25  # of compound questions that ask what both regions are
OLD_ONLY_SHARE = 0.35  # of follow-ups without a new region
OPENER_SHARE = 0.25  # of follow-ups that begin with "And", "Then", …
IT_SHARE = 0.5  # of comparisons with the only region named before that call it "it"
ELLIPSIS_SHARE = 0.4  # of follow-ups that only say "and <region2>?", where that is clear


@dataclass(frozen=True)
class Question:
    """One question about a scene.

    kind: one of `KINDS` or of `open_questions.OPEN_KINDS`, or "compound". text: what the user types, with `<region1>` …
    in it. answer: the model answer. objects: indices into scene.objects; objects[k] is region k+1. target: the deciding
    words, in order; see `is_right`. boxes: of the regions, pixel xyxy in the scene's image, if they are not those of
    objects; then `objects` is empty.
    """

    kind: str
    text: str
    answer: str
    objects: tuple[int, ...]
    target: str
    boxes: tuple[Box, ...] = ()

    def regions(self, scene: Scene) -> tuple[Box, ...]:
        """Return the box of each region, pixel xyxy in the scene's image."""
        return self.boxes or tuple(scene.objects[index].box for index in self.objects)


def _asked(kind: str, rng: np.random.Generator, draft: Draft, objects: tuple[int, ...]) -> Question:
    return Question(kind, as_typed(rng, draft.text), draft.answer, objects, draft.target)


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")


def _draw_pair(scene: Scene, kind: str, rng: np.random.Generator) -> tuple[int, int] | None:
    number = len(scene.objects)
    pairs = [(i, j) for i in range(number) for j in range(number) if i != j and comparable(scene, kind, i, j)]
    return pick(rng, pairs) if pairs else None


def _about_image(scene: Scene, kind: str, rng: np.random.Generator, words: ModuleType) -> Draft:
    return count(scene, rng, words) if kind == "count" else which(scene, rng, words)


def ask(
    scene: Scene,
    kind: str,
    rng: np.random.Generator,
    *,
    objects: tuple[int, ...] | None = None,
    held_out: bool = False,
) -> Question | None:
    """Draw a question of a kind. A two-region question names its regions in either order.

    Args:
        scene: the scene to ask about.
        kind: one of `KINDS`.
        rng: decides objects and wording.
        objects: ask about these objects, region 1 first; by default about objects drawn at random.
        held_out: use a wording that training never sees.

    Returns:
        The question, or None if the scene has no clear one of that kind (about those objects).

    Raises:
        ValueError: the kind is unknown, or `objects` are not as many as it needs.
    """
    _check_kind(kind)
    words = tables_of(held_out)
    needed = 1 if kind in ONE_REGION else 2 if kind in TWO_REGIONS else 0
    if objects is not None and (len(objects) != needed or len(set(objects)) != needed):
        raise ValueError(f"a {kind} question is about {needed} different objects; got {objects!r}")
    if needed == 0:
        return _asked(kind, rng, _about_image(scene, kind, rng, words), ())
    if needed == 1:
        (index,) = objects or (int(rng.integers(len(scene.objects))),)
        return _asked(kind, rng, one_region(scene.objects[index], kind, rng, "<region1>", words), (index,))
    drawn = objects or _draw_pair(scene, kind, rng)
    if drawn is None or not comparable(scene, kind, drawn[0], drawn[1]):
        return None
    order = (0, 1) if rng.random() < FIRST_FIRST_SHARE else (1, 0)
    one, two = (f"region{k + 1}" for k in order)
    first, second = (scene.objects[drawn[k]] for k in order)
    pair = Pair(first, second, (f"<{one}>", f"<{two}>"), (one, two))
    return _asked(kind, rng, two_regions(pair, kind, rng, words=words), tuple(drawn))


def compound(
    scene: Scene, rng: np.random.Generator, *, objects: tuple[int, int] | None = None, held_out: bool = False
) -> Question:
    """Draw a question in two parts: what a region is and whether it shares something with another, or what both are.

    "What is <region1>, and is it the same colour as <region2>?" is answered "a small red metal cone, and yes, both are
    red" or "a small red metal cone, and no, region2 is blue".

    Args:
        scene: the scene to ask about.
        rng: decides objects and wording.
        objects: ask about these two objects, region 1 first; by default about two drawn at random.
        held_out: use a wording that training never sees.

    Raises:
        ValueError: the scene has fewer than two objects.
    """
    if len(scene.objects) < 2:
        raise ValueError(f"a compound question needs two objects; the scene has {len(scene.objects)}")
    words = tables_of(held_out)
    one, two = objects or (int(k) for k in rng.choice(len(scene.objects), 2, replace=False))
    first, second = scene.objects[one], scene.objects[two]
    if rng.random() < BOTH_SHARE:
        text = pick(rng, words.COMPOUND_BOTH).format(a="<region1>", b="<region2>")
        answer = f"region1 is a {first.phrase} and region2 is a {second.phrase}"
        return _asked("compound", rng, Draft(text, answer, f"{first.phrase} {second.phrase}"), (one, two))
    attribute = same_attribute(rng, first, second)
    noun = wordings.NOUNS[attribute]
    text = pick(rng, words.COMPOUND_SAME).format(a="<region1>", b="<region2>", noun=noun)
    value = value_of(second, attribute)
    if value == value_of(first, attribute):
        tail, deciding = f"yes, {both_are(attribute, value)}", f"yes {value}"
    else:
        tail, deciding = f"no, region2 is {article_for(attribute, value)}", f"no {value}"
    draft = Draft(text, f"a {first.phrase}, and {tail}", f"{first.phrase} {deciding}")
    return _asked("compound", rng, draft, (one, two))


def followup(
    scene: Scene, kind: str, rng: np.random.Generator, known: dict[int, int], *, previous: str | None = None
) -> Question | None:
    """Draw a later question of a conversation.

    Args:
        scene: the scene to ask about.
        kind: one of `KINDS`.
        rng: decides objects and wording.
        known: object index by region number, numbered from 1 without gaps.
        previous: the kind of the question before; if it is the same one-region kind, the text may be "And <region2>?".

    Returns:
        A Question whose text names old regions as `region 1`, `region1` or `<region1>`, and a new one, if any, as
        `<regionN>` with the next number. `objects` holds the old regions' objects and then the new one's. None if
        there is no clear question of that kind.

    Raises:
        ValueError: the kind is unknown, or the known regions have gaps.
    """
    _check_kind(kind)
    if sorted(known) != list(range(1, len(known) + 1)):
        raise ValueError(f"known regions must be numbered 1, 2, … without gaps; got {sorted(known)}")
    if not known:
        return ask(scene, kind, rng)
    regions = tuple(known[number] for number in sorted(known))
    if kind in NO_REGION:
        return _asked(kind, rng, _about_image(scene, kind, rng, wordings), regions)
    unseen = [index for index in range(len(scene.objects)) if index not in regions]
    if len(regions) >= MAX_REGIONS or rng.random() < OLD_ONLY_SHARE:
        unseen = []
    objects = (*regions, pick(rng, unseen)) if unseen else regions
    if kind in TWO_REGIONS:
        return _followup_pair(scene, kind, rng, objects, len(regions))
    number = len(objects) if unseen else int(rng.integers(len(regions))) + 1
    mention = f"<region{number}>" if unseen else _old(rng, number)
    thing = scene.objects[objects[number - 1]]
    if previous == kind and rng.random() < ELLIPSIS_SHARE:
        draft = Draft(pick(rng, wordings.ELLIPSIS).format(a=mention), *plain_answer(thing, kind))
    else:
        draft = one_region(thing, kind, rng, mention)
        draft = draft._replace(text=_opened(rng, draft.text))
    return _asked(kind, rng, draft, objects)


def _old(rng: np.random.Generator, number: int) -> str:
    return pick(rng, (f"region {number}", f"region{number}", f"<region{number}>"))


def _opened(rng: np.random.Generator, text: str) -> str:
    if rng.random() < OPENER_SHARE:
        return pick(rng, wordings.OPENERS) + text[0].lower() + text[1:]
    return text


def _followup_pair(
    scene: Scene, kind: str, rng: np.random.Generator, objects: tuple[int, ...], known: int
) -> Question | None:
    """A two-region question about an old region and a new one, or about two old ones if there is no new one."""
    ends = range(known, len(objects)) if known < len(objects) else range(known)
    pairs = [(k, m) for m in ends for k in range(min(m, known)) if comparable(scene, kind, objects[k], objects[m])]
    if not pairs:
        return None
    old, new = pick(rng, pairs)
    numbers = (old, new) if rng.random() < FIRST_FIRST_SHARE else (new, old)
    first_mention, second_mention = (f"<region{k + 1}>" if k >= known else _old(rng, k + 1) for k in numbers)
    first, second = (scene.objects[objects[k]] for k in numbers)
    names = (f"region{numbers[0] + 1}", f"region{numbers[1] + 1}")
    # "it" is clear only if one region was named before
    it = kind == "same" and known == 1 and numbers == (0, 1) and rng.random() < IT_SHARE
    draft = two_regions(Pair(first, second, (first_mention, second_mention), names), kind, rng, it)
    return _asked(kind, rng, draft._replace(text=_opened(rng, draft.text)), objects)


def is_right(question: Question, answer_text: str) -> bool:
    """Tell whether an answer is right, by the question's kind and target alone; see `scoring.matches`."""
    return matches(question.kind, question.target, answer_text)


def vocabulary_texts() -> Iterator[str]:
    """Yield every wording and every form of answer at least once, for training a tokenizer."""
    mentions = [f"<region{number}>" for number in range(1, MAX_REGIONS + 1)]
    values = [value for group in VALUES.values() for value in group]
    things = [*wordings.THINGS, *(plural(value) for value in CATEGORIES)]
    nouns = list(wordings.NOUNS.values())
    fillers = max(len(values), len(things), len(nouns), len(mentions))
    tables = [table for name, table in sorted(vars(wordings).items()) if name.isupper() and isinstance(table, tuple)]
    for wording in (wording for table in tables for wording in table):
        for k in range(fillers if "{" in wording else 1):
            text = wording.format(
                a=mentions[k % MAX_REGIONS],
                b=mentions[(k + 1) % MAX_REGIONS],
                value=values[k % len(values)],
                stuff=stuff(values[k % len(values)]),
                noun=nouns[k % len(nouns)],
                things=things[k % len(things)],
            )
            yield text
            yield text.replace("colour", "color").replace("Colour", "Color")
            yield text[0].lower() + text[1:]
    for words in product(SIZES, COLOURS, MATERIALS, CATEGORIES):
        yield f"a {' '.join(words)}"
    for colour in COLOURS:
        yield ", ".join(an(f"{colour} {category}") for category in CATEGORIES) + f" and {an(colour)} thing"
    for number in range(MAX_OBJECTS + 1):
        yield str(number)
    for number in range(1, MAX_REGIONS + 1):
        yield f"region {number} region{number}"
    for attribute, group in VALUES.items():
        for value in group:
            named = article_for(attribute, value)
            yield f"yes, {both_are(attribute, value)}"
            yield f"no, region1 is {named} and region2 is {named}"
            yield f"no, it is {named}"
    yield from ("left", "right", "in front", "behind", "wood")
