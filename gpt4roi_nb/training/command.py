"""The command line of training: `python -m gpt4roi_nb.train config.yaml`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from gpt4roi_nb.bundle import GPT4RoI
from gpt4roi_nb.data import Mixture, Record, RegionDataset, load


@dataclass(frozen=True)
class InItsFolder:
    """A data set whose records name their pictures by the whole path.

    Several data sets may tell the same source (two of COCO's files), and a file may tell another one than its format's
    ("refcoco+"), so the source does not say which folder a picture is in.
    """

    dataset: RegionDataset

    def __len__(self) -> int:
        return len(self.dataset)

    def record(self, number: int, epoch: int = 0) -> Record:
        record = self.dataset.record(number, epoch)
        return replace(record, image=str(self.dataset.path(record).absolute()))

    def report(self) -> str:
        return self.dataset.report()


def run_file(arguments: Sequence[str] | None, train: Callable[..., object]) -> None:
    """Trains as the file that the command line names says.

    The file names `checkpoint` (absent: the demo checkpoint), `output_dir`, `data` (a list of what
    `gpt4roi_nb.data.load` takes, each with an optional `weight`), and any keyword of `train`.
    """
    parser = argparse.ArgumentParser(prog="python -m gpt4roi_nb.train", description="Train a GPT4RoI.")
    parser.add_argument("config", type=Path, help="a YAML file; docs/training.md shows one")
    file = parser.parse_args(arguments).config
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        parser.error(f"{file} cannot be read: {error}")
    if not isinstance(config, dict) or not config.get("output_dir") or not config.get("data"):
        parser.error(f"{file} must give output_dir and data; docs/training.md shows a whole file")
    try:
        datasets, weights = {}, {}
        for number, entry in enumerate(config.pop("data")):
            weight = entry.pop("weight", None)
            dataset = load(**entry)
            name = f"{dataset.name} {number}"
            datasets[name] = InItsFolder(dataset)
            weights[name] = len(dataset) if weight is None else weight
        # One of several processes loads into its own memory, in float32, and leaves it to the launcher what goes where.
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        gpt4roi = GPT4RoI.from_pretrained(config.pop("checkpoint", None), device="cpu" if several else None)
        train(gpt4roi, Mixture(datasets, weights, seed=config.get("seed", 0)), Path(), **config)
    except (ValueError, TypeError, OSError, MemoryError, FloatingPointError) as error:
        parser.error(str(error))
