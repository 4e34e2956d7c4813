"""Stage 1 on the demo checkpoint: samples a second against a plain loop, and what of a step is waiting for data."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from pathlib import Path

import torch
from torch.optim import AdamW

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data import Mixture, Record, load
from gpt4roi_nb.data.collate import Collator
from gpt4roi_nb.data.scenes import scene_records
from gpt4roi_nb.data.scenes.formats.write import write_world
from gpt4roi_nb.train import train
from gpt4roi_nb.train.parts import choose_parts

SCENES, BATCH, STEPS, WARM_UP = 16, 8, 8, 2
FILES = 60  # pictures of the generated world
RATE = 1e-3


def plain_loop(records: list[Record], folder: Path) -> float:
    """Processor seconds a step as one would write it first: every picture through the tower each time, eager attention,
    float32."""
    gpt4roi = GPT4RoI.from_pretrained(device="cpu", dtype="float32", attn_implementation="eager")
    choose_parts(gpt4roi.model, ("region_encoder",))
    collator = Collator(gpt4roi.processor, folder)
    optimizer = AdamW((p for p in gpt4roi.model.parameters() if p.requires_grad), lr=RATE)
    gpt4roi.model.train()
    for step in range(WARM_UP + STEPS):
        if step == WARM_UP:
            started = time.process_time()
        batch = collator([records[(step * BATCH + k) % len(records)] for k in range(BATCH)])
        del batch["ids"], batch["sources"]
        gpt4roi.model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return (time.process_time() - started) / STEPS


def ours(records: list[Record], folder: Path, out: Path) -> tuple[float, float, float]:
    """Processor seconds a step of `train` with kept tower states; the share of its time that is spent on data, and that
    share without kept states, when pictures are opened in the same process."""
    seconds, waiting = [], []
    for name, cache in (("kept", out / "tower"), ("opened", None)):
        gpt4roi = GPT4RoI.from_pretrained(device="cpu", dtype="float32")
        times: list[float] = []
        with contextlib.redirect_stdout(io.StringIO()):
            run = train(
                gpt4roi, records, folder, out / name, stage=1, learning_rate=RATE, warmup_steps=0, batch_size=BATCH,
                max_steps=WARM_UP + STEPS, logging_steps=1, save_steps=1000, tower_cache=cache, progress=False,
                report_to="none", report=lambda _, times=times: times.append(time.process_time()),
            )  # fmt: skip
        seconds.append((times[WARM_UP + STEPS - 1] - times[WARM_UP - 1]) / STEPS)
        lines = [line for line in run.history if "waiting" in line][WARM_UP:]
        waiting.append(sum(line["waiting"] for line in lines) / len(lines))
    return seconds[0], waiting[0], waiting[1]


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


def run() -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = GPT4RoI.from_pretrained(device="cpu").model.config
        records = scene_records(folder / "pictures", SCENES, seed=3, size=config.vision_config.image_size)
        plain = plain_loop(records, folder / "pictures")
        kept, waiting_kept, waiting_opened = ours(records, folder / "pictures", folder / "out")
        waiting_files = from_files(folder)
    threads = torch.get_num_threads()
    return [
        {
            "what": "samples a processor second, stage 1 with kept tower states / plain loop",
            "ratio": plain / kept,
            "demand": ">= 1.15",
            "detail": f"{BATCH / kept:.1f} against {BATCH / plain:.1f}, batches of {BATCH}, {threads} threads",
        },
        {
            "what": "share of a step in which pictures are opened and prompts built, in the same process",
            "ratio": waiting_opened,
            "demand": "<= 0.15",
            "detail": f"{waiting_kept:.3f} with kept tower states",
        },
        {
            "what": "share of a step spent waiting, stage 2 on a mixture of files, workers=1",
            "ratio": waiting_files,
            "demand": "<= 0.15",
            "detail": f"COCO's and Visual Genome's files of {FILES} generated pictures",
        },
    ]
