"""Questions that published protocols ask of a region, to the letter; training files and benchmarks ask the same."""

from collections.abc import Sequence

from gpt4roi_nb.data.instruction_texts import LETTER_REQUEST, VCR_OPENING

# GPT4RoI's own, of COCO's categories.
CATEGORY_PROMPT = "What is the category of <region1>?"
# Osprey's, of the names of LVIS and PACO (`osprey/eval/lvis_paco_eval.py`).
NAME_PROMPT = f"{CATEGORY_PROMPT} Using only one word or phrase."
# Ferret's, of two names (`ferret/eval/model_lvis.py`).
CHOICE_PROMPT = "Is the object <region1> of the image a {} or a {}?"
# Osprey's, of segments (`eval_open_vocab_seg_detectron2.py`).
SEGMENT_PROMPT = "What is in <region1>? Using a short phrase."
LETTERS = ("(A)", "(B)", "(C)", "(D)")


def vcr_opening(count: int) -> str:
    """The sentence that lists `count` regions, as VCR's protocol has it."""
    return VCR_OPENING.format(regions=",".join(f"<region{number}>" for number in range(1, count + 1)))


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
    lines += [f"{asked} {LETTER_REQUEST}"]
    lines += [f"{letter} {option}" for letter, option in zip(LETTERS, options, strict=True)]
    return "\n".join(lines)
