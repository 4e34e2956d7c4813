"""Classify wrong answers by rules on words: no model, no judgement, the same in every run.

The rules look only at words, and each wrong answer gets the first kind that fits:

1. `format`: no words; only the question; a prompt mark (`<…>`) that is not a region; the same words over and over; or,
   if options were offered, none of them.
2. `wrong region`: the right answer for another region of the same image; or the right answer except for the regions
   that it names; or, if regions were offered to point at, another one.
3. `wrong count`, `wrong yes or no`: answer and target are both numbers, or both begin with yes or no.
4. `wrong choice`: another of the offered options.
5. `wrong attribute`: the right thing with other qualities, or without one of them.
6. `hallucination`: a description names a thing that the benchmark knows from other images, but from no region of this
   one; or a short answer names a thing that the benchmark does not know at all.
7. `wrong category`: another thing, or none of the right ones.
8. `other`: none of the above.

The *thing* of a phrase is the last word of its noun phrase ("a small red wooden star": star). A benchmark knows the
things of its short targets. If a mapping chose classes for the answers (region classification), the class stands for
the answer. These rules do not detect synonyms ("couch", "sofa") or wrong targets.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpt4roi_nb.data.protocol_texts import LETTERS
from gpt4roi_nb.evaluate.benchmarks.letters import letter_of

if TYPE_CHECKING:
    from pandas import DataFrame

FORMAT, WRONG_REGION, WRONG_COUNT, WRONG_YES_NO, WRONG_CHOICE = (
    "format", "wrong region", "wrong count", "wrong yes or no", "wrong choice"
)  # fmt: skip
WRONG_ATTRIBUTE, HALLUCINATION, WRONG_CATEGORY, OTHER = (
    "wrong attribute", "hallucination", "wrong category", "other"
)  # fmt: skip
ERROR_KINDS = (
    FORMAT, WRONG_REGION, WRONG_COUNT, WRONG_YES_NO, WRONG_CHOICE, WRONG_ATTRIBUTE, HALLUCINATION, WRONG_CATEGORY, OTHER
)  # fmt: skip
RIGHT, NOT_JUDGED = "right", "not judged"

# A longer text is a description, which no single thing stands for.
MAX_NAME_WORDS = 8
# Words repeated this often mean that the model no longer stops.
REPEATS = 4

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_REGION = re.compile(r"<region\d+>|\bregion ?\d+\b|\[\w+ ?\d+\]", re.IGNORECASE)
_MARK = re.compile(r"</?[a-z_]+\d*>", re.IGNORECASE)
_ARTICLES = frozenset(["a", "an", "the", "this", "that", "these", "those", "its", "their", "his", "her", "it", "is"])
# What follows one of these describes the thing before it: "a cup on the table".
_AFTER_THE_THING = frozenset(
    [
        "of",
        "on",
        "in",
        "at",
        "with",
        "under",
        "behind",
        "near",
        "by",
        "to",
        "from",
        "that",
        "which",
        "who",
        "and",
        "next",
        "beside",
        "between",
    ]
)
_NUMBERS = {
    word: str(n)
    for n, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])
}


def error_kinds(predictions: DataFrame) -> list[str]:
    """Classify the errors of a table of predictions; the module's docstring lists the rules.

    Args:
        predictions: the table of a `Result`.

    Returns:
        One of `ERROR_KINDS` for each wrong prediction, "right" or "not judged" for the others, in the table's order.

    >>> import pandas as pd
    >>> from gpt4roi_nb.failures import error_kinds
    >>> answers = ["a red star", "a blue star", "a green ring", "", "red red red red"]
    >>> table = pd.DataFrame({"answer": answers, "target": "a red star", "question": "What is <region1>?"})
    >>> table["correct"] = table["answer"] == table["target"]
    >>> table["image"], table["region"], table["boxes"] = "scene.png", 1, [[(0, 0, 9, 9)]] * len(table)
    >>> error_kinds(table)
    ['right', 'wrong attribute', 'hallucination', 'format', 'format']
    """
    rows = predictions.to_dict("records")
    known = _Known.of(rows)
    return [error_kind(row, known) for row in rows]


@dataclass
class _Known:
    """What a benchmark knows.

    Attributes:
        things: of all its short targets.
        by_image: image → words of its targets.
        targets: image → (box, words) of its targets.
    """

    things: set[str] = field(default_factory=set)
    by_image: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    targets: dict[str, list[tuple[tuple[float, ...], frozenset[str]]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    @classmethod
    def of(cls, rows: Iterable[dict[str, Any]]) -> _Known:
        known = cls()
        for row in rows:
            image, target = str(row["image"]), str(row["target"] or "")
            words = _words(target)
            known.by_image[image].update(_singular(word) for word in words)
            if words and len(words) <= MAX_NAME_WORDS:
                known.things.add(_thing(words))
            if words:
                known.targets[image].append((_box(row), frozenset(words)))
        known.things -= {"yes", "no", ""} | set(_NUMBERS) | set(_NUMBERS.values())
        return known


def error_kind(row: dict[str, Any], known: _Known) -> str:
    """Return the kind of one prediction; the module's docstring lists the rules."""
    correct = row["correct"]
    if correct is None or correct != correct:  # a missing value is None or NaN
        return NOT_JUDGED
    if correct:
        return RIGHT
    options = _options(row)
    said, target = str(row["answer"] or ""), str(row["target"] or "")
    if _is_format(said, str(row["question"] or ""), options):
        return FORMAT
    mapped = row.get("mapped_sbert") or row.get("mapped_lexical")
    answer, right = _words(mapped if isinstance(mapped, str) else said), _words(target)
    if _chose_another_region(row, options) or _names_other_regions(said, target):
        return WRONG_REGION
    if not options and _fits_another_region(row, frozenset(answer), frozenset(right), known):
        return WRONG_REGION
    if both := _yes_no_or_count(answer, right):
        return both
    if options:
        return WRONG_CHOICE
    return _by_things(answer, right, str(row["image"]), known)


def _by_things(answer: list[str], right: list[str], image: str, known: _Known) -> str:
    here = known.by_image[image]
    named = {_singular(word) for word in answer}
    if len(answer) <= MAX_NAME_WORDS and len(right) <= MAX_NAME_WORDS:
        thing = _thing(answer)
        if thing == _thing(right):
            return WRONG_ATTRIBUTE
        return WRONG_CATEGORY if thing in known.things else HALLUCINATION
    if (named & known.things) - here:
        return HALLUCINATION
    wanted = {_singular(word) for word in right} & known.things
    if wanted and not wanted & named:
        return WRONG_CATEGORY
    return WRONG_ATTRIBUTE if wanted else OTHER


def _is_format(said: str, question: str, options: Sequence[str]) -> bool:
    words = _words(said, keep=True)
    if not words or words == _words(question, keep=True):
        return True
    if any(not _REGION.fullmatch(mark) for mark in _MARK.findall(said)):
        return True
    if options and not _is_offered(said, options):
        return True
    return _repeats(words)


def _is_offered(said: str, options: Sequence[str]) -> bool:
    if set(options) <= set(LETTERS):
        return letter_of(said) is not None
    return _normalised(said) in {_normalised(option) for option in options}


def _chose_another_region(row: dict[str, Any], options: Sequence[str]) -> bool:
    """Return whether the options are the regions themselves, as in pointing; then `region` is the right one."""
    return (
        bool(options)
        and len(options) == len(row["boxes"])
        and int(row["region"] or 0) > 0
        and set(options) <= set(LETTERS)
    )


def _repeats(words: list[str]) -> bool:
    """Return whether the text ends with the same one, two or three words over and over."""
    for length in (1, 2, 3):
        end = words[-length:]
        if len(words) >= length * REPEATS and words[-length * REPEATS :] == end * REPEATS:
            return True
    return False


def _fits_another_region(row: dict[str, Any], answer: frozenset[str], right: frozenset[str], known: _Known) -> bool:
    own = _box(row)
    return bool(answer) and answer != right and any(
        box != own and words == answer for box, words in known.targets[str(row["image"])]
    )  # fmt: skip


def _names_other_regions(said: str, target: str) -> bool:
    """Return whether two texts differ only in the regions that they name."""
    if not _REGION.search(said) or _normalised(said) == _normalised(target):
        return False
    return _normalised(_REGION.sub("region", said)) == _normalised(_REGION.sub("region", target))


def _yes_no_or_count(answer: list[str], right: list[str]) -> str | None:
    if answer and right:
        if {answer[0], right[0]} == {"yes", "no"}:
            return WRONG_YES_NO
        first, second = (_NUMBERS.get(words[0], words[0]) for words in (answer, right))
        if first.isdigit() and second.isdigit() and first != second:
            return WRONG_COUNT
    return None


def _box(row: dict[str, Any]) -> tuple[float, ...]:
    """Return the box of the region that the prediction is about; () for the whole image."""
    number, boxes = int(row["region"] or 0), row["boxes"]
    return tuple(float(value) for value in boxes[number - 1]) if 0 < number <= len(boxes) else ()


def _options(row: dict[str, Any]) -> list[str]:
    options = row.get("options")
    return [] if options is None or isinstance(options, float) else [str(option) for option in options]


def _normalised(text: str) -> str:
    return " ".join(_words(text, keep=True))


def _words(text: str, keep: bool = False) -> list[str]:
    """Split a text into lower-case words. keep: also keep articles."""
    found = _WORD.findall(text.lower())
    return found if keep else [word for word in found if word not in _ARTICLES]


def _thing(words: Sequence[str]) -> str:
    """Return the last word of the first noun phrase, in the singular."""
    end = next((index for index, word in enumerate(words) if index and word in _AFTER_THE_THING), len(words))
    return _singular(words[end - 1]) if words else ""


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
