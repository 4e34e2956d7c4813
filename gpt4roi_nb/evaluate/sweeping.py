"""`sweep`: one benchmark, one loaded model, every way to present a box; how far the way alone moves a figure."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt4roi_nb.evaluate.model_facts import Model
from gpt4roi_nb.evaluate.prompted import CannotBeAskedError
from gpt4roi_nb.evaluate.result import Result
from gpt4roi_nb.evaluate.run import evaluate
from gpt4roi_nb.evaluate.tables import Column, Table, table_of
from gpt4roi_nb.models.families import GPT4ROI, way_of
from gpt4roi_nb.models.prompted_model import PromptedModel
from gpt4roi_nb.models.ways.draw import RED
from gpt4roi_nb.session.gpt4roi import GPT4RoI

DRAW = "draw"
_SAME = ("scorer", "prompt", "decoding", "mapping", "questions", "images")  # of the cards of one table


@dataclass(frozen=True, eq=False)
class Sweep:
    """The outcome of `sweep`.

    Attributes:
        results: way → result: "crop", or with colour and width "draw, red, 3 pixels".
        refused: way → why the model cannot be asked the benchmark's questions in this way.

    The figures of one table are comparable: the questions, their wording and the scorer are the same, and only the way
    differs, unless a note below the table says otherwise.

    >>> from gpt4roi_nb.evaluate import Sweep
    >>> Sweep({}, {"crop": "it takes one region at a time"}).spread
    {}
    """

    results: dict[str, Result]
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def spread(self) -> dict[str, tuple[float, str, str]]:
        """Metric → (points between the lowest and the highest figure, way of the lowest, way of the highest)."""
        found = {}
        for name in dict.fromkeys(name for result in self.results.values() for name in result.metrics):
            by_way = {way: one.metrics[name] for way, one in self.results.items() if name in one.metrics}
            known = {way: value for way, value in by_way.items() if value == value}
            if known:
                low, high = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
                found[name] = (known[high] - known[low], low, high)
        return found

    def table(self) -> Table:
        """Return all ways side by side, one column with its card per way, and how far the way alone moves each figure.

        Raises:
            ValueError: if no way could be asked.
        """
        if not self.results:
            raise ValueError("no way could be asked: " + "; ".join(self.refused.values()))
        columns = [Column(way, one.card.line(), one.metrics, one.intervals) for way, one in self.results.items()]
        moved = []
        for name, (points, low, high) in self.spread.items():
            least, most = (self.results[way].metrics[name] for way in (low, high))
            change = f"{points:.1f} points between {low} ({least:.1f}) and {high} ({most:.1f})"
            moved.append(f"{name}: {change if points else f'{least:.1f} in every way'}")
        notes = list(dict.fromkeys(note for one in self.results.values() for note in one.notes))
        notes += [f"not asked as {way}: {why}" for way, why in self.refused.items()]
        first, *others = self.results.values()
        for way, other in zip(list(self.results)[1:], others, strict=True):
            apart = [name for name in first.card.differences(other.card) if name in _SAME]
            if apart:
                notes.append(f"{way} differs in more than the way: {', '.join(apart)}")
        title = f"{first.card.dataset}, {first.card.split}: {first.card.checkpoint_name}, by way"
        table = table_of(title, columns, notes)
        return Table("\n".join([str(table), "", "How far the way alone moves each figure:", *moved]))

    def __str__(self) -> str:
        return str(self.table())


def sweep(
    name: str,
    model: Model,
    root: str | os.PathLike[str] | None = None,
    *,
    ways: Sequence[str] | None = None,
    colours: Sequence[str] = (RED.colour,),
    widths: Sequence[float] = (RED.width,),
    folder: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Sweep:
    """Measure one loaded model on a benchmark with each way to present a box.

    A way in which the model cannot be asked the benchmark's questions is passed over, and named with the reason.

    Args:
        name: one of `BENCHMARKS`.
        model: from `load_model`; its own way is one among the others. That of a GPT4RoI is "native", its region tokens.
        root: as for `evaluate`.
        ways: of `models.WAYS`, one or several; None takes all that suit the model.
        colours: of the first region's line, for the way "draw", one or several; each is measured with each width.
        widths: of the line, for "draw": pixels where the longest side of an image has 336.
        folder: where answers are saved, one folder per way. The same call continues an earlier one. None saves nothing.
        options: others of `evaluate`, such as `limit`, `scorer` and `question`; the same for each way.

    Returns:
        The results by way, and a table of them. After an interrupt, those that were begun.

    Raises:
        TypeError: for anything but a model of `load_model`.
        ValueError: for a way that does not suit the model, or as `evaluate`.

    >>> from gpt4roi_nb import GPT4RoI
    >>> from gpt4roi_nb.evaluate import sweep
    >>> from gpt4roi_nb.data.scenes.formats.write import write_world
    >>> world = write_world("world", 2, progress=False)  # two images with the files of all datasets
    >>> found = sweep("coco", GPT4RoI.from_pretrained(), world, ways=("native", "crop"), progress=False)
    >>> list(found.results)
    ['region tokens', 'crop']

    >>> from gpt4roi_nb import load_model
    >>> model = load_model("Qwen/Qwen3-VL-2B-Instruct")  # doctest: +SKIP
    >>> print(sweep("coco", model, "data", limit=100, colours=("red", "blue"), widths=(2, 4)))  # doctest: +SKIP
    """
    if not isinstance(model, GPT4RoI | PromptedModel):
        raise TypeError(f"sweep takes a GPT4RoI or a model of load_model, but {model!r} came")
    variants = dict(_variants(model, ways, colours, widths))
    results: dict[str, Result] = {}
    refused: dict[str, str] = {}
    with model.hold_weights():  # the same for all ways, and hashed once
        for way, variant in variants.items():
            place = None if folder is None else Path(folder) / way.replace(", ", "-").replace(" ", "-")
            try:
                results[way] = evaluate(name, variant, root, folder=place, **options)
            except CannotBeAskedError as error:
                refused[way] = str(error)
                continue
            if not results[way].card.complete:
                break
    return Sweep(results, refused)


def _variants(
    model: Model, ways: Sequence[str] | None, colours: Sequence[str], widths: Sequence[float]
) -> Iterator[tuple[str, Model]]:
    """Yield (label, model) of each way; all are checked before the first is measured."""
    ways = (ways,) if isinstance(ways, str) else ways
    colours = (colours,) if isinstance(colours, str) else colours
    own: dict[str, GPT4RoI] = {}
    if isinstance(model, GPT4RoI):
        own = {GPT4ROI.way: model}
        model = PromptedModel.of(model, DRAW)
    suited = (*own, *model.family.ways)
    for way in suited if ways is None else [way if way in own else way_of(model.model_type, way) for way in ways]:
        if way in own:
            yield own[way].way, own[way]
            continue
        if way != DRAW:
            yield way, model.with_regions(way)
            continue
        for colour, width in itertools.product(colours, widths):
            yield f"{DRAW}, {colour}, {width:g} pixels", model.with_regions(DRAW, colour=colour, width=width)
