"""Score answers to questions about the generated world."""

import re

from gpt4roi_nb.data.scenes.open_scoring import RULES
from gpt4roi_nb.data.scenes.question_kinds import STUFF, VALUES, plural
from gpt4roi_nb.data.scenes.scene import CATEGORIES, COLOURS

_SYNONYMS = {
    **{noun: adjective for adjective, noun in STUFF.items()},
    **{plural(value): value for value in CATEGORIES},
    "big": "large",
}
_ATTRIBUTE_WORDS = frozenset(value for values in VALUES.values() for value in values)
_VERDICTS = frozenset(("yes", "no"))
_NUMBERS = frozenset(str(number) for number in range(100))
_NAMES = frozenset(f"region{number}" for number in range(1, 100))
_DECIDING: dict[str, frozenset[str]] = {
    **{kind: frozenset(VALUES[kind]) | _VERDICTS for kind in VALUES},
    "phrase": _ATTRIBUTE_WORDS | _VERDICTS,
    "same": _ATTRIBUTE_WORDS | _VERDICTS,
    "compound": _ATTRIBUTE_WORDS | _VERDICTS,
    "larger": _NAMES | _VERDICTS,
    "left_right": _NAMES | _VERDICTS | {"left", "right"},
    "front_behind": _NAMES | _VERDICTS | {"front", "behind"},
    "count": _NUMBERS,
    "which": frozenset((*COLOURS, *CATEGORIES)) | _VERDICTS,
}


def deciding_words(kind: str, text: str) -> list[str]:
    """Return the words of an answer that decide for a kind of question, in order and normalised."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"region\s+(\d)", r"region\1", text.lower()))
    normal = (_SYNONYMS.get(word, word) for word in words)
    return [word for word in normal if word in _DECIDING[kind]]


def matches(kind: str, target: str, answer_text: str) -> bool:
    """Tell whether an answer is right: its deciding words are exactly those of the target, in order.

    The deciding words depend on the kind of question:

    - category, colour, material, size: the values of that attribute and yes/no. So "it is a red cone" answers a colour
      question, and "red or blue" does not.
    - phrase, same, compound: all attribute words and yes/no.
    - ordered pairs: region names, yes/no and the two directions.
    - count: numbers.
    - a list of what there is: each object once by colour and category, in any order.

    Case, punctuation, articles, plurals, "wood" for "wooden" and other words do not matter. Kinds of `open_questions`
    have rules of their own.

    Args:
        kind: of the question.
        target: the question's `target`.
        answer_text: the answer.
    """
    if kind in RULES:
        return RULES[kind](target, answer_text)
    found = deciding_words(kind, answer_text)
    wanted = target.split()
    if kind == "which" and wanted[0] not in _VERDICTS:
        pairs = [" ".join(found[k : k + 2]) for k in range(0, len(found), 2)]
        return " ".join(sorted(pairs)) == target
    return found == wanted
