"""What measuring is made of: an `Item` is asked, a `Prediction` comes back, `Scores` say what it is worth."""

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

    id: the same in every run and for every checkpoint, such as "vcr/val-0/qa".
    image: absolute path of the picture.
    boxes: pixel xyxy in the original image; region k + 1 is `boxes[k]`.
    question: in the user's grammar; it names each region.
    target: the right answer in words; "" where there is none.
    options: the choices, one of which is the answer of the likelihood scorer.
    region: 1-based number of the region that it is about; 0 for the whole picture.
    kind: the slice of the benchmark that it belongs to.
    group: items of a group are drawn together by `limit`; "" stands for the id.
    mask: COCO's compressed run lengths of the true mask, at the picture's size.
    facts: what scoring needs beside that.
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
    """What a model made of an item.

    answer: its text, or the option that it chose.
    logprob: mean natural log-probability of the answer's tokens; with the likelihood scorer that of the option,
        normalised over the options; None for an answer of no length.
    option_logprobs: of each option, normalised over the options; None where none were compared.
    seconds: its share of its batch's time.
    width, height: of the upright picture in pixels.
    stamp: what differs when the picture's file is another one; "" where that is not known.
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

    root: the data's folder. scorer: "generate" or "likelihood". question: in place of the benchmark's own, where its
    protocol leaves that open. mapping_model: folder or hub id of the sentence embedder. folder: for files that a
    benchmark writes, such as a leaderboard's. keep: whether the folder stays when the run has ended. limit: how many
    groups of items were drawn; None: all.
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


@dataclass
class Scores:
    """What predictions are worth.

    metrics: in the order of the table.
    columns: one value an item, by column of the table of predictions ("correct", "score", "mapped_sbert", …).
    counts: how often something special came up, by what, such as answers of no length.
    notes: stand beside the metrics.
    """

    metrics: dict[str, Metric]
    columns: dict[str, list[Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
