"""Score answers to questions of `open_questions` by their targets alone.

Each rule reads the whole answer: all deciding words must be there, and no others of their sort.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from gpt4roi_nb.data.scenes.question_kinds import STUFF, VALUES, plural
from gpt4roi_nb.data.scenes.scene import CATEGORIES, COLOURS
from gpt4roi_nb.data.scenes.unknown import DO_NOT_KNOW, NOT_MY_SCENE, ONLY_THE_TABLE, OUT_OF_DOMAIN

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NORMAL = {
    **{noun: adjective for adjective, noun in STUFF.items()},
    **{plural(value): value for value in CATEGORIES},
    **{word: str(number) for number, word in enumerate(_NUMBERS)},
    "big": "large",
    "color": "colour",
    "kind": "shape",
    "category": "shape",
}
_VALUES = frozenset(value for values in VALUES.values() for value in values)
_ATTRIBUTES = frozenset(("colour", "material", "size", "shape"))
_DIRECTIONS = {"left": "left", "right": "right", "front": "front", "behind": "behind"}
_NAMES = frozenset(f"region{number}" for number in range(1, 100))
_VERDICTS = frozenset(("yes", "no"))
_EMPTY = frozenset(("nothing", "empty"))
_SURFACES = ("wall", "table")
# What a description may say besides numbers and categories; "in all" and "objects" belong to a total.
_FILLERS = frozenset(
    [
        "and",
        "on",
        "in",
        "the",
        "table",
        "there",
        "are",
        "is",
        "i",
        "see",
        "it",
        "stand",
        "stands",
        "shows",
        "show",
        "image",
        "picture",
        "of",
        "with",
        "all",
    ]
)


def words_of(text: str) -> list[str]:
    """Return the words of an answer in lower case, with plurals and synonyms replaced by the targets' words."""
    found = re.findall(r"[a-z0-9]+", re.sub(r"region\s+(\d)", r"region\1", text.lower()))
    return [_NORMAL.get(word, word) for word in found]


def _pairs(words: list[str]) -> list[str] | None:
    """ "colour category" of each object named, sorted; None if these words do not come in pairs."""
    named = [word for word in words if word in COLOURS or word in CATEGORIES]
    if any((word in COLOURS) == bool(place % 2) for place, word in enumerate(named)) or len(named) % 2:
        return None
    return sorted(" ".join(named[k : k + 2]) for k in range(0, len(named), 2))


def _counts(words: list[str]) -> tuple[Counter[str], int | None] | None:
    """The number of each category in an answer, and the total if it has one; None if it says anything else."""
    counts: Counter[str] = Counter()
    total, pending = None, None
    for word in words:
        if word.isdigit() or word in ("a", "an"):
            if pending is not None:
                return None
            pending = int(word) if word.isdigit() else 1
        elif word in CATEGORIES:
            counts[word] += 1 if pending is None else pending
            pending = None
        elif word in ("objects", "object", "things", "thing"):
            total, pending = pending, None
        elif word in _FILLERS:
            pending = None if word in ("table", "wall") else pending
        else:
            return None
    return None if pending is not None else (counts, total)


def describes(target: str, text: str) -> bool:
    """Accept each object once by colour and category, or every kind of object with its number; no other word that could
    be wrong. A total must be right."""
    words = words_of(text)
    if set(COLOURS) & set(words):
        if _pairs(words) != _pairs(target.split()):
            return False
        words = [word for word in words if word not in COLOURS]
    found, right = _counts(words), Counter(target.split()[1::2])
    return found is not None and found[0] == right and found[1] in (None, right.total())


def names_object(target: str, text: str) -> bool:
    """Accept one object by colour and category; other attributes, if named, must be right. target: its phrase."""
    _, colour, _, category = wanted = target.split()
    words = words_of(text)
    found = [word for word in words if word in _VALUES]
    return (
        {colour, category} <= set(found) <= set(wanted)
        and len(found) == len(set(found))
        and not _refuses(words)
        and "no" not in words
    )


def lists_objects(target: str, text: str) -> bool:
    """Accept each of the objects once, by colour and category, in any order; or "nothing" and no object."""
    words = words_of(text)
    if target == "nothing":
        return "nothing" in words and not _VALUES & set(words)
    pairs = _pairs(words)
    return pairs is not None and " ".join(pairs) == target and not _refuses(words)


def says_values(target: str, text: str) -> bool:
    """Accept each of the values once, in any order, and no others."""
    return sorted(word for word in words_of(text) if word in _VALUES) == sorted(target.split())


def says_verdict(target: str, text: str) -> bool:
    """Accept exactly one yes or no, the right one."""
    return [word for word in words_of(text) if word in _VERDICTS] == [target]


def says_direction(target: str, text: str) -> bool:
    """Accept each direction of the target once; a region, if named, must be the one they are seen from."""
    words = words_of(text)
    *wanted, name = target.split()
    named = {word for word in words if word in _NAMES}
    return sorted(word for word in words if word in _DIRECTIONS) == sorted(wanted) and named <= {name}


def says_shared(target: str, text: str) -> bool:
    """Accept the values that two objects share; or, after "differ" in the target, the attributes that differ."""
    words = words_of(text)
    first, *nouns = target.split()
    if first != "differ":
        return lists_values_or_nothing(target, words)
    if not nouns:
        return not _ATTRIBUTES & set(words) and ("nothing" in words or "not" in words)
    return sorted(word for word in words if word in _ATTRIBUTES) == sorted(nouns) and not _VALUES & set(words)


def lists_values_or_nothing(target: str, words: list[str]) -> bool:
    """Accept each value of the target once; or "nothing" and no value."""
    found = sorted(word for word in words if word in _VALUES)
    return ("nothing" in words and not found) if target == "nothing" else found == sorted(target.split())


def says_place(target: str, text: str) -> bool:
    """Accept what a box without a whole object shows: bare surfaces, part of an object, or two objects."""
    words = words_of(text)
    values = [word for word in words if word in _VALUES]
    first, *rest = target.split()
    if first == "part":
        return "part" in words and rest[-1] in values and set(values) <= set(rest) and len(values) == len(set(values))
    if first == "two":
        pairs = _pairs(words)
        return "2" in words and pairs is not None and " ".join(pairs) == " ".join(rest)
    return bool(_EMPTY & set(words)) and [word for word in _SURFACES if word in words] == target.split() and not values


def says_unknown(text: str) -> bool:
    """Whether an answer is one of the forms that decline a question."""
    return words_of(text) in (words_of(DO_NOT_KNOW), words_of(ONLY_THE_TABLE))


def says_out_of_domain(text: str) -> bool:
    """Whether an answer says that the image is not of this world."""
    return words_of(text) == words_of(NOT_MY_SCENE)


def says_nothing_there(text: str) -> bool:
    """Whether an answer says that a box holds no whole object, or more than one."""
    words = words_of(text)
    return bool(_EMPTY & set(words)) or "part" in words or words[:1] == ["2"]


def _refuses(words: list[str]) -> bool:
    return bool(_EMPTY & set(words)) or "not" in words or "part" in words


RULES: dict[str, Callable[[str, str], bool]] = {
    "describe": describes,
    "extreme": names_object,
    "present": says_verdict,
    "variety": says_values,
    "around": lists_objects,
    "anything": lambda target, text: names_object(target, text) and says_values(target, text),
    "relation": says_direction,
    "between": lists_objects,
    "shared": says_shared,
    "nothing": says_place,
    "unknown": lambda target, text: says_unknown(text),
    OUT_OF_DOMAIN: lambda target, text: says_out_of_domain(text),
}
