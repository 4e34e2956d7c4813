"""What every source becomes: `Annotation`, the facts in a file, and `Record`, a conversation about regions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpt4roi_nb.boxes import Boxes, has_masked
from gpt4roi_nb.prompt import HALF_CHARACTER, REFERENCE, check_turns, references, region

# Kinds of annotation, which decide how `instructions.py` puts them into words.
CATEGORY = "category"  # texts: one name per box
EXPRESSION = "expression"  # texts: one referring expression per box
CAPTION = "caption"  # texts: one sentence per box
GROUNDING = "grounding"  # texts: one caption of the whole image that names all boxes
DIALOGUE = "dialogue"  # texts: the user's and the assistant's in turn, which name no boxes
CONVERSATION = "conversation"  # texts: the user's and the assistant's in turn, which name boxes
DETECTED_DIALOGUE = "detected_dialogue"  # texts: one name per box, then as in a dialogue
REASONING = "reasoning"  # texts: question, answer and possibly a rationale, which name boxes
ANSWER_CHOICE = "answer_choice"  # texts: question and options; choice: the right one
RATIONALE_CHOICE = "rationale_choice"  # texts: question, its right answer and options; choice: the right one
KINDS = (
    CATEGORY,
    EXPRESSION,
    CAPTION,
    GROUNDING,
    DIALOGUE,
    CONVERSATION,
    DETECTED_DIALOGUE,
    REASONING,
    ANSWER_CHOICE,
    RATIONALE_CHOICE,
)

_BLANKS = re.compile(r"\s+")
_LIKE_A_REFERENCE = re.compile(r"<\s*region", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Annotation:
    """The facts of one entry of an annotation file, before they are worded as an instruction.

    kind: one of `KINDS`.
    image: path of the image as the file names it, relative to the image folder.
    boxes: (N, 4) float32, pixel xyxy in the original image; region k + 1 is row k.
    texts: what `kind` says; `<regionN>` names a region.
    source: the data set, such as "refcoco+".
    id: unique within the source.
    choice: index of the right option, -1 where there are no options.
    """

    kind: str
    image: str
    boxes: Boxes
    texts: tuple[str, ...]
    source: str
    id: str
    choice: int = -1


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One conversation about regions of one image, as training reads it.

    Args:
        image: path of the image as the file names it, relative to the image folder.
        boxes: (N, 4) float32, pixel xyxy in the original image, of regions 1 to N in order.
        turns: ("user" or "assistant", text) in turn, the user first; `<regionN>` names a region. The user names every
            region, and the assistant only regions that the user names.
        source, id: the data set, and the entry in it.

    Raises:
        ValueError: the text names other regions than there are boxes, or turns are out of order.

    Example:
        >>> import numpy as np
        >>> from gpt4roi_nb.data import Record
        >>> turns = (("user", "What is <region1>?"), ("assistant", "a cup"))
        >>> record = Record("a.jpg", np.array([[10, 20, 50, 60]], np.float32), turns, "mine", "1")
        >>> record.boxes.shape
        (1, 4)
        >>> Record("a.jpg", np.zeros((0, 4), np.float32), turns, "mine", "1")
        Traceback (most recent call last):
        ValueError: record '1' of mine has 0 boxes, but its questions name regions [1] and its answers []; ...
    """

    image: str
    boxes: Boxes
    turns: tuple[tuple[str, str], ...]
    source: str
    id: str

    def __post_init__(self) -> None:
        check_turns(self.turns)
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4:
            raise ValueError(f"boxes must be of shape (N, 4), pixel xyxy, but their shape is {self.boxes.shape}")
        asked = regions_of(text for role, text in self.turns if role == "user")
        answered = regions_of(text for role, text in self.turns if role == "assistant")
        expected = set(range(1, len(self.boxes) + 1))
        if set(asked) != expected or not set(answered) <= expected:
            raise ValueError(
                f"record {self.id!r} of {self.source} has {len(self.boxes)} boxes, but its questions name regions "
                f"{sorted(asked)} and its answers {sorted(answered)}; a question must name each region from 1 to "
                f"{len(self.boxes)}, and an answer no other"
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        mine, its = ((r.image, r.turns, r.source, r.id) for r in (self, other))
        return mine == its and np.array_equal(self.boxes, other.boxes)

    def __hash__(self) -> int:
        return hash((self.image, self.turns, self.source, self.id))


def regions_of(texts: Iterable[str]) -> list[int]:
    """Return the numbers of the regions that texts name, in order, each once."""
    return list(dict.fromkeys(number for text in texts for number in references(text)))


def renumbered(text: str, numbers: Mapping[int, int]) -> str:
    """Return a text with its references renumbered. numbers: the new number of each that it names."""
    return REFERENCE.sub(lambda found: region(numbers[int(found.group(1))]), text)


def one_line(text: str) -> str:
    """Return a text from a file on one line, with nothing in it that is a reference to a region."""
    return _BLANKS.sub(" ", harmless(text)).strip()


def harmless(text: str) -> str:
    """As `one_line`, but keep line breaks and blanks."""
    return (unbracketed(text) if _LIKE_A_REFERENCE.search(text) else HALF_CHARACTER.sub("\ufffd", text)).strip()


def unbracketed(text: str) -> str:
    """Replace angle brackets, so that no part of a text can become part of a reference. The length stays."""
    return HALF_CHARACTER.sub("\ufffd", text.replace("<", "(").replace(">", ")"))


def as_boxes(rows: Sequence[Sequence[float]]) -> Boxes:
    """Return rows of four numbers as (N, 4) float32, also for N = 0. Raises ValueError if some are masked."""
    if has_masked(rows):
        raise ValueError("some of the boxes are masked; leave these out, or give boxes.data")
    return np.asarray(rows, dtype=np.float32).reshape(-1, 4)
