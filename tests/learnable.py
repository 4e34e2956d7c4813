"""A little data that a tiny model can learn, and a training of it that other processes can run as well."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import annotation_files
import numpy as np
import torch
from PIL import Image
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data import Mixture, load
from gpt4roi_nb.data.dataset import FILE_OPTIONS
from gpt4roi_nb.data.record import Record
from gpt4roi_nb.train import TrainingRun, train

BOX = np.array([[3, 4, 30, 40]], dtype=np.float32)
PICTURES = 6


def records(folder: Path, count: int = 12) -> list[Record]:
    """Writes the images, and returns records of two sources."""
    for index in range(PICTURES):
        Image.fromarray(tiny_image(index)).save(folder / f"{index}.png")
    said = ("a blue cup", "a red cone")
    return [
        Record(
            f"{index % PICTURES}.png",
            BOX,
            (("user", "What is <region1>?"), ("assistant", said[index % 2])),
            ("vg", "coco")[index % 2],
            str(index),
        )
        for index in range(count)
    ]


OPTIONS: dict[str, Any] = {
    "stage": 2,
    "learning_rate": 3e-3,
    "warmup_steps": 0,
    "batch_size": 2,
    "epochs": 2,
    "save_steps": 3,
    "logging_steps": 1,
    "progress": False,
    "report_to": "none",
}


def entry(given: annotation_files.Given, cache: Path, **more: Any) -> dict[str, Any]:
    """As a training file names a data set."""
    whole = {
        "format": given.format,
        "annotations": str(given.annotations),
        "images": str(given.images),
        "cache": str(cache),
        **{name: str(value) if name in FILE_OPTIONS else value for name, value in given.options.items()},
    }
    return {**whole, **more}


def mixture(folder: Path, weight: float = 1) -> Mixture:
    """Three data sets, as `load` opens them, 12 positions long. weight: of the first, where the others' are 1."""
    makers = (annotation_files.refcoco, annotation_files.vg_train, annotation_files.llava)
    given = [make(folder / make.__name__) for make in makers]
    sets = {
        each.format: load(each.format, each.annotations, each.images, cache=folder / "cache", **each.options)
        for each in given
    }
    return Mixture(sets, {name: 1 if number else weight for number, name in enumerate(sets)}, seed=3, length=12)


def run(folder: Path, output: Path, *, mixed: bool = False, **options: Any) -> TrainingRun:
    """mixed: train on `mixture`, whose data know their images' folders, and not on `records`."""
    data, images = (mixture(folder), None) if mixed else (records(folder), folder)
    return train(tiny_gpt4roi(seed=1), data, images, output, **{**OPTIONS, **options})


def copy_of(gpt4roi: GPT4RoI) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in gpt4roi.model.state_dict().items()}


def changed_parts(gpt4roi: GPT4RoI, before: dict[str, torch.Tensor]) -> set[str]:
    after = gpt4roi.model.state_dict()
    return {name.partition(".")[0] for name in before if not after[name].equal(before[name])}


def losses(run: TrainingRun) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in run.history if "loss" in line}


if __name__ == "__main__":  # arguments: folder, output, options as JSON
    done = run(Path(sys.argv[1]), Path(sys.argv[2]), **json.loads(sys.argv[3]))
    (Path(sys.argv[2]) / "losses.json").write_text(json.dumps(losses(done)))
