"""A generated world to measure on, where no data is given."""

from __future__ import annotations

import time
from pathlib import Path

from gpt4roi_nb.data.scenes.formats.write import LAYOUT, write_world

IMAGES = 400  # every tenth is for validation
PATIENCE = 600  # seconds that another process may take to write it
SEED = 606  # of no scene that the demo checkpoint was trained on


def own_world(images: int = IMAGES, seed: int = SEED, cache: str | Path | None = None) -> Path:
    """The folder of a world in the user's cache, written when it is first asked for (about 10 seconds).

    Where another process is writing it already, this one waits for it.

    cache: a folder instead of `~/.cache/gpt4roi_nb`.
    """
    folder = Path(cache) if cache is not None else Path.home() / ".cache" / "gpt4roi_nb"
    world = folder / f"world-{LAYOUT}-{images}-{seed}"
    deadline = time.monotonic() + PATIENCE
    while not world.is_dir():
        try:
            return write_world(world, images, seed=seed, progress=False)
        except FileExistsError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
    return world
