"""A generated world to measure on if no data is given, and how a card names the data of such a world."""

from __future__ import annotations

import time
from pathlib import Path

from gpt4roi_nb.data.scenes.formats.write import LAYOUT, WORLD, write_world

IMAGES = 400  # every tenth is for validation
PATIENCE = 600  # seconds to wait for another process that writes it
SEED = 606  # its scenes are not among those that the demo checkpoint was trained on


def own_world(images: int = IMAGES, seed: int = SEED, cache: str | Path | None = None) -> Path:
    """Return the folder of a world in the user's cache, and write it on first use (about 10 seconds).

    If another process is already writing it, wait for that one.

    Args:
        images: number of images.
        seed: of the world.
        cache: a folder instead of `~/.cache/gpt4roi_nb`.

    Raises:
        FileExistsError: another process did not finish writing it within `PATIENCE` seconds.
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


def title_of(dataset: str, root: Path) -> str:
    """Return the title of a dataset for a card, which says so if its files are generated ones.

    Without that, a result on a generated world would read like one on the dataset, beside its published figures.

    Args:
        dataset: title of the dataset whose form the files have.
        root: folder of the data: a generated world, the folder of one of its datasets, or any other.

    >>> from gpt4roi_nb.data.scenes.formats.write import write_world
    >>> from gpt4roi_nb.evaluate.worlds import title_of
    >>> world = write_world("world", 2, progress=False)
    >>> title_of("COCO 2017", world), title_of("COCO 2017", world / "coco"), title_of("COCO 2017", world.parent)
    ('COCO 2017 (generated world)', 'COCO 2017 (generated world)', 'COCO 2017')
    """
    generated = any((folder / WORLD).is_file() for folder in (root, root.parent))
    return f"{dataset} (generated world)" if generated else dataset
