"""What every source becomes: `Annotation`, the facts of a file, and `Record`, a conversation about regions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpt4roi_nb.boxes import Boxes
from gpt4roi_nb.prompt import HALF_CHARACTER, REFERENCE, check_turns, references, region

# What the facts of an annotation are, which decides how `instructions.py` words them.
CATEGORY = "category"  # texts: a name a box
EXPRESSION = "expression"  # texts: a referring expression a box
CAPTION = "caption"  # texts: a sentence a box
GROUNDING = "grounding"  # texts: one caption of the whole picture that names all boxes
DIALOGUE = "dialogue"  # texts: the user's and the assistant's in turn; boxes are not named in them
CONVERSATION = "conversation"  # texts: the user's and the assistant's in turn, which name boxes
DETECTED_DIALOGUE = "detected_dialogue"  # texts: a name a box, then as in a dialogue
REASONING = "reasoning"  # texts: question, answer and perhaps rationale, which name boxes
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
    """The facts of one entry of an annotation file, without a word of instruction.

    kind: one of `KINDS`.
    image: path of the picture as the file names it, relative to the images' folder.
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

    image: path of the picture as the file names it, relative to the images' folder.
    boxes: (N, 4) float32, pixel xyxy in the original image, of regions 1 to N in order.
    turns: ("user" or "assistant", text) in turn, the user first; `<regionN>` names a region. The user names every
        region, the assistant none that the user does not.
    source, id: the data set, and the entry within it.

    Raises:
        ValueError: where the regions of the text and the boxes do not agree, or turns are out of order.
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
    """Numbers of the regions that texts name, in order, each once."""
    return list(dict.fromkeys(number for text in texts for number in references(text)))


def renumbered(text: str, numbers: Mapping[int, int]) -> str:
    """A text whose references have other numbers; all that it names are among `numbers`."""
    return REFERENCE.sub(lambda found: region(numbers[int(found.group(1))]), text)


def plain(text: str) -> str:
    """A text of a file on one line, in which nothing is a reference to a region."""
    return _BLANKS.sub(" ", harmless(text)).strip()


def harmless(text: str) -> str:
    """As `plain`, with its line breaks and blanks."""
    return (unbracketed(text) if _LIKE_A_REFERENCE.search(text) else HALF_CHARACTER.sub("\ufffd", text)).strip()


def unbracketed(text: str) -> str:
    """A text of the same length without angle brackets, so that no piece of it can become part of a reference."""
    return HALF_CHARACTER.sub("\ufffd", text.replace("<", "(").replace(">", ")"))


def as_boxes(rows: Sequence[Sequence[float]]) -> Boxes:
    """(N, 4) float32, also for none."""
    return np.asarray(rows, dtype=np.float32).reshape(-1, 4)
