"""Questions as people type them: American spelling, lower case, no closing mark, "what's", a slip of one letter."""

from __future__ import annotations

import re

import numpy as np

LEAST_LETTERS = 4  # of a word that gets a slip: shorter words would become other words
# A word that gets a slip is not followed by a digit ("region 1") and is not part of a `<region1>`.
_WORDS = re.compile(rf"(?<![<\w])[A-Za-z]{{{LEAST_LETTERS},}}(?![\w>'-])(?!\s*\d)")
_WHAT_IS = re.compile(r"\b([Ww])hat is\b")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBOURS = {
    letter: "".join(row[max(0, k - 1) : k] + row[k + 1 : k + 2]) for row in _ROWS for k, letter in enumerate(row)
}
LOWER_SHARE, SHORT_SHARE = 0.3, 0.3  # of the questions that `casual` writes in lower case, or with "what's"


def as_typed(rng: np.random.Generator, text: str) -> str:
    """Return a text as people type it: sometimes with American spelling, without a capital, without a closing mark."""
    if rng.random() < 0.4:
        text = text.replace("colour", "color").replace("Colour", "Color")
    if rng.random() < 0.3:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.2 and text[-1] in "?.":
        text = text[:-1]
    return text


def casual(rng: np.random.Generator, text: str) -> str:
    """Return a text that is sometimes all in lower case, and sometimes has "what's" for "what is"."""
    if rng.random() < SHORT_SHARE:
        text = _WHAT_IS.sub(r"\1hat's", text)
    return text.lower() if rng.random() < LOWER_SHARE else text


def slip(rng: np.random.Generator, text: str) -> str:
    """Misspell one word: swap a letter with the next, leave it out, double it, or replace it by the key beside it.

    Words of fewer than `LEAST_LETTERS` letters and references such as `<region1>` are not changed.
    """
    words = list(_WORDS.finditer(text))
    if not words:
        return text
    word = words[int(rng.integers(len(words)))]
    place = word.start() + int(rng.integers(1, len(word.group()) - 1))  # people hit the first letter
    here, after = text[place], text[place + 1]
    beside = NEIGHBOURS[here.lower()]
    written = (
        (after + here, 2),
        ("", 1),
        (here + here, 1),
        (beside[int(rng.integers(len(beside)))], 1),
    )
    letters, replaced = written[int(rng.integers(len(written)))]
    return text[:place] + letters + text[place + replaced :]
