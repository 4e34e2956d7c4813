"""Questions as people type them: American spelling, small letters, no closing mark, "what's", a letter that slips."""

from __future__ import annotations

import re

import numpy as np

LEAST_LETTERS = 4  # of a word in which a letter slips: shorter ones become other words
# A word with a letter that slips is not followed by a digit ("region 1"), and stands in no `<region1>`.
_WORDS = re.compile(rf"(?<![<\w])[A-Za-z]{{{LEAST_LETTERS},}}(?![\w>'-])(?!\s*\d)")
_WHAT_IS = re.compile(r"\b([Ww])hat is\b")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBOURS = {
    letter: "".join(row[max(0, k - 1) : k] + row[k + 1 : k + 2]) for row in _ROWS for k, letter in enumerate(row)
}
LOWER_SHARE, SHORT_SHARE = 0.3, 0.3  # of the questions that `casual` writes all in small letters, or with "what's"


def typed(rng: np.random.Generator, text: str) -> str:
    """The text as people type it: American spelling, no capital, no closing mark, each now and then."""
    if rng.random() < 0.4:
        text = text.replace("colour", "color").replace("Colour", "Color")
    if rng.random() < 0.3:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.2 and text[-1] in "?.":
        text = text[:-1]
    return text


def casual(rng: np.random.Generator, text: str) -> str:
    """The text in small letters throughout, and with "what's" for "what is", each now and then."""
    if rng.random() < SHORT_SHARE:
        text = _WHAT_IS.sub(r"\1hat's", text)
    return text.lower() if rng.random() < LOWER_SHARE else text


def slip(rng: np.random.Generator, text: str) -> str:
    """The text with one letter of one word swapped with the next, left out, doubled, or that of the key beside it.

    Words of fewer than `LEAST_LETTERS` letters and references such as `<region1>` stay; a text without others, too.
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
