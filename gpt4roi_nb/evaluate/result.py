"""The result of a benchmark: metrics with intervals, the protocol card, and every prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import pandas as pd

from gpt4roi_nb.evaluate.benchmarks.registry import benchmark
from gpt4roi_nb.evaluate.card import ProtocolCard
from gpt4roi_nb.evaluate.predictions import read_predictions, write_predictions
from gpt4roi_nb.evaluate.tables import Column, Table, table_of
from gpt4roi_nb.files import read_json, write_json
from gpt4roi_nb.typed import typed_fields

if TYPE_CHECKING:
    from gpt4roi_nb.evaluate.gallery import Gallery

RESULT, PREDICTIONS = "result.json", "predictions.parquet"

Where = str | Mapping[str, Any] | Callable[[pd.Series], bool] | None


@dataclass(frozen=True, eq=False)
class Result:
    """The outcome of `evaluate`.

    Attributes:
        benchmark: name of the benchmark.
        metrics: name → value in per cent.
        intervals: name → 95% bootstrap interval over images, in per cent.
        card: the protocol that the metrics belong to.
        predictions: one row per question; docs/measuring.md lists the columns.
        notes: what a reader of the metrics should know.
        folder: where it is saved; None if it is not.

    >>> from gpt4roi_nb import GPT4RoI
    >>> from gpt4roi_nb.data.scenes.formats.write import write_world
    >>> from gpt4roi_nb.evaluate import Result, evaluate
    >>> world = write_world("world", 2, progress=False)
    >>> result = evaluate("vcr", GPT4RoI.from_pretrained(), world, progress=False)
    >>> result.slices("kind")["questions"].to_dict()  # answers and rationales
    {'qa': 3, 'qar': 3}
    >>> Result.load(result.save("kept")).metrics == result.metrics
    True
    """

    benchmark: str
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    card: ProtocolCard
    predictions: pd.DataFrame = field(repr=False)
    notes: list[str] = field(default_factory=list, repr=False)
    folder: Path | None = None

    def table(self, *others: Result) -> Table:
        """Show the metrics beside those of other results and the published ones.

        There is one column per protocol: metrics measured in different ways never share one.

        Args:
            others: results of the same benchmark.

        Returns:
            The table, with each column's card below it.

        Raises:
            ValueError: a result is of another benchmark.
        """
        for other in others:
            if other.benchmark != self.benchmark:
                raise ValueError(
                    f"results must be of one benchmark, but got {self.benchmark!r} and {other.benchmark!r}"
                )
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
        """Select predictions.

        Args:
            where: a query of pandas ("correct == False and size_bin == 'small'"), values by column ({"kind": "qa"}),
                or a function of a row. None selects all.

        Returns:
            The rows of `predictions` that fit.

        Raises:
            ValueError: there is no such column.
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
        """Summarise the predictions by slice.

        Args:
            by: a column such as "kind" or "size_bin".

        Returns:
            One row per slice: number of questions, share correct, mean score and mean log-probability.

        Raises:
            ValueError: there is no such column.
        """
        frame = self.predictions
        if by not in frame.columns:
            raise ValueError(f"there is no column {by!r}; there are {', '.join(frame.columns)}")
        groups = frame.assign(correct=frame["correct"].astype("Float64")).groupby(by, sort=True)
        return groups.agg(
            questions=("id", "size"), correct=("correct", "mean"), score=("score", "mean"), logprob=("logprob", "mean")
        )

    def gallery(self, where: Where = None, **options: Any) -> Gallery:
        """Show predictions page by page in a notebook, with their images and regions.

        Args:
            where: as in `select`.
            options: of `Gallery`: sort, verdict, page_size, columns.

        Returns:
            The widget.
        """
        from gpt4roi_nb.evaluate.gallery import Gallery

        return Gallery(self.select(where), **options)

    def save(self, folder: str | Path) -> Path:
        """Save metrics and card as JSON, and the predictions as Parquet.

        Args:
            folder: created if needed.

        Returns:
            The folder.
        """
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
        write_json(folder / RESULT, content)  # last, so that a folder that has it is complete
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Result:
        """Load a result that `save`, or `evaluate` with a folder, has written.

        Args:
            folder: the folder that it was saved in.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is damaged or of another version.
        """
        folder = Path(folder)
        content = read_json(folder / RESULT)
        if not (folder / PREDICTIONS).is_file():
            raise FileNotFoundError(f"the folder {str(folder)!r} lacks {PREDICTIONS}")
        hints = {name: hint for name, hint in get_type_hints(cls).items() if name not in ("predictions", "folder")}
        try:
            values = typed_fields(content, hints, "it")
        except ValueError as error:
            raise ValueError(
                f"{str(folder / RESULT)!r} is damaged or was written by another version: {error}; evaluate again"
            ) from error
        return cls(**values, predictions=read_predictions(folder / PREDICTIONS), folder=folder)

    def __str__(self) -> str:
        return str(self.table())
