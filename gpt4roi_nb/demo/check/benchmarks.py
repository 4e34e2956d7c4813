"""Run `evaluate` on a small generated world, with the published benchmarks whose wordings a newcomer may try."""

from __future__ import annotations

import tempfile
from pathlib import Path

from gpt4roi_nb.data.scenes.formats.write import write_world
from gpt4roi_nb.demo.check.bars import BENCHMARKS, figure_name
from gpt4roi_nb.evaluate.run import evaluate
from gpt4roi_nb.session.gpt4roi import GPT4RoI

IMAGES = 200  # in the world; every tenth is for validation
SPLIT = "val"


def measure_benchmarks(gpt4roi: GPT4RoI, seed: int, *, images: int = IMAGES) -> dict[str, float]:
    """Measure the metrics of `BENCHMARKS` on a temporary world.

    The binary choice is the strict one: an answer that has both names is wrong.

    Args:
        gpt4roi: the model.
        seed: of the world.
        images: number of images in the world.

    Returns:
        Metrics as shares, by `bars.figure_name`.

    Raises:
        FileNotFoundError, ImportError: a scorer is missing; see `evaluate`.
    """
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        world = write_world(Path(folder) / "world", images, seed=seed, progress=False)
        for name, metrics in BENCHMARKS.items():
            result = evaluate(name, gpt4roi, world, split=SPLIT, progress=False)
            found |= {figure_name(name, metric): result.metrics[metric] / 100 for metric in metrics}
    return found
