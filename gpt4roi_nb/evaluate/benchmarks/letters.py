"""Questions with lettered options: the letter that an answer names, and accuracy."""

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

# "(C)" counts anywhere; a bare letter must stand alone, and "A dog" is not a choice.
_BRACKETED = re.compile(r"\(\s*([A-D])\s*\)")
_BARE = re.compile(r"(?<![A-Za-z'’])([A-D])(?![A-Za-z'’])(?!\s+[a-z])")


def letter_of(answer: str) -> str | None:
    """Return the first option letter of an answer in the form `(C)`; None if it names none."""
    found = _BRACKETED.search(answer) or _BARE.search(answer)
    return f"({found.group(1)})" if found else None


def chosen_rightly(items: Sequence[Item], predictions: Sequence[Prediction]) -> list[bool]:
    """Return, for each answer, whether it names the right option: `facts["choice"]` of its item, counted from 0."""
    pairs = zip(items, predictions, strict=True)
    return [letter_of(one.answer) == LETTERS[item.facts["choice"]] for item, one in pairs]


def accuracy(items: Sequence[Item], right: Sequence[bool], kind: str) -> Metric:
    """Compute the accuracy over the items of a kind."""
    places = [k for k, item in enumerate(items) if item.kind == kind]
    return mean_metric([right[k] for k in places], [items[k].image for k in places])


def without_letter(predictions: Sequence[Prediction]) -> dict[str, int]:
    """Count the answers that name no option, in the form of `Scores.counts`."""
    silent = sum(letter_of(one.answer) is None for one in predictions)
    return {"answers without a letter": silent} if silent else {}
