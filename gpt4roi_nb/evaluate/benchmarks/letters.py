"""Questions with lettered options: which letter an answer names, and the shares that are right."""

from __future__ import annotations

import re

from gpt4roi_nb.data.instructions import LETTERS

# "(C)" anywhere is meant; a bare letter must stand alone, and "A dog" is no choice.
_BRACKETED = re.compile(r"\(\s*([A-D])\s*\)")
_BARE = re.compile(r"(?<![A-Za-z'’])([A-D])(?![A-Za-z'’])(?!\s+[a-z])")


def letter_of(answer: str) -> str | None:
    """The first option letter of an answer as `(C)`, or None where it names none."""
    found = _BRACKETED.search(answer) or _BARE.search(answer)
    return f"({found.group(1)})" if found else None


def is_right(answer: str, choice: int) -> bool:
    """Whether an answer names option number `choice`, from 0."""
    return letter_of(answer) == LETTERS[choice]
