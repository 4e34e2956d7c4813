"""What a benchmark has given: figures, how sure and of what they are, and every prediction behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from gpt4roi_nb.evaluate.benchmarks.registry import benchmark
from gpt4roi_nb.evaluate.card import ProtocolCard
from gpt4roi_nb.evaluate.predictions import read_predictions, write_predictions
from gpt4roi_nb.evaluate.tables import Column, Table, table_of
from gpt4roi_nb.files import read_json, write_json

if TYPE_CHECKING:
    from gpt4roi_nb.evaluate.gallery import Gallery

RESULT, PREDICTIONS = "result.json", "predictions.parquet"

Where = str | Mapping[str, Any] | Callable[[pd.Series], bool] | None


@dataclass(frozen=True, eq=False)
class Result:
    """The outcome of `evaluate`.

    benchmark: its name. metrics: name → figure in per cent. intervals: name → 95% bootstrap interval, drawn over
    images. card: the protocol. predictions: a row a question (docs/measuring.md lists the columns). notes: what to
    know of the figures. folder: where it is saved, if it is.
    """

    benchmark: str
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    card: ProtocolCard
    predictions: pd.DataFrame = field(repr=False)
    notes: list[str] = field(default_factory=list, repr=False)
    folder: Path | None = None

    def table(self, *others: Result) -> Table:
        """These figures beside those of other results, and beside the published ones, each under its own card.

        A column has one card: figures that were come by in different ways never share one.

        Raises:
            ValueError: a result of another benchmark.
        """
        for other in others:
            if other.benchmark != self.benchmark:
                raise ValueError(f"a table is of one benchmark, but {self.benchmark!r} and {other.benchmark!r} came")
        columns = [
            Column(f"measured {number}" if others else "measured", one.card.line(), one.metrics, one.intervals)
            for number, one in enumerate((self, *others), 1)
        ]
        columns += [
            Column("published", f"published: {entry.source}; {entry.protocol}", entry.metrics)
            for entry in benchmark(self.benchmark).published
        ]
        notes = list(dict.fromkeys(note for one in (self, *others) for note in one.notes))
        return table_of(f"{self.card.dataset}, {self.card.split}", columns, notes)

    def select(self, where: Where = None) -> pd.DataFrame:
        """Some predictions.

        where: what pandas' `query` takes ("correct == False and size_bin == 'small'"); or values by column
            ({"kind": "qa"}); or a function of a row. None: all.
        """
        frame = self.predictions
        if where is None:
            return frame
        if isinstance(where, str):
            return frame.query(where)
        if isinstance(where, Mapping):
            unknown = [name for name in where if name not in frame.columns]
            if unknown:
                raise ValueError(f"there is no column {unknown[0]!r}; there are {', '.join(frame.columns)}")
            chosen = pd.Series(True, index=frame.index)
            for name, value in where.items():
                values = [value] if isinstance(value, str) or not isinstance(value, Sequence) else list(value)
                chosen &= frame[name].isin(values).astype(bool)
            return frame[chosen]
        return frame[[bool(where(row)) for _, row in frame.iterrows()]]

    def slices(self, by: str = "kind") -> pd.DataFrame:
        """How the predictions of each slice do: number, share that is correct, mean score and log-probability.

        by: a column such as "kind" or "size_bin".
        """
        frame = self.predictions
        if by not in frame.columns:
            raise ValueError(f"there is no column {by!r}; there are {', '.join(frame.columns)}")
        groups = frame.assign(correct=frame["correct"].astype("Float64")).groupby(by, sort=True)
        return groups.agg(
            questions=("id", "size"), correct=("correct", "mean"), score=("score", "mean"), logprob=("logprob", "mean")
        )

    def gallery(self, where: Where = None, **options: Any) -> Gallery:
        """A paged view of predictions with their regions, for a notebook; see `gallery.Gallery` for the options."""
        from gpt4roi_nb.evaluate.gallery import Gallery

        return Gallery(self.select(where), **options)

    def save(self, folder: str | Path) -> Path:
        """Writes figures and card as JSON and the predictions as Parquet into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_predictions(self.predictions, folder / PREDICTIONS)
        content = {
            "benchmark": self.benchmark,
            "metrics": self.metrics,
            "intervals": self.intervals,
            "card": asdict(self.card),
            "notes": self.notes,
        }
        write_json(folder / RESULT, content)  # last: a folder with it is whole
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Result:
        """What `save`, or `evaluate` with a folder, has written.

        Raises:
            FileNotFoundError, ValueError: the folder holds no whole result.
        """
        folder = Path(folder)
        content = read_json(folder / RESULT)
        if not (folder / PREDICTIONS).is_file():
            raise FileNotFoundError(f"the folder {str(folder)!r} lacks {PREDICTIONS}")
        try:
            return cls(
                content["benchmark"],
                content["metrics"],
                {name: (low, high) for name, (low, high) in content["intervals"].items()},
                ProtocolCard(**content["card"]),
                read_predictions(folder / PREDICTIONS),
                content["notes"],
                folder,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{str(folder / RESULT)!r} is of another version: {error}") from error

    def __str__(self) -> str:
        return str(self.table())
