"""Hidden states of a frozen vision tower on disk, so that each picture goes through the tower once and not each epoch.

A picture's file is found by the picture's path, and holds its size and time of change: of a picture that has changed
since, nothing is kept. What another tower, other layers or other pixels would give lies in another folder.
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
from torch.utils.data import DataLoader
from tqdm import tqdm

from gpt4roi_nb.data.problems import BadRecord
from gpt4roi_nb.images import load_image
from gpt4roi_nb.memory import in_words
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.processor import GPT4RoIImageProcessor

BATCH = 16  # pictures that go through the tower together
SPARE = 1.05  # of free disk over what will be written
HEADER = 512  # bytes of a file beside its numbers
STATES = "states"


@dataclass(frozen=True)
class TowerCache:
    """What is kept of pictures. It can be handed to any number of workers.

    folder: of this tower, these layers and this way of making pixels.
    shape: (L, grid², C) of a picture's hidden states. dtype: theirs.
    """

    folder: Path
    shape: tuple[int, int, int]
    dtype: torch.dtype

    @property
    def bytes_a_picture(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize + HEADER

    def get(self, picture: Path) -> tuple[Tensor, tuple[int, int]] | None:
        """(L, grid², C), and the picture's width and height; None where there is nothing of the picture as it is."""
        with self._opened(picture) as (file, size):
            return None if file is None else (file.get_tensor(STATES), size)

    def has(self, picture: Path) -> bool:
        """Whether something is kept of the picture as it is."""
        with self._opened(picture) as (file, _):
            return file is not None

    def put(self, picture: Path, states: Tensor, size: tuple[int, int]) -> None:
        """Keeps a picture's hidden states: under another name, which is then changed, so that a file is whole."""
        target = self._file(picture)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.part{os.getpid()}")
        facts = {"picture": str(picture), "stamp": _stamp(picture), "size": json.dumps(size)}
        save_file({STATES: states.to(self.dtype).cpu().contiguous()}, partial, metadata=facts)
        partial.replace(target)

    def _file(self, picture: Path) -> Path:
        name = hashlib.sha256(os.fsencode(picture.resolve())).hexdigest()[:40]
        return self.folder / name[:2] / f"{name[2:]}.safetensors"

    @contextlib.contextmanager
    def _opened(self, picture: Path) -> Iterator[tuple[Any, tuple[int, int]]]:
        absent = (None, (0, 0))
        try:
            stamp = _stamp(picture)
            opened = safe_open(self._file(picture), framework="pt")
        except (OSError, SafetensorError):  # not there, or cut short
            yield absent
            return
        with opened as file:
            facts = file.metadata() or {}
            if facts.get("stamp") != stamp or tuple(file.get_slice(STATES).get_shape()) != self.shape:
                yield absent
                return
            width, height = json.loads(facts["size"])
            yield file, (int(width), int(height))


def cache_for(
    folder: Path, model: GPT4RoIForConditionalGeneration, pixels: GPT4RoIImageProcessor, dtype: torch.dtype
) -> TowerCache:
    """The cache of a model's tower below `folder`.

    dtype: that the tower computes in; it is kept in the same, so that nothing is lost.
    """
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
    model: GPT4RoIForConditionalGeneration,
    pixels: GPT4RoIImageProcessor,
    pictures: Iterable[Path],
    *,
    say: Callable[[str], object],
    compute: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    workers: int = 0,
    progress: bool = True,
    part: int = 0,
    parts: int = 1,
) -> None:
    """Has the tower look at those pictures of which nothing is kept. Damaged ones are passed over.

    Args:
        pictures: paths; any of them more than once.
        say: told beforehand how many there are, and how large it will be.
        compute: the context in which training computes, such as autocast.
        workers: processes that read pictures.
        part, parts: this process's share, where several fill a cache.

    Raises:
        OSError: too little free disk; before anything is written.
    """
    distinct = sorted(set(pictures))
    absent = [picture for picture in distinct if not cache.has(picture)]
    cache.folder.mkdir(parents=True, exist_ok=True)
    needed, free = len(absent) * cache.bytes_a_picture, shutil.disk_usage(cache.folder).free
    missing = f"{len(absent):,} are still to be encoded, {in_words(needed)}" if absent else "all are there"
    say(
        f"tower cache: {len(distinct):,} pictures take {in_words(len(distinct) * cache.bytes_a_picture)}; {missing}. "
        f"{in_words(free)} are free for {str(cache.folder)!r}"
    )
    if needed * SPARE > free:
        raise OSError(
            f"the tower cache needs {in_words(needed)}, but {str(cache.folder)!r} has {in_words(free)} free; "
            "name a folder on another disk, or train without tower_cache"
        )
    # Shares of all pictures: another process may have begun to write, and see others absent.
    mine = sorted(set(distinct[part::parts]) & set(absent))
    if not mine:
        return
    device = next(model.vision_tower.parameters()).device
    loader: Any = DataLoader(_Pictures(mine, pixels), batch_size=BATCH, num_workers=workers, collate_fn=list)  # type: ignore[arg-type]
    with tqdm(total=len(mine), unit="picture", desc="tower cache", disable=not progress) as bar:
        for batch in loader:
            whole = [entry for entry in batch if entry is not None]
            if whole:
                with torch.no_grad(), compute():
                    states = model.tower_states(torch.stack([values for _, values, _ in whole]).to(device))
                for (picture, _, size), kept in zip(whole, states, strict=True):
                    cache.put(picture, kept, size)
            bar.update(len(batch))


class _Pictures:
    """(path, pixel values, (width, height)) by number; None for a damaged picture."""

    def __init__(self, pictures: Sequence[Path], pixels: GPT4RoIImageProcessor) -> None:
        self.pictures, self.pixels = pictures, pixels

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> tuple[Path, Tensor, tuple[int, int]] | None:
        try:
            picture = load_image(self.pictures[number])
        except (OSError, ValueError, BadRecord):  # training notes it, with the record that names it
            return None
        return self.pictures[number], self.pixels.picture(picture), picture.size


def _stamp(picture: Path) -> str:
    """What differs when a picture is another one. Raises OSError where there is none."""
    facts = picture.stat()
    return f"{facts.st_size} {facts.st_mtime_ns}"
