"""Turn facts into a conversation: an `Annotation` worded as a `Record`.

The wording, and which of many boxes are used, follow from (seed, epoch, source, id) alone. So a record does not depend
on the order in which records are read, or on the worker that reads it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from gpt4roi_nb.data import instruction_texts as texts
from gpt4roi_nb.data.protocol_texts import LETTERS, choice_question, vcr_opening
from gpt4roi_nb.data.record import (
    ANSWER_CHOICE,
    CAPTION,
    CATEGORY,
    CONVERSATION,
    DETECTED_DIALOGUE,
    DIALOGUE,
    EXPRESSION,
    GROUNDING,
    RATIONALE_CHOICE,
    REASONING,
    Annotation,
    Record,
    as_boxes,
    regions_of,
)
from gpt4roi_nb.prompt import listed, references, region

# Most regions of an image in one conversation, for COCO, RefCOCO/+/g, Visual Genome and Flickr30k Entities
# (`max_gt_per_img` in the authors' gpt4roi/datasets).
MAX_REGIONS = {CATEGORY: 100, EXPRESSION: 15, CAPTION: 15, GROUNDING: 150}
SHOWN = 0.5  # share of the conversations with a detector's boxes that show them (gpt4roi/datasets/det_llava.py)
Turns = list[tuple[str, str]]


def instruct(
    annotation: Annotation, seed: int = 0, *, epoch: int = 0, max_regions: int | None = None, shown: float = SHOWN
) -> Record:
    """Turn an annotation into a conversation.

    Args:
        annotation: as a parser yields it.
        seed, epoch: decide the wording, and which of many boxes are used.
        max_regions: most regions, where each has a turn or one caption names all; None is the published number,
            `MAX_REGIONS`.
        shown: how often a dialogue shows its detector's boxes, from 0 to 1; otherwise it is about the image alone.

    Returns:
        The record.

    Raises:
        ValueError: an unknown kind of annotation, or a choice that does not say which option is right.
    """
    rng = random.Random(f"{seed}/{epoch}/{annotation.source}/{annotation.id}")
    boxes = annotation.boxes
    most = MAX_REGIONS.get(annotation.kind, len(boxes)) if max_regions is None else max_regions
    if annotation.kind in _QUESTIONS:
        order = rng.sample(range(len(boxes)), min(len(boxes), most))
        boxes = boxes[order]
        turns = _one_by_one([annotation.texts[index] for index in order], _QUESTIONS[annotation.kind], rng)
    elif annotation.kind == GROUNDING:
        kept = sorted(rng.sample(range(len(boxes)), most)) if len(boxes) > most else list(range(len(boxes)))
        boxes = boxes[kept]
        turns = _grounding(annotation.texts[0], kept, rng)
    elif annotation.kind == CONVERSATION:
        turns = _dialogue(annotation.texts, 0, (), rng)
    elif annotation.kind in (DIALOGUE, DETECTED_DIALOGUE):
        names = annotation.texts[: len(boxes)] if annotation.kind == DETECTED_DIALOGUE else ()
        said = annotation.texts[len(names) :]
        if len(boxes) and rng.random() >= shown:
            boxes = as_boxes([])
        turns = _dialogue(said, len(boxes), names, rng)
    elif annotation.kind in (ANSWER_CHOICE, RATIONALE_CHOICE) and annotation.choice < 0:
        raise ValueError(f"annotation {annotation.id!r} does not say which option is right, so nothing can be learnt")
    elif annotation.kind in _WORDINGS:
        turns = _WORDINGS[annotation.kind](annotation, rng)
    else:
        raise ValueError(f"annotation {annotation.id!r} is of kind {annotation.kind!r}; it must be one of record.KINDS")
    return Record(annotation.image, boxes, tuple(turns), annotation.source, annotation.id)


def _one_by_one(answers: Sequence[str], questions: Sequence[str], rng: random.Random) -> Turns:
    turns: Turns = []
    for number, answer in enumerate(answers, 1):
        turns += [("user", rng.choice(questions).format(region=region(number))), ("assistant", answer)]
    return turns


def _grounding(caption: str, kept: Sequence[int], rng: random.Random) -> Turns:
    """A grounded caption. kept: the boxes to name, counted from 0; references to other boxes are left out."""
    numbers = {index + 1: number for number, index in enumerate(kept, 1)}

    def without_others(group: re.Match[str]) -> str:
        left = [numbers[old] for old in references(group.group()) if old in numbers]
        return f" ({listed(left)})" if left else ""

    regions = listed(range(1, len(kept) + 1))
    asked = rng.choice(texts.GROUNDING_QUESTIONS).format(regions=regions)
    return [("user", asked), ("assistant", _REFERENCES.sub(without_others, caption))]


def _dialogue(said: Sequence[str], count: int, names: Sequence[str], rng: random.Random) -> Turns:
    """The given turns, after a sentence that lists `count` regions, with their names if they have any."""
    turns = [(("user", "assistant")[index % 2], text) for index, text in enumerate(said)]
    if count:
        numbers = range(1, count + 1)
        if names:
            listing = ", ".join(f"{region(k)} may feature a {name}" for k, name in zip(numbers, names, strict=True))
            opening = rng.choice(texts.NAMED).format(regions=listing)
        else:
            opening = rng.choice(texts.DETECTED).format(regions=listed(numbers))
        turns[0] = ("user", f"{opening}\n{turns[0][1]}")
    return turns


def _reasoning(annotation: Annotation, rng: random.Random) -> Turns:
    question, answer, *rationale = annotation.texts
    every = list(range(1, len(annotation.boxes) + 1))
    if set(regions_of([question])) != set(every):
        if set(regions_of(annotation.texts)) != set(every):  # all regions of the image are listed, as in the protocol
            opening = vcr_opening(len(every))
        else:
            opening = rng.choice(texts.POINTERS).format(regions=listed(every))
        question = f"{opening} {question}"
    turns = [("user", question), ("assistant", answer)]
    for reason in rationale:
        turns += [("user", rng.choice(texts.WHY_QUESTIONS)), ("assistant", reason)]
    return turns


def _answer_choice(annotation: Annotation, rng: random.Random) -> Turns:
    question, *options = annotation.texts
    asked = choice_question(len(annotation.boxes), question, options)
    return [("user", asked), ("assistant", LETTERS[annotation.choice])]


def _rationale_choice(annotation: Annotation, rng: random.Random) -> Turns:
    question, answer, *options = annotation.texts
    asked = choice_question(len(annotation.boxes), question, options, answer)
    return [("user", asked), ("assistant", LETTERS[annotation.choice])]


_REFERENCES = re.compile(r" ?\((?:<region\d+>|, | and )+\)")  # behind a phrase of a grounded caption
_QUESTIONS = {
    CATEGORY: texts.CATEGORY_QUESTIONS,
    EXPRESSION: texts.EXPRESSION_QUESTIONS,
    CAPTION: texts.CAPTION_QUESTIONS,
}
_WORDINGS: dict[str, Callable[[Annotation, random.Random], Turns]] = {
    REASONING: _reasoning,
    ANSWER_CHOICE: _answer_choice,
    RATIONALE_CHOICE: _rationale_choice,
}
