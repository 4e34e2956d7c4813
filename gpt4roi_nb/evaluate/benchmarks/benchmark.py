"""What a benchmark is: a `Benchmark` says how it is asked and scored, and what others have published of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Item, Prediction, Scores


@dataclass(frozen=True)
class Published:
    """Metrics that stand in one row or sentence of a publication: references, never results of this package.

    source: where they stand, and of which model. protocol: split, regions and prompt as far as they are told.
    metrics: name → per cent. model, split: the same in the names of this package, such as "GPT4RoI-7B", or "GPT4RoI"
    where no size is told. `evaluate.verify` holds a checkpoint against the figures of its model.
    """

    source: str
    protocol: str
    metrics: Mapping[str, float]
    model: str
    split: str


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    name: what users call it. title: of its dataset. splits, scoring: the first is the default; `scoring` is of
    "generate" and "likelihood". prompt, mapping: for the protocol card; mapping is "" where answers are not mapped.
    max_new_tokens: of an answer. files: from root and split to what must be there: what it is → path. items: all
    questions of the split; bad records go to `Problems`. score: what predictions are worth; they and the items are in
    the same order. fixed_prompt: the protocol fixes the wording. scorers: packages that score the answers, of those
    that `metrics/scorers.py` knows. published: what stands beside our own results. more_folders: from root and split
    to the folders where images may lie beside those of `files`, there or not.
    """

    name: str
    title: str
    splits: tuple[str, ...]
    scoring: tuple[str, ...]
    prompt: str
    mapping: str
    max_new_tokens: int
    files: Callable[[Path, str], dict[str, Path]]
    items: Callable[[EvalConfig, Problems], Iterator[Item]]
    score: Callable[[Sequence[Item], Sequence[Prediction], EvalConfig], Scores]
    fixed_prompt: bool = False
    scorers: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    more_folders: Callable[[Path, str], list[Path]] = lambda root, split: []

    def image_folders(self, root: Path, split: str) -> list[Path]:
        """The folders below which images of a split may lie, those that are there; inner ones first. Any may be a
        link, as where the data sets are linked into one root."""
        folders = {*self.files(root, split).values(), *self.more_folders(root, split), root}
        return sorted((folder for folder in folders if folder.is_dir()), key=lambda one: (-len(one.parts), one))


def part(root: Path, folder: str) -> Path:
    """The part of a data folder that one dataset has, or the folder itself where it is that dataset's own."""
    return root / folder if (root / folder).is_dir() else root
