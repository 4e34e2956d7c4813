"""The generated world: images with all their annotation files written per second, by two processes.

Counted in processor time, the processes' start included, since another program's work would only ever add to the
seconds on the clock; those are told beside it.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from gpt4roi_nb.data.scenes.formats.write import write_world

IMAGES = 1600  # so many that the start of the processes does not decide
WORKERS = 2
DEMANDED = 60.0  # images a second on 2 cores


def processor_seconds() -> float:
    """Of this process and its ended children."""
    return sum(os.times()[:4])


def run() -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        started, before = time.perf_counter(), processor_seconds()
        world = write_world(Path(folder) / "world", IMAGES, workers=WORKERS, progress=False)
        seconds, spent = time.perf_counter() - started, processor_seconds() - before
        used = sum(file.stat().st_blocks * 512 / file.stat().st_nlink for file in world.rglob("*") if file.is_file())
    rate = IMAGES / (spent / WORKERS)
    return [
        {
            "what": f"images written a second by {WORKERS} processes / {DEMANDED:g}",
            "ratio": rate / DEMANDED,
            "demand": ">= 1",
            "detail": (
                f"{rate:.0f} a second on free cores, {IMAGES / seconds:.0f} on the clock; "
                f"{used / IMAGES / 1000:.0f} kB of disk an image"
            ),
        }
    ]
