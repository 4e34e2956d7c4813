"""The results and models that a `FailureBrowser` shows, matched question by question."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt4roi_nb.evaluate.card import OF_THE_WAY
from gpt4roi_nb.failures.rows import SHORT_HASH_LENGTH, ResultLike, field_of, rows_of
from gpt4roi_nb.models.prompted_model import PromptedModel
from gpt4roi_nb.prompt import enumeration
from gpt4roi_nb.session.region_model import RegionModel

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NOT_STATED = "not stated"  # a way that a file of answers did not name


@dataclasses.dataclass(eq=False)
class Compared:
    """A result, the model that it is of, and where its predictions go.

    Attributes:
        letter: names it in short: "A" for the first.
        result: of `gpt4roi_nb.evaluate`.
        model: None if there is only the result.
        field: of its predictions in FiftyOne.
        rows: id → row, as `rows_of` makes them.
    """

    letter: str
    result: ResultLike
    model: RegionModel | None
    field: str
    rows: dict[str, dict[str, Any]] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.rows = {row["id"]: row for row in rows_of(self.result)}

    @property
    def name(self) -> str:
        """Name of the model and beginning of the hash of its weights."""
        card = self.result.card
        return f"{Path(card.checkpoint_name).name} ({card.checkpoint[:SHORT_HASH_LENGTH]})"

    @property
    def way(self) -> str:
        """How boxes are presented to the model, in a few words."""
        return str(self.result.card.shown)

    def fails(self, item: str) -> bool:
        """Whether its answer to a question is wrong."""
        return item in self.rows and self.rows[item]["correct"] is False


def match(
    results: Sequence[ResultLike], models: Sequence[RegionModel | None], fields: Sequence[str | None]
) -> tuple[Compared, ...]:
    """Match results with their models, in order.

    Args:
        results: of one benchmark.
        models: one per result; None for a result whose model is not loaded.
        fields: one per result; None takes `field_of`.

    Raises:
        TypeError: a result is none.
        ValueError: the counts differ, or are 0 or more than there are letters; the results are of several benchmarks or
            have no question in common; two share a field; or boxes are presented to a model in another way than to the
            one that its result is of.
    """
    for result in results:
        if not hasattr(result, "predictions"):
            raise TypeError(f"expected a Result first, then the model, but got a {type(result).__name__} first")
    counts = {len(results), len(models), len(fields)}
    if len(counts) > 1 or not 0 < len(results) <= len(LETTERS):
        raise ValueError(
            "each result needs its model (None if it is not loaded), and each field its result, but got "
            f"{len(results)} results, {len(models)} models and {len(fields)} fields"
        )
    benchmarks = list(dict.fromkeys(result.benchmark for result in results))
    if len(benchmarks) > 1:
        raise ValueError(f"the results must be of one benchmark, but are of {' and '.join(benchmarks)}")
    found = tuple(
        Compared(letter, result, model, name or field_of(result))
        for letter, result, model, name in zip(LETTERS, results, models, fields, strict=False)
    )
    if len({one.field for one in found}) < len(found):
        raise ValueError(
            f"each result needs a field of its own, but they are {[one.field for one in found]}; these are of the same "
            'weights and the same way, so name the fields: field=["first", "second"]'
        )
    for one in found if len(found) > 1 else ():
        if not one.rows.keys() & found[0].rows.keys():
            raise ValueError(f"results A and {one.letter} have no question in common")
        way = one.result.card.way
        if one.model is not None and way not in (one.model.way, NOT_STATED):
            raise ValueError(
                f"result {one.letter} is of a model with boxes as {way!r}, but its model takes them as "
                f"{one.model.way!r}; give the models in the order of the results"
            )
        note = one.model.note if isinstance(one.model, PromptedModel) else {}
        for name, value in one.result.card.told.items():
            if name not in OF_THE_WAY and note.get(name, value) != value:
                raise ValueError(
                    f"result {one.letter} is of a model that was told {name}: {value}, but its model is told "
                    f"{note[name]}; give the model that the result is of"
                )
    return found


def outcome(item: str, compared: Sequence[Compared]) -> str | None:
    """Say which answers to a question are right: "A right, B wrong"; None unless all are judged."""
    verdicts = {one.letter: one.rows[item]["correct"] for one in compared if item in one.rows}
    if len(verdicts) < len(compared) or None in verdicts.values():
        return None
    said = []
    for verdict, word in ((True, "right"), (False, "wrong")):
        letters = [letter for letter, found in verdicts.items() if found is verdict]
        if letters:
            said.append(f"{enumeration(letters)} {word}")
    return ", ".join(said)
