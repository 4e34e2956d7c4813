"""Hidden states of a frozen vision tower on disk, so that each image passes through it once and not once per epoch.

A cache file is found by its image's path, and stores the image file's size and modification time: if the image has
changed since, it does not count. Another tower, other layers or other pixels have another folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from gpt4roi_nb.checkpoint.disk import room_for
from gpt4roi_nb.data.problems import BadRecord
from gpt4roi_nb.files import parse_json, replacing, stamp_of
from gpt4roi_nb.images import load_image
from gpt4roi_nb.inference.loaded_model import LoadedModel
from gpt4roi_nb.memory import in_words
from gpt4roi_nb.processor import GPT4RoIImageProcessor

BATCH_SIZE = 16  # images that pass through the tower together
REMEDY = "What it holds is kept: free some space and repeat the call, or give a tower_cache on another disk"
SPARE = 1.05  # free disk space required, relative to what will be written
HEADER = 512  # bytes of a file besides its values
STATES = "states"


@dataclass(frozen=True)
class TowerCache:
    """Cached hidden states of images. Any number of workers can use it.

    Attributes:
        folder: for this tower, these layers and this way of making pixels.
        shape: (L, grid², C), of an image's hidden states.
        dtype: of the hidden states.
    """

    folder: Path
    shape: tuple[int, int, int]
    dtype: torch.dtype

    @property
    def bytes_per_image(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize + HEADER

    def get(self, image: Path) -> tuple[Tensor, tuple[int, int]] | None:
        """Read an image's hidden states.

        Returns:
            The states, (L, grid², C), and the image's width and height; None if the image, as it is now, is not cached.
        """
        with self._opened(image) as (file, size):
            return None if file is None else (file.get_tensor(STATES), size)

    def has(self, image: Path) -> bool:
        """Whether the image, as it is now, is cached."""
        with self._opened(image) as (file, _):
            return file is not None

    def put(self, image: Path, states: Tensor, size: tuple[int, int]) -> None:
        """Write an image's hidden states, as a whole file or none. size: the image's width and height.

        Raises:
            OSError: the disk is full.
        """
        target = self._file(image)
        target.parent.mkdir(parents=True, exist_ok=True)
        facts = {"image": str(image), "stamp": stamp_of(image), "size": json.dumps(size)}
        with (
            room_for(self.folder, self.bytes_per_image, "the tower cache", REMEDY),
            replacing(target, shared=True) as partial,
        ):
            save_file({STATES: states.to(self.dtype).cpu().contiguous()}, partial, metadata=facts)

    def _file(self, image: Path) -> Path:
        name = hashlib.sha256(os.fsencode(image.resolve())).hexdigest()[:40]
        return self.folder / name[:2] / f"{name[2:]}.safetensors"

    @contextlib.contextmanager
    def _opened(self, image: Path) -> Iterator[tuple[Any, tuple[int, int]]]:
        absent = (None, (0, 0))
        try:
            stamp = stamp_of(image)
            opened = safe_open(self._file(image), framework="pt")
        except (OSError, SafetensorError):  # missing, or cut short
            yield absent
            return
        with opened as file:
            facts = file.metadata() or {}
            try:
                width, height = map(int, parse_json(facts["size"], "'size'"))
                whole = facts["stamp"] == stamp and tuple(file.get_slice(STATES).get_shape()) == self.shape
            except (KeyError, TypeError, ValueError, SafetensorError):  # of another origin, or damaged
                whole = False
            yield (file, (width, height)) if whole else absent


def cache_for(folder: Path, loaded: LoadedModel, dtype: torch.dtype) -> TowerCache:
    """The cache for a model's tower, in a subfolder of `folder`.

    dtype: the one that the tower computes in; the cache stores the same, so that nothing is lost.
    """
    model, pixels = loaded.model, loaded.processor.image_processor
    config = model.config
    digest = hashlib.sha256()
    facts = [
        config.vision_config.to_json_string(),
        config.used_layers,
        [pixels.image_size, pixels.image_mean, pixels.image_std],
        str(dtype),
    ]
    digest.update(json.dumps(facts).encode())
    for name, tensor in sorted(model.vision_tower.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    shape = (len(config.used_layers), config.num_image_tokens, config.vision_config.hidden_size)
    return TowerCache(folder / digest.hexdigest()[:16], shape, dtype)


def fill(
    cache: TowerCache,
    loaded: LoadedModel,
    images: Iterable[Path],
    *,
    report: Callable[[str], object],
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    workers: int = 0,
    progress: bool = True,
    process_index: int = 0,
    num_processes: int = 1,
) -> None:
    """Run the tower on the images that are not cached, and cache them. Damaged images are skipped.

    Args:
        cache: to fill.
        loaded: the model with the tower.
        images: paths; they may repeat.
        report: called beforehand with a sentence that says how many images there are and how large the cache will be.
        autocast: the context in which training computes.
        workers: processes that read images.
        progress: show a progress bar.
        process_index, num_processes: this process's share, if several fill a cache.

    Raises:
        OSError: too little disk space is free; raised before anything is written.
    """
    distinct = sorted(set(images))
    absent = [image for image in distinct if not cache.has(image)]
    cache.folder.mkdir(parents=True, exist_ok=True)
    needed, free = len(absent) * cache.bytes_per_image, shutil.disk_usage(cache.folder).free
    missing = f"{len(absent):,} are still to be encoded, {in_words(needed)}" if absent else "all are cached"
    report(
        f"tower cache: {len(distinct):,} images take {in_words(len(distinct) * cache.bytes_per_image)}; {missing}. "
        f"{in_words(free)} are free for {str(cache.folder)!r}"
    )
    if needed * SPARE > free:
        raise OSError(
            f"the tower cache needs {in_words(needed)}, but {str(cache.folder)!r} has only {in_words(free)} free; "
            "give a folder on another disk, or train without tower_cache"
        )
    # Each process takes its share of all images, not of the missing ones: another process may have begun to write.
    mine = sorted(set(distinct[process_index::num_processes]) & set(absent))
    if not mine:
        return
    pixels = ImagePixels(mine, loaded.processor.image_processor)
    loader: Any = DataLoader(pixels, batch_size=BATCH_SIZE, num_workers=workers, collate_fn=list)
    with tqdm(total=len(mine), unit="image", desc="tower cache", disable=not progress) as bar:
        for batch in loader:
            whole = [entry for entry in batch if entry is not None]
            if whole:
                values = torch.stack([pixel_values for _, pixel_values, _ in whole])
                with loaded.inference() as model, torch.no_grad(), autocast():
                    states = model.tower_states(values)
                for (image, _, size), kept in zip(whole, states, strict=True):
                    cache.put(image, kept, size)
            bar.update(len(batch))


class ImagePixels(Dataset[tuple[Path, Tensor, tuple[int, int]] | None]):
    """(path, pixel values, (width, height)) by number; None for a damaged image."""

    def __init__(self, images: Sequence[Path], processor: GPT4RoIImageProcessor) -> None:
        self.images, self.processor = images, processor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[Path, Tensor, tuple[int, int]] | None:
        try:
            image = load_image(self.images[number])
        except (OSError, ValueError, BadRecord):  # training reports it, with the record that names it
            return None
        return self.images[number], self.processor.pixels(image), image.size
