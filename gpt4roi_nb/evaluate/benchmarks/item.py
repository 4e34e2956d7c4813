"""The data of a benchmark run: an `Item` is asked, a `Prediction` comes back, `Scores` rate it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.evaluate.metrics.statistics import Metric

EMPTY_ANSWER = "empty answers"
UNKNOWN_CATEGORY = "category unknown to the mapping"


@dataclass(frozen=True)
class Item:
    """One question of a benchmark.

    Attributes:
        id: the same in every run and for every checkpoint, such as "vcr/val-0/qa".
        image: absolute path of the image file.
        boxes: pixel xyxy in the original image; region k + 1 is `boxes[k]`.
        question: in the user's grammar; it names each region.
        target: the right answer in words; "" if there is none.
        options: the choices; the likelihood scorer answers with one of them.
        region: 1-based number of the region that the question is about; 0 for the whole image.
        kind: the slice of the benchmark that it belongs to.
        group: `limit` draws the items of a group together; "" stands for the id.
        mask: COCO's compressed run lengths of the true mask, at the image's size.
        facts: what else scoring needs.
    """

    id: str
    image: str
    boxes: tuple[Box, ...]
    question: str
    target: str = ""
    options: tuple[str, ...] = ()
    region: int = 0
    kind: str = ""
    group: str = ""
    mask: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """A model's answer to an item.

    Attributes:
        id: of the item.
        answer: the text, or the chosen option.
        logprob: mean natural log-probability of the answer's tokens; with the likelihood scorer, that of the option,
            normalised over the options; None for an empty answer.
        option_logprobs: of each option, normalised over the options; None if none were compared.
        seconds: share of the batch's time.
        width, height: of the upright image in pixels.
        stamp: changes when the image file changes; "" if unknown.
    """

    id: str
    answer: str
    logprob: float | None
    option_logprobs: tuple[float, ...] | None
    seconds: float
    width: int
    height: int
    stamp: str = ""


@dataclass(frozen=True)
class EvalConfig:
    """How a benchmark is run.

    Attributes:
        root: folder of the data.
        split: of the dataset.
        seed: of all draws.
        scorer: "generate" or "likelihood".
        question: replaces the benchmark's own, if its protocol does not fix the wording.
        mapping_model: folder or hub id of the sentence embedder.
        folder: for files that a benchmark writes, such as a leaderboard's.
        keep: whether the folder remains after the run.
        limit: number of groups of items to draw; None: all.
        wording: one of the benchmark's `wordings`; None: the first.
    """

    root: Path
    split: str
    seed: int = 0
    scorer: str = "generate"
    question: str | None = None
    mapping_model: str | Path | None = None
    folder: Path = Path(".")
    keep: bool = False
    limit: int | None = None
    wording: str | None = None


@dataclass
class Scores:
    """The scores of predictions.

    Attributes:
        metrics: in the order of the table.
        columns: column of the table of predictions ("correct", "score", "mapped_sbert", …) → one value per item.
        counts: special case, such as an empty answer → how often it came up.
        notes: to be shown with the metrics.
    """

    metrics: dict[str, Metric]
    columns: dict[str, list[Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
