"""The generated world: images with all their annotation files written per second, by two processes.

Counted in processor time, the processes' start included, since another program's work only adds to the seconds on the
clock, which stand beside it. Work that waits for one process alone shows on the clock only: on a machine with nothing
else to do, that is the figure.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from timing import median, timed

from gpt4roi_nb.data.scenes.formats.write import write_world

IMAGES = 1600  # so many that the start of the processes does not decide
WORKERS = 2
REPEATS = 3
DEMANDED = 60.0  # images a second on 2 cores


def run() -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        times = []
        for repeat in range(REPEATS):
            world = Path(folder) / f"world-{repeat}"
            times.append(timed(lambda world=world: write_world(world, IMAGES, workers=WORKERS, progress=False)))
        used = sum(file.stat().st_blocks * 512 / file.stat().st_nlink for file in world.rglob("*") if file.is_file())
    took = median(times)
    rate = IMAGES / (took.processor / WORKERS)
    return [
        {
            "what": f"images written a second by {WORKERS} processes / {DEMANDED:g}",
            "ratio": rate / DEMANDED,
            "demand": ">= 1",
            "detail": (
                f"{rate:.0f} a second, {IMAGES / took.wall:.0f} by the clock; {took}; "
                f"{used / IMAGES / 1000:.0f} kB of disk an image"
            ),
        }
    ]
