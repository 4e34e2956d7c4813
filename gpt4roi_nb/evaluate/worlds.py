"""A generated world to measure on, where no data is given."""

from __future__ import annotations

from pathlib import Path

from gpt4roi_nb.data.world.write import LAYOUT, write_world

IMAGES = 400  # every tenth is for validation
SEED = 606  # of no scene that the demo checkpoint was trained on


def own_world(images: int = IMAGES, seed: int = SEED, cache: str | Path | None = None) -> Path:
    """The folder of a world in the user's cache, written when it is first asked for (about 10 seconds).

    cache: a folder instead of `~/.cache/gpt4roi_nb`.
    """
    folder = Path(cache) if cache is not None else Path.home() / ".cache" / "gpt4roi_nb"
    world = folder / f"world-{LAYOUT}-{images}-{seed}"
    return world if world.is_dir() else write_world(world, images, seed=seed, progress=False)
