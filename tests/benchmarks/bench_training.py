"""Stage 1 on the demo checkpoint: speed against a plain loop, and what of a step is waiting for data."""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from timing import Seconds, clocks, median, quotient
from torch.optim import AdamW

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data import Mixture, Record, load
from gpt4roi_nb.data.collate import Collator
from gpt4roi_nb.data.scenes import scene_records
from gpt4roi_nb.data.scenes.formats.write import write_world
from gpt4roi_nb.train import train
from gpt4roi_nb.train.parts import choose_parts

SCENES, BATCH, STEPS, WARM_UP, REPEATS = 16, 8, 6, 2, 3
FILES = 60  # images of the generated world
RATE = 1e-3


class Step(NamedTuple):
    """Medians over the steps of one training."""

    seconds: Seconds
    waiting: float = 0.0  # share of the time that is spent on data


def plain_loop(records: list[Record], folder: Path, attention: str) -> Step:
    """As one would write it first, in float32: every image through the tower each time."""
    gpt4roi = GPT4RoI.from_pretrained(device="cpu", dtype="float32", attn_implementation=attention)
    choose_parts(gpt4roi.model, ("region_encoder",))
    collator = Collator(gpt4roi.processor, folder)
    optimizer = AdamW((p for p in gpt4roi.model.parameters() if p.requires_grad), lr=RATE)
    gpt4roi.model.train()
    times = []
    for step in range(WARM_UP + STEPS):
        batch = collator([records[(step * BATCH + k) % len(records)] for k in range(BATCH)])
        del batch["ids"], batch["sources"]
        gpt4roi.model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(clocks())
    return Step(of_a_step(times))


def ours(records: list[Record], folder: Path, out: Path, cache: Path | None) -> Step:
    """`train`, with kept tower states or without; images are opened in the same process."""
    gpt4roi = GPT4RoI.from_pretrained(device="cpu", dtype="float32")
    times: list[Seconds] = []
    with contextlib.redirect_stdout(io.StringIO()):
        run = train(
            gpt4roi, records, folder, out, stage=1, learning_rate=RATE, warmup_steps=0, batch_size=BATCH,
            max_steps=WARM_UP + STEPS, logging_steps=1, save_steps=1000, tower_cache=cache, progress=False,
            report_to="none", report=lambda _: times.append(clocks()),
        )  # fmt: skip
    lines = [line for line in run.history if "waiting" in line][WARM_UP:]
    return Step(of_a_step(times[: WARM_UP + STEPS]), statistics.median(line["waiting"] for line in lines))


def of_a_step(ends: list[Seconds]) -> Seconds:
    """The median step, from what the clocks showed after each, but for those that warm up."""
    steps = [Seconds(*(after - before for after, before in zip(b, a, strict=True))) for a, b in pairwise(ends)]
    return median(steps[WARM_UP - 1 :])


def from_files(folder: Path) -> float:
    """Share of a step that is spent waiting, in stage 2 on files: a mixture that `load` opens, read by one worker."""
    world = folder / "world"
    write_world(world, FILES, seed=3, workers=1)
    coco, vg = world / "coco", world / "vg"
    cache = folder / "indexes"
    mixture = Mixture(
        {
            "coco": load("coco", coco / "annotations/instances_train2017.json", coco / "train2017", cache=cache),
            "vg": load("visual_genome", vg / "train.json", vg / "VG_100K", cache=cache),
        }
    )
    gpt4roi = GPT4RoI.from_pretrained(device="cpu", dtype="float32")
    with contextlib.redirect_stdout(io.StringIO()):
        done = train(
            gpt4roi, mixture, None, folder / "files", stage=2, learning_rate=RATE, warmup_steps=0, batch_size=BATCH,
            max_length=gpt4roi.model.config.text_config.max_position_embeddings, max_steps=WARM_UP + STEPS,
            logging_steps=1, save_steps=1000, workers=1, progress=False, report_to="none",
        )  # fmt: skip
    lines = [line for line in done.history if "waiting" in line][WARM_UP:]
    return sum(line["waiting"] for line in lines) / len(lines)


def run() -> Iterator[dict[str, object]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, tower = folder / "images", folder / "tower"
        config = GPT4RoI.from_pretrained(device="cpu").model.config
        records = scene_records(images, SCENES, seed=3, size=config.vision_config.image_size)
        found: dict[str, list[Step]] = defaultdict(list)
        for repeat in range(REPEATS):  # interleaved, so that what else the machine does meets all alike
            found["eager"].append(plain_loop(records, images, "eager"))
            found["sdpa"].append(plain_loop(records, images, "sdpa"))
            found["kept"].append(ours(records, images, folder / f"kept-{repeat}", tower))
            found["opened"].append(ours(records, images, folder / f"opened-{repeat}", None))
        spent = {way: median([step.seconds for step in steps]) for way, steps in found.items()}
        for way, than, demand, what in (
            ("kept", "eager", ">= 1.15", "kept tower states / plain loop, eager attention"),
            ("kept", "sdpa", ">= 1.05", "kept tower states / plain loop, SDPA"),
            ("opened", "sdpa", ">= 1", "no kept states / plain loop, SDPA"),
        ):
            ratio, detail = quotient(spent[than], spent[way])
            yield {
                "what": f"samples per processor second, stage 1: {what}",
                "ratio": ratio,
                "demand": demand,
                "detail": f"a step takes {detail}; batches of {BATCH}, {torch.get_num_threads()} threads",
            }
        waiting = {way: statistics.median(step.waiting for step in steps) for way, steps in found.items()}
        yield {
            "what": "share of a step in which images are opened and prompts built, in the same process",
            "ratio": waiting["opened"],
            "demand": "<= 0.15",
            "detail": f"{waiting['kept']:.3f} with kept tower states",
        }
        yield {
            "what": "share of a step spent waiting, stage 2 on a mixture of files, workers=1",
            "ratio": from_files(folder),
            "demand": "<= 0.15",
            "detail": f"COCO's and Visual Genome's files of {FILES} generated images",
        }
