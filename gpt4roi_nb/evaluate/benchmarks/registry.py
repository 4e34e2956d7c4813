"""The benchmarks by name, and where the files of each lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.evaluate.benchmarks.item import Item, Prediction, Scores, Setting
from gpt4roi_nb.evaluate.benchmarks.published import Published

BENCHMARKS = ("vcr", "vg", "refcocog", "cityscapes", "ade20k", "lvis", "paco", "coco", "visual7w")


class Benchmark(Protocol):
    """What a module of a benchmark has.

    DATASET: its title. SPLITS, SCORERS: the first is the default. PROMPT, MAPPING: for the protocol card; MAPPING is ""
    where answers are not mapped. MAX_NEW_TOKENS: of an answer. FIXED_PROMPT: the protocol fixes the wording. JUDGES:
    packages that score the answers, of those that `judges.py` knows.
    """

    DATASET: str
    SPLITS: tuple[str, ...]
    SCORERS: tuple[str, ...]
    PROMPT: str
    FIXED_PROMPT: bool
    MAPPING: str
    MAX_NEW_TOKENS: int
    JUDGES: tuple[str, ...]
    PUBLISHED: tuple[Published, ...]

    def files(self, root: Path, split: str) -> dict[str, Path]:
        """What must be there: what it is → path."""

    def items(self, setting: Setting, problems: Problems) -> Iterator[Item]:
        """All questions of the split; bad records go to `problems`."""

    def score(self, items: Sequence[Item], predictions: Sequence[Prediction], setting: Setting) -> Scores:
        """What predictions are worth; they and the items are in the same order."""


def benchmark(name: str) -> Benchmark:
    """The module of a benchmark. Raises ValueError for a name that is not in `BENCHMARKS`."""
    if name not in BENCHMARKS:
        raise ValueError(f"there is no benchmark {name!r}; choose from {', '.join(BENCHMARKS)}")
    return cast(Benchmark, import_module(f"gpt4roi_nb.evaluate.benchmarks.{name}"))


def part(root: Path, folder: str) -> Path:
    """The part of a data folder that one dataset has, or the folder itself where it is that dataset's own."""
    return root / folder if (root / folder).is_dir() else root


def check_files(name: str, root: Path, split: str) -> None:
    """Raises FileNotFoundError that names all that is missing, before anything takes long."""
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {str(root)!r}; give the folder of the data")
    missing = [(what, path) for what, path in benchmark(name).files(root, split).items() if not path.exists()]
    if missing:
        listed = "".join(f"\n  {what}: {path}" for what, path in missing)
        raise FileNotFoundError(f"{str(root)!r} lacks what {name} ({split}) needs:{listed}")
