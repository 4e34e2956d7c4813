"""Writes a world: the pictures in parallel, then the annotation files from what each picture added.

Everything is written into `OUT.part`, which gets its name when it is whole: a folder `OUT` is always complete.
"""

import multiprocessing
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Generator
from contextlib import ExitStack, closing
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import PIL
from PIL import Image
from tqdm import tqdm

from gpt4roi_nb.data.scenes import make_scene, scene_seed
from gpt4roi_nb.data.world import (
    ade20k,
    captions,
    cityscapes,
    coco,
    facts,
    llava,
    lvis,
    paco,
    referring,
    vcr,
    visual7w,
)
from gpt4roi_nb.data.world.files import Added, JsonFile, ObjectFile, dumps
from gpt4roi_nb.data.world.picture import Picture
from gpt4roi_nb.files import write_json

FORMATS = (facts, coco, referring, captions, vcr, llava, lvis, paco, cityscapes, ade20k, visual7w)
FILES: tuple[JsonFile | ObjectFile, ...] = tuple(file for module in FORMATS for file in module.FILES)

LAYOUT = 2  # of the folder; changes when files move or records change their form
WORLD = "world.json"
SPOOLS = ".spools"
SHARD = 32  # pictures that a worker draws at a time

# JPEG, since the datasets' names end in .jpg, at a quality that shows no traces and with full colour: a fifth of a PNG.
JPEG = {"quality": 95, "subsampling": 0}
PNG_LEVEL = 3
BYTES_PER_PICTURE = 200_000  # on disk at SIZE, annotations included, in blocks of 4 KiB
SIZE = 336
SPARE = 1.2  # of free disk over what will be used

Spool = tuple[str, str]  # file or source, and the list within it


class Shard(NamedTuple):
    """Pictures `first` to `last` (from 1, both included) of a world that is being written in `folder`."""

    folder: str
    seed: int
    size: int
    n_objects: tuple[int, int]
    first: int
    last: int


def picture(seed: int, number: int, size: int = SIZE, n_objects: tuple[int, int] = (3, 7)) -> Picture:
    """Picture `number`, from 1, of the world of a seed: scene `number - 1` of the series `scenes(seed, …)`."""
    return Picture(number, make_scene(scene_seed(seed, number - 1), size=size, n_objects=n_objects))


def added_by(one: Picture) -> Added:
    """What a picture adds to all the files."""
    added = Added()
    for module in FORMATS:
        module.add(one, added)
    return added


def _parent(path: Path, known: set[Path]) -> Path:
    if path.parent not in known:
        path.parent.mkdir(parents=True, exist_ok=True)
        known.add(path.parent)
    return path


def _link(source: Path, name: Path) -> None:
    """A hard link, which costs no space; a relative symbolic one where the file system has no hard links."""
    try:
        os.link(source, name)
    except OSError:
        name.symlink_to(os.path.relpath(source, name.parent))


def _write_shard(shard: Shard) -> dict[Spool, bytes]:
    """Writes the files of some pictures; returns their records, one JSON line each, by spool."""
    folder, known = Path(shard.folder), set[Path]()
    lines: dict[Spool, list[bytes]] = defaultdict(list)
    for number in range(shard.first, shard.last + 1):
        one = picture(shard.seed, number, shard.size, shard.n_objects)
        added = added_by(one)
        image = _parent(folder / "images" / f"{one.stem}.jpg", known)
        Image.fromarray(one.scene.image).save(image, "JPEG", **JPEG)
        for name in added.links:
            _link(image, _parent(folder / name, known))
        for name, array in added.pngs.items():
            Image.fromarray(array).save(_parent(folder / name, known), "PNG", compress_level=PNG_LEVEL)
        for name, content in added.texts.items():
            _parent(folder / name, known).write_bytes(dumps(content))
        for file, part, record in added.rows:
            lines[file, part].append(dumps(record) + b"\n")
    return {spool: b"".join(rows) for spool, rows in lines.items()}


def _shards(folder: Path, images: int, seed: int, size: int, n_objects: tuple[int, int]) -> list[Shard]:
    firsts = range(1, images + 1, SHARD)
    return [Shard(str(folder), seed, size, n_objects, k, min(k + SHARD - 1, images)) for k in firsts]


def _written(shards: list[Shard], workers: int) -> Generator[dict[Spool, bytes], None, None]:
    if workers < 1:
        yield from map(_write_shard, shards)
        return
    # spawn, since forking a process that runs threads (a notebook's, torch's) can lock up
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_write_shard, shards)


def _check_disk(folder: Path, images: int, size: int) -> None:
    needed = images * BYTES_PER_PICTURE * max(0.5, (size / SIZE) ** 2) * SPARE
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{images} images of {size} pixels need about {needed / 1e9:.2g} GB, but {str(folder)!r} has "
            f"{free / 1e9:.2g} GB free; ask for fewer or smaller images, or write to another disk"
        )


def _check_target(folder: Path, partial: Path) -> None:
    if folder.exists():
        raise FileExistsError(f"{str(folder)!r} exists already; name a new folder, or remove that one first")
    if partial.exists():
        raise FileExistsError(
            f"{str(partial)!r} exists: another run is writing this world, or one was cut short; if none is running, "
            "remove it and start again"
        )


def write_world(
    folder: str | Path,
    images: int,
    *,
    seed: int = 1,
    size: int = SIZE,
    n_objects: tuple[int, int] = (3, 7),
    workers: int = 0,
    progress: bool = True,
) -> Path:
    """Write a world of `images` pictures with the annotation files of every dataset.

    Args:
        folder: is made here, and must not exist.
        images: how many pictures, from 2 up. Every tenth is for validation, beginning with the first.
        seed: the same seed, number, size and n_objects give the same bytes, for any number of workers.
        size: side of the square pictures in pixels.
        n_objects: least and most objects of a picture, both included; at least 2.
        workers: processes; 0 draws in this one.
        progress: show a progress bar.

    Returns:
        The folder.

    Raises:
        FileExistsError: the folder exists, or a run for it was cut short.
        OSError: too little free disk; checked before anything is written.
        ValueError: an argument is out of range.
    """
    if images < 2:
        raise ValueError(f"images must be at least 2, one for validation and one for training; got {images}")
    if n_objects[0] < 2:
        raise ValueError(f"n_objects must begin at 2 or more, since many questions compare two; got {n_objects}")
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".part")
    _check_target(folder, partial)
    make_scene(scene_seed(seed, 0), size=size, n_objects=n_objects)  # refuses wrong arguments before there is a folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check_disk(folder.parent, images, size)
    partial.mkdir()
    try:
        counts = _fill(partial, _shards(partial, images, seed, size, n_objects), images, workers, progress)
        summary = {
            "layout": LAYOUT,
            "seed": seed,
            "images": images,
            "size": size,
            "n_objects": list(n_objects),
            "records": {file: dict(sorted(parts.items())) for file, parts in sorted(counts.items())},
            "versions": {
                "gpt4roi_nb": version("gpt4roi_nb"),
                "numpy": np.__version__,
                "pillow": PIL.__version__,
            },
        }
        write_json(partial / WORLD, summary)
        partial.replace(folder)
    except BaseException:  # an interrupt, too, leaves no half a world
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder


def _fill(partial: Path, shards: list[Shard], images: int, workers: int, progress: bool) -> dict[str, Counter[str]]:
    """Writes everything but `world.json`; returns how many records each file's lists have."""
    spools: dict[str, dict[str, Path]] = defaultdict(dict)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    (partial / SPOOLS).mkdir()
    with ExitStack() as stack, tqdm(total=images, unit="image", disable=not progress) as bar:
        handles: dict[Spool, BinaryIO] = {}
        written = stack.enter_context(closing(_written(shards, workers)))  # after an interrupt, ends the processes
        for shard, lines in zip(shards, written, strict=True):
            for (file, part), rows in lines.items():
                if (file, part) not in handles:
                    spools[file][part] = partial / SPOOLS / f"{len(handles)}.jsonl"
                    handles[file, part] = stack.enter_context(spools[file][part].open("wb"))
                handles[file, part].write(rows)
                counts[file][part or "records"] += rows.count(b"\n")
            bar.update(shard.last - shard.first + 1)
    known: set[Path] = set()
    for entry in FILES:
        source = entry.source if isinstance(entry, ObjectFile) else entry.path
        entry.write(_parent(partial / entry.path, known), spools.get(source, {}))
    shutil.rmtree(partial / SPOOLS)
    return counts
