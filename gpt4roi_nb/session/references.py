"""Turn references to regions as people write them into the one spelling that a prompt accepts: `<region1>`.

The prompt's own grammar stays strict; this module comes before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from numpy.typing import ArrayLike

from gpt4roi_nb.boxes import Box, checked_boxes
from gpt4roi_nb.prompt import check_references, check_turns, references, region

MENTION = re.compile(r"<region(\d+)>|\bregion ?(\d+)\b", re.IGNORECASE)  # as a prompt or a person writes it
_LOOSE = re.compile(r"[<\[{]\s*region[\s_-]*(\d{1,6})\s*[>\]}]", re.IGNORECASE)
_OTHERWISE = re.compile(r"\bregion(?:\s*(?:#|no\.|nr\.|number)\s*|\s{2,})(\d{1,6})\b", re.IGNORECASE)
_SEVERAL = re.compile(
    r"\b(region)s\s+(\d{1,6}(?:(?:\s*,\s*|\s*,?\s*(?:&|\b(?:and|or)\b)\s*)\d{1,6})+)\b", re.IGNORECASE
)
_IN_WORDS = re.compile(r"<region\d+>|\bregion ?(\d{1,6})\b", re.IGNORECASE)


def mentioned(match: re.Match[str]) -> int:
    """Return the number of the region that a match of `MENTION` names."""
    return int(match[1] or match[2])


def readable(text: str, numbers: Mapping[int, int] | None = None) -> str:
    """Spell every mention of a region as people read it: "region 1".

    Args:
        text: a question or an answer.
        numbers: other numbers for some of the regions.

    >>> readable("no, region1 is red and <region2> is orange")
    'no, region 1 is red and region 2 is orange'
    """
    other = numbers or {}
    return MENTION.sub(lambda match: f"region {other.get(mentioned(match), mentioned(match))}", text)


def spelled(text: str) -> str:
    """Spell a question's references so that `MENTION` finds each: in brackets `<region1>`, in words "region 1".

    >>> spelled("Is < Region_1 > left of [region 2]?")
    'Is <region1> left of <region2>?'
    >>> spelled("Are regions 1, 2 and 3 larger than region #4?")
    'Are region 1, region 2 and region 3 larger than region 4?'
    """
    text = _LOOSE.sub(lambda match: region(int(match[1])), text)
    text = _OTHERWISE.sub(lambda match: f"region {match[1]}", text)
    return _SEVERAL.sub(lambda match: re.sub(r"\d+", lambda number: f"{match[1]} {number[0]}", match[2]), text)


def read_references(text: str, known: int) -> str:
    """Spell everything in a question that means a region as a prompt expects it.

    "region 3" in words means `<region3>` if the conversation has no region 3 yet; a region that it has stays in words.

    Args:
        text: the question.
        known: how many regions the conversation has.

    >>> read_references("Is region 1 left of Region 2?", known=1)
    'Is region 1 left of <region2>?'
    """
    return in_brackets(spelled(text), lambda number: number > known)


def in_brackets(text: str, meant: Callable[[int], bool]) -> str:
    """Turn "region 1" into `<region1>`, for each number that is `meant` as a reference."""
    return _IN_WORDS.sub(lambda match: region(int(match[1])) if match[1] and meant(int(match[1])) else match[0], text)


def read_question(text: str, boxes: ArrayLike, width: int, height: int) -> tuple[str, dict[int, Box]]:
    """Read a question that begins a conversation.

    Args:
        text: the question, with references as people write them.
        boxes: (N, 4) pixel xyxy of the regions 1 to N.
        width, height: size of the image in pixels.

    Returns:
        The question with its references in the spelling of prompts, and the boxes by number.

    Raises:
        ValueError: for bad boxes, references that do not fit them, or an empty question.

    >>> read_question("What is region 1?", [(8, 8, 40, 40)], 64, 64)
    ('What is <region1>?', {1: (8.0, 8.0, 40.0, 40.0)})
    """
    text = read_references(text, 0)
    check_turns([("user", text)])
    regions = dict(enumerate(checked_boxes(boxes, width, height), 1))
    check_references(references(text), list(regions))
    return text, regions
