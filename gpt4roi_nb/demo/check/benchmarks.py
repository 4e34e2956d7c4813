"""The published benchmarks on a small written world, through `evaluate`: those whose wordings a newcomer may try."""

from __future__ import annotations

import tempfile
from pathlib import Path

from gpt4roi_nb.data.scenes.formats.write import write_world
from gpt4roi_nb.demo.check.bars import BENCHMARKS, figure_name
from gpt4roi_nb.evaluate.run import evaluate
from gpt4roi_nb.session.gpt4roi import GPT4RoI

IMAGES = 200  # of the world; every tenth is for validation
SPLIT = "val"


def measure_benchmarks(gpt4roi: GPT4RoI, seed: int, *, images: int = IMAGES) -> dict[str, float]:
    """The metrics of `BENCHMARKS`, as shares, on a world of `images` images written for it.

    The binary choice is the strict one: an answer with both names is wrong.

    Raises:
        FileNotFoundError, ImportError: where what scores an answer is not there; see `evaluate`.
    """
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        world = write_world(Path(folder) / "world", images, seed=seed, progress=False)
        for name, metrics in BENCHMARKS.items():
            result = evaluate(name, gpt4roi, world, split=SPLIT, progress=False)
            found |= {figure_name(name, metric): result.metrics[metric] / 100 for metric in metrics}
    return found
