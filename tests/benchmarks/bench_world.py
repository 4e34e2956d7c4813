"""The generated world: pictures with all their annotation files written a second, by two processes."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from gpt4roi_nb.data.world.write import write_world

IMAGES = 400
WORKERS = 2
DEMANDED = 20.0  # images a second on 2 cores


def run() -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        world = write_world(Path(folder) / "world", IMAGES, workers=WORKERS, progress=False)
        seconds = time.perf_counter() - started
        used = sum(file.stat().st_blocks * 512 / file.stat().st_nlink for file in world.rglob("*") if file.is_file())
    rate = IMAGES / seconds
    return [
        {
            "what": f"images written a second by {WORKERS} processes / {DEMANDED:g}",
            "ratio": rate / DEMANDED,
            "demand": ">= 1",
            "detail": f"{rate:.0f} a second, their start included; {used / IMAGES / 1000:.0f} kB of disk an image",
        }
    ]
