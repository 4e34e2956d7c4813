"""Questions with lettered options: which letter an answer names, and the shares that are right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from gpt4roi_nb.data.protocol_texts import LETTERS
from gpt4roi_nb.evaluate.benchmarks.benchmark import Benchmark
from gpt4roi_nb.evaluate.benchmarks.item import Item, Prediction
from gpt4roi_nb.evaluate.metrics.statistics import Metric, mean_metric

lettered = partial(
    Benchmark,
    scoring=("likelihood", "generate"),
    mapping="the first option letter of the answer",
    max_new_tokens=16,
    fixed_prompt=True,
)

# "(C)" anywhere is meant; a bare letter must stand alone, and "A dog" is no choice.
_BRACKETED = re.compile(r"\(\s*([A-D])\s*\)")
_BARE = re.compile(r"(?<![A-Za-z'’])([A-D])(?![A-Za-z'’])(?!\s+[a-z])")


def letter_of(answer: str) -> str | None:
    """The first option letter of an answer as `(C)`, or None where it names none."""
    found = _BRACKETED.search(answer) or _BARE.search(answer)
    return f"({found.group(1)})" if found else None


def chosen_rightly(items: Sequence[Item], predictions: Sequence[Prediction]) -> list[bool]:
    """Whether each answer names the option `choice` of its item, counted from 0."""
    pairs = zip(items, predictions, strict=True)
    return [letter_of(one.answer) == LETTERS[item.facts["choice"]] for item, one in pairs]


def accuracy(items: Sequence[Item], right: Sequence[bool], kind: str) -> Metric:
    """The share that is right of the items of a kind."""
    places = [k for k, item in enumerate(items) if item.kind == kind]
    return mean_metric([right[k] for k in places], [items[k].image for k in places])


def without_letter(predictions: Sequence[Prediction]) -> dict[str, int]:
    """How many answers name no option, as `Scores` counts it."""
    silent = sum(letter_of(one.answer) is None for one in predictions)
    return {"answers without a letter": silent} if silent else {}
