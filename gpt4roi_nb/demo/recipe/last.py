"""The last part of the demo's training: by the package's own `train`, on files of the generated world.

Any user would train on data of their own in the same way: `python -m gpt4roi_nb.data.scenes`, `load`, `Mixture`,
`train`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from gpt4roi_nb.data.dataset import load
from gpt4roi_nb.data.mixture import Mixture
from gpt4roi_nb.data.scenes.formats.write import write_world
from gpt4roi_nb.files import read_json, write_json
from gpt4roi_nb.session.gpt4roi import GPT4RoI
from gpt4roi_nb.train import train

WORLD_SERIES = 7_000_301
STAGE = 2
TIMES = "times.json"
# Share of the draws from each file of conversations, and from VCR's questions, which use the instruction texts.
WEIGHTS = {
    "image": 0.2,
    "regions": 0.16,
    "relations": 0.08,
    "nothing": 0.02,
    "unknown": 0.04,
    "strangers": 0.05,
    "talks": 0.38,
    "benchmarks": 0.04,
    "vcr": 0.03,
}


def world_data(folder: Path, images: int, cache: Path, seed: int, workers: int) -> Mixture:
    """The mixture of a world's conversations. A world of `images` images is written if `folder` does not exist."""
    if not folder.exists():
        write_world(folder, images, seed=WORLD_SERIES, workers=max(1, workers), progress=False)
    own = {
        name: load("conversations", folder / f"own/{name}.json", folder / "own/images", seed=seed, cache=cache)
        for name in WEIGHTS
        if name != "vcr"
    }
    vcr = load("vcr", folder / "vcr/train.jsonl", folder / "vcr/vcr1images", seed=seed, cache=cache)
    return Mixture({**own, "vcr": vcr}, WEIGHTS, seed=seed)


def train_last(
    gpt4roi: GPT4RoI,
    run: Path,
    *,
    images: int,
    steps: int,
    rate: float,
    batch_size: int,
    seed: int = 0,
    workers: int = 0,
    report: Callable[[str], None] = print,
) -> tuple[GPT4RoI, dict[str, float]]:
    """Train; return the model, and steps, minutes and threads. Continue an interrupted run, read a finished one.

    Args:
        gpt4roi: the model in float32; it is changed in place.
        run: folder of the world, its caches and the training.
        images: how many the world has.
        steps: of the training, each of `batch_size` conversations.
        rate: the highest learning rate.
    """
    output = run / "last"
    times = output / TIMES
    before = read_json(times) if times.exists() else {"seconds": 0.0}
    if before.get("steps") == steps:
        report(f"last: finished before, after {steps} steps")
        return GPT4RoI.from_pretrained(output / "model", device="cpu"), _took(before)
    data = world_data(run / "world", images, run / "indexes", seed, workers)
    started = time.perf_counter()

    def keep(line: dict[str, float]) -> None:
        spent = before["seconds"] + time.perf_counter() - started
        write_json(times, {"seconds": spent, "threads": torch.get_num_threads()})
        report("last: " + "  ".join(f"{name} {value:.4g}" for name, value in line.items() if name in SHOWN))

    train(
        gpt4roi,
        data,
        output_dir=output,
        stage=STAGE,
        learning_rate=rate,
        warmup_steps=0.03,
        max_steps=steps,
        batch_size=batch_size,
        seed=seed,
        save_steps=50,
        keep=1,
        tower_cache=run / "tower",
        progress=False,
        report=keep,
    )
    found = {
        "steps": steps,
        "seconds": before["seconds"] + time.perf_counter() - started,
        "threads": torch.get_num_threads(),
    }
    write_json(times, found)
    return gpt4roi, _took(found)


SHOWN = ("step", "loss", "learning_rate", "remaining")


def _took(found: dict[str, float]) -> dict[str, float]:
    return {"steps": found["steps"], "minutes": found["seconds"] / 60, "threads": found["threads"]}
