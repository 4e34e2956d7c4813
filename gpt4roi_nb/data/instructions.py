"""Facts into a conversation: an `Annotation` worded as a `Record`.

Which wording, and which boxes of many, follows from (seed, source, id) and the epoch alone, so a record is the same in
whatever order and by whichever worker it is read.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from gpt4roi_nb.data import instruction_texts as texts
from gpt4roi_nb.data.record import (
    ANSWER_CHOICE,
    CAPTION,
    CATEGORY,
    DIALOGUE,
    EXPRESSION,
    GROUNDING,
    RATIONALE_CHOICE,
    REASONING,
    Annotation,
    Record,
    regions_of,
)
from gpt4roi_nb.prompt import listed, region

MAX_REGIONS = 15  # of an image in one conversation, where each region has its own turn
LETTERS = ("(A)", "(B)", "(C)", "(D)")
Turns = list[tuple[str, str]]


def instruct(annotation: Annotation, seed: int = 0, *, epoch: int = 0, max_regions: int = MAX_REGIONS) -> Record:
    """The conversation that an annotation becomes.

    Args:
        annotation: what a parser has yielded.
        seed, epoch: another of either gives another wording, and another choice among many boxes.
        max_regions: at most so many turns where each region is asked about by itself.
    """
    rng = random.Random(f"{seed}/{epoch}/{annotation.source}/{annotation.id}")
    boxes = annotation.boxes
    if annotation.kind in _QUESTIONS:
        order = rng.sample(range(len(boxes)), min(len(boxes), max_regions))
        boxes = boxes[order]
        turns = _one_by_one([annotation.texts[index] for index in order], _QUESTIONS[annotation.kind], rng)
    elif annotation.kind in (ANSWER_CHOICE, RATIONALE_CHOICE) and annotation.choice < 0:
        raise ValueError(f"annotation {annotation.id!r} does not say which option is right, so nothing can be learnt")
    elif annotation.kind in _WORDINGS:
        turns = _WORDINGS[annotation.kind](annotation, rng)
    else:
        raise ValueError(
            f"annotation {annotation.id!r} is of kind {annotation.kind!r}; known are those of record.KINDS"
        )
    return Record(annotation.image, boxes, tuple(turns), annotation.source, annotation.id)


def _one_by_one(answers: Sequence[str], questions: Sequence[str], rng: random.Random) -> Turns:
    turns: Turns = []
    for number, answer in enumerate(answers, 1):
        turns += [("user", rng.choice(questions).format(region=region(number))), ("assistant", answer)]
    return turns


def _grounding(annotation: Annotation, rng: random.Random) -> Turns:
    regions = listed(range(1, len(annotation.boxes) + 1))
    return [
        ("user", rng.choice(texts.GROUNDING_QUESTIONS).format(regions=regions)),
        ("assistant", annotation.texts[0]),
    ]


def _dialogue(annotation: Annotation, rng: random.Random) -> Turns:
    turns = [(("user", "assistant")[index % 2], text) for index, text in enumerate(annotation.texts)]
    if len(annotation.boxes):
        opening = rng.choice(texts.DETECTED).format(regions=listed(range(1, len(annotation.boxes) + 1)))
        turns[0] = ("user", f"{opening}\n{turns[0][1]}")
    return turns


def _reasoning(annotation: Annotation, rng: random.Random) -> Turns:
    question, answer, *rationale = annotation.texts
    every = list(range(1, len(annotation.boxes) + 1))
    if set(regions_of([question])) != set(every):
        if set(regions_of(annotation.texts)) != set(every):  # all of the picture's are listed, as the protocol does
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


def vcr_opening(count: int) -> str:
    """The sentence that lists `count` regions, as VCR's protocol has it."""
    return texts.VCR_OPENING.format(regions=",".join(region(number) for number in range(1, count + 1)))


def choice_question(count: int, question: str, options: Sequence[str], answer: str | None = None) -> str:
    """A multiple-choice question in the form of VCR's protocol; training and evaluation ask the same.

    Args:
        count: regions of the picture, all of which are listed in front.
        question: which names regions as `<regionN>`.
        options: four answers, or four rationales.
        answer: the right answer, if the options are rationales.
    """
    lines = [vcr_opening(count)] if count else []
    lines.append(f"Question: {question}")
    if answer is not None:
        lines.append(f"Answer: {answer}")
    asked = "Which option answers the question?" if answer is None else "Which option gives the reason for the answer?"
    lines += [f"{asked} {texts.LETTER_REQUEST}"]
    lines += [f"{letter} {option}" for letter, option in zip(LETTERS, options, strict=True)]
    return "\n".join(lines)


_QUESTIONS = {
    CATEGORY: texts.CATEGORY_QUESTIONS,
    EXPRESSION: texts.EXPRESSION_QUESTIONS,
    CAPTION: texts.CAPTION_QUESTIONS,
}
_WORDINGS: dict[str, Callable[[Annotation, random.Random], Turns]] = {
    GROUNDING: _grounding,
    DIALOGUE: _dialogue,
    REASONING: _reasoning,
    ANSWER_CHOICE: _answer_choice,
    RATIONALE_CHOICE: _rationale_choice,
}
