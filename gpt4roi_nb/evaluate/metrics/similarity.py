"""What an answer that names an object is worth: SS, S-IoU and the binary choice of LVIS and PACO.

SS is the cosine of answer and name by Sentence-BERT (`sentences.similarity`), S-IoU the intersection over union of
their words; the binary choice asks which of two names fits, and one of them does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

SIGNS = re.compile(r"[.:,]")
# "not a cup, …", "no cup.": up to the next comma or full stop, or the end. Whole words only: a nose is not "no se".
_DENIED = re.compile(r"\b(?:not|no)\b[^,.]*[,.]?", re.IGNORECASE)
_BRACKETED = re.compile(r"^(.*?)\((.*?)\)(.*)$")


def clean_answer(answer: str) -> str:
    """The text after the first colon, with full stops, colons and commas as blanks."""
    return SIGNS.sub(" ", answer.partition(":")[2] if ":" in answer else answer).strip()


def clean_name(name: str) -> str:
    """A category's name with underscores and colons as blanks: `mug:handle` is "mug handle"."""
    return re.sub("[_:]", " ", name).strip()


def word_iou(answer: str, name: str) -> float:
    """Intersection over union of the two sets of lower-cased words, from 0 to 1; 0 where neither has any."""
    said, true = set(answer.lower().split()), set(name.lower().split())
    return len(said & true) / len(said | true) if said | true else 0.0


def surface_forms(name: str, synonyms: Sequence[str] = ()) -> tuple[str, ...]:
    """What counts as saying an LVIS category: its name, and its synonyms, one in brackets as both of its halves.

    `mug_(drinking_vessel)` is said by "mug" and by "drinking vessel".
    """
    forms = [name.replace("_", " ")]
    for synonym in synonyms or (name,):
        match = _BRACKETED.match(synonym)
        forms += [part.replace("_", " ") for part in (match.groups() if match else (synonym,))]
    return tuple(dict.fromkeys(form.strip().lower() for form in forms if form.strip()))


def without_denials(answer: str) -> str:
    """An answer without what it denies: "a mug, not a cup." is "a mug, "."""
    return _DENIED.sub("", answer)


def chose_right(answer: str, true: Sequence[str], false: Sequence[str]) -> bool:
    """Whether an answer chooses the true of two names: what it does not deny holds a form of it and none of the other.

    As in the reference a form is held where its letters stand, also within a longer word.

    true, false: their `surface_forms`.
    """
    said = without_denials(answer).lower()
    return any(form in said for form in true) and not any(form in said for form in false)


def distinct(name: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two categories can be told apart by their forms: none of either is part of one of the other."""
    return not any(a in b or b in a for a in name for b in other)


def draw(seed: int, item: int) -> np.random.Generator:
    """Random numbers of one item: the same in whatever order items come, and however many there are."""
    return np.random.default_rng((seed, item))
