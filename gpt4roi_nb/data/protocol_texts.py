"""Questions about regions, word for word as published protocols ask them; training files and benchmarks share them."""

import re
from collections.abc import Sequence

from gpt4roi_nb.data.instruction_texts import LETTER_REQUEST, VCR_OPENING

# GPT4RoI's own, about COCO's categories.
CATEGORY_PROMPT = "What is the category of <region1>?"
# Osprey's, about the names of LVIS and PACO (`osprey/eval/lvis_paco_eval.py`).
NAME_PROMPT = f"{CATEGORY_PROMPT} Using only one word or phrase."
# Ferret's, about two names (`ferret/eval/model_lvis.py`).
CHOICE_PROMPT = "Is the object <region1> of the image a {} or a {}?"
# Osprey's, about segments (`eval_open_vocab_seg_detectron2.py`).
SEGMENT_PROMPT = "What is in <region1>? Using a short phrase."
LETTERS = ("(A)", "(B)", "(C)", "(D)")


def clean_name(name: str) -> str:
    """Replace underscores and colons in a category's name by blanks: `mug:handle` is "mug handle"."""
    return re.sub("[_:]", " ", name).strip()


def vcr_opening(count: int) -> str:
    """Return the sentence that lists `count` regions, as in VCR's protocol."""
    return VCR_OPENING.format(regions=",".join(f"<region{number}>" for number in range(1, count + 1)))


def choice_question(count: int, question: str, options: Sequence[str], answer: str | None = None) -> str:
    """Write a multiple-choice question in the form of VCR's protocol; training and evaluation ask the same.

    Args:
        count: number of regions of the image; the first line lists them all. 0 for no such line.
        question: the question, which names regions as `<regionN>`.
        options: four answers, or four rationales.
        answer: the right answer, if the options are rationales.

    Returns:
        The question with its lettered options, one per line.
    """
    lines = [vcr_opening(count)] if count else []
    lines.append(f"Question: {question}")
    if answer is not None:
        lines.append(f"Answer: {answer}")
    asked = "Which option answers the question?" if answer is None else "Which option gives the reason for the answer?"
    lines += [f"{asked} {LETTER_REQUEST}"]
    lines += [f"{letter} {option}" for letter, option in zip(LETTERS, options, strict=True)]
    return "\n".join(lines)
