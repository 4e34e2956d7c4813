"""Write a world: the images in parallel, then the annotation files from what each image added.

Everything is written into `OUT.part`, which is renamed at the end, so a folder `OUT` is always complete. The next run
for the same world continues an interrupted one: what each shard of images added is kept until the end.
"""

import functools
import json
import math
import os
import pickle
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import PIL
from PIL import Image
from tqdm import tqdm

from gpt4roi_nb.arguments import whole_number
from gpt4roi_nb.data.scenes.formats import (
    ade20k,
    captions,
    cityscapes,
    coco,
    facts,
    gar_bench,
    llava,
    lvis,
    own,
    own_benchmarks,
    paco,
    ref_l4,
    referring,
    subsets,
    vcr,
    visual7w,
    vstar,
)
from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile, ObjectFile, dumps, png
from gpt4roi_nb.data.scenes.formats.world_image import WorldImage
from gpt4roi_nb.data.scenes.render import CANVAS, PIXELS_PER_UNIT
from gpt4roi_nb.data.scenes.scene import SCALES, make_scene, scene_seed
from gpt4roi_nb.data.scenes.shapes import ANGLES
from gpt4roi_nb.data.scenes.sprites import Traces, keep, traces
from gpt4roi_nb.data.scenes.workers import worker_processes
from gpt4roi_nb.files import alone_in, read_json, replacing, write_json

FORMATS = (
    *(facts, coco, referring, captions, vcr, llava, lvis, paco, subsets, cityscapes, ade20k, visual7w),
    *(gar_bench, vstar, ref_l4, own, own_benchmarks),
)
FILES: tuple[JsonFile | ObjectFile, ...] = tuple(file for module in FORMATS for file in module.FILES)

LAYOUT = 4  # version of the folder; changes when files move or records change their form
WORLD = "world.json"
PLAN = ".plan.json"  # in OUT.part: what is being written, so that another run can tell whether it writes the same
SHARDS = ".shards"  # what each finished shard added to the annotation files
SPOOLS = ".spools"
SHARD = 32  # images that a worker draws at a time
MANY = 8  # from so many shards on, the processes first trace all solids together

# JPEG, since the datasets' names end in .jpg, without visible artefacts and with full colour: a fifth of a PNG's size.
JPEG = {"quality": 95, "subsampling": 0}
BYTES_PER_IMAGE = 200_000  # on disk at SIZE, annotations included, in blocks of 4 KiB
SIZE = 336
SPARE = 1.2  # free disk that is required, over what will be used

Spool = tuple[str, str]  # file or source, and the list in it


class Shard(NamedTuple):
    """Images `first` to `last` (from 1, both included) of a world that is being written in `folder`."""

    folder: str
    seed: int
    size: int
    n_objects: tuple[int, int]
    first: int
    last: int


def shown(seed: int, number: int, size: int = SIZE, n_objects: tuple[int, int] = (3, 7)) -> WorldImage:
    """Draw image `number`, from 1, of the world of a seed: scene `number - 1` of the series `scenes(seed, …)`."""
    return WorldImage(number, make_scene(scene_seed(seed, number - 1), size=size, n_objects=n_objects))


def added_by(one: WorldImage) -> Added:
    """Return what an image adds to all the files."""
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
    """Make a hard link, which takes no space, or a copy if the file system has no hard links.

    Not a symbolic link: it would lead out of the folder of a format, and the loaders read nothing outside of that."""
    try:
        os.link(source, name)
    except FileExistsError:  # from an interrupted run
        name.unlink()
        _link(source, name)
    except OSError:
        name.unlink(missing_ok=True)
        shutil.copyfile(source, name)


def _write_shard(shard: Shard, traced: Path | None = None) -> None:
    """Write the files of a shard's images, and then their records, one JSON line each, as the shard's own file.

    traced: a file with the traced solids, if they were traced before.
    """
    if traced is not None:
        _keep_traced(traced)
    folder, known = Path(shard.folder), set[Path]()
    lines: dict[Spool, list[bytes]] = defaultdict(list)
    for number in range(shard.first, shard.last + 1):
        one = shown(shard.seed, number, shard.size, shard.n_objects)
        added = added_by(one)
        image = _parent(folder / "images" / f"{one.stem}.jpg", known)
        Image.fromarray(one.scene.image).save(image, "JPEG", **JPEG)
        for name in added.links:
            _link(image, _parent(folder / name, known))
        for name, array in added.images.items():
            Image.fromarray(array).save(_parent(folder / name, known), "JPEG", **JPEG)
        for name, array in added.pngs.items():
            _parent(folder / name, known).write_bytes(png(array))
        for name, content in added.texts.items():
            _parent(folder / name, known).write_bytes(dumps(content))
        dumped: dict[int, bytes] = {}  # by the record's id in Python, since several files have the same record
        for file, part, record in added.rows:
            if id(record) not in dumped:
                dumped[id(record)] = dumps(record) + b"\n"
            lines[file, part].append(dumped[id(record)])
    head = [[file, part, sum(map(len, rows))] for (file, part), rows in lines.items()]
    with replacing(_shard_file(folder, shard)) as partial:
        partial.write_bytes(b"".join([dumps(head), b"\n", *(row for rows in lines.values() for row in rows)]))


def _shard_file(folder: Path, shard: Shard) -> Path:
    return folder / SHARDS / f"{shard.first}.jsonl"


def _added_by_shard(file: Path) -> Iterator[tuple[Spool, bytes]]:
    """The content of a shard's file: records, one JSON line each, by spool."""
    with file.open("rb") as stream:
        for name, part, size in json.loads(stream.readline()):
            yield (name, part), stream.read(size)


def _shards(folder: Path, images: int, seed: int, size: int, n_objects: tuple[int, int]) -> list[Shard]:
    firsts = range(1, images + 1, SHARD)
    return [Shard(str(folder), seed, size, n_objects, k, min(k + SHARD - 1, images)) for k in firsts]


def _written(shards: list[Shard], workers: int) -> Generator[Shard, None, None]:
    """Write shards, in this process or in several; yield each when it is done."""
    if workers < 1 or not shards:
        for shard in shards:
            _write_shard(shard)
            yield shard
        return
    with tempfile.TemporaryDirectory() as own, worker_processes(workers) as pool:
        traced = None
        if len(shards) >= MANY:
            traced = Path(own) / "traced"
            solids = [(shape, k, shards[0].size) for shape, angles in ANGLES.items() for k in range(len(angles))]
            traced.write_bytes(pickle.dumps(list(pool.map(_traced, solids))))
        for shard, _ in zip(shards, pool.map(functools.partial(_write_shard, traced=traced), shards), strict=True):
            yield shard


def _traced(solid: tuple[str, int, int]) -> Traces:
    """Trace everything of a solid (shape, angle index) that images of a size need."""
    shape, angle_index, size = solid
    drawn = {1, math.ceil(size / CANVAS)}  # layouts are tried at scale 1
    return traces(shape, angle_index, [scale * PIXELS_PER_UNIT * k for scale in SCALES.values() for k in drawn])


@functools.cache
def _keep_traced(file: Path) -> None:
    for traced in pickle.loads(file.read_bytes()):
        keep(traced)


def _check_disk(folder: Path, images: int, size: int) -> None:
    needed = images * BYTES_PER_IMAGE * max(0.5, (size / SIZE) ** 2) * SPARE
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{images} images of {size} pixels need about {needed / 1e9:.2g} GB, but {str(folder)!r} has "
            f"{free / 1e9:.2g} GB free; ask for fewer or smaller images, or write to another disk"
        )


@contextmanager
def _taken(partial: Path, plan: dict[str, Any]) -> Iterator[None]:
    """Take the folder that is being written for this run alone: a new one, or one of the same world to continue."""
    with alone_in(partial, "run"):
        file = partial / PLAN
        if not file.exists():
            if any(partial.iterdir()):
                raise FileExistsError(
                    f"{str(partial)!r} is not an interrupted world; remove it, or name another folder"
                )
            write_json(file, plan)
        elif (before := read_json(file)) != plan:
            differing = sorted(key for key in plan if before.get(key) != plan[key])
            raise FileExistsError(
                f"{str(partial)!r} is part of another world: {', '.join(differing)} differ; give the same to continue "
                "it, remove it, or name another folder"
            )
        yield


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
    """Write a world of `images` images with the annotation files of every dataset.

    If writing is interrupted (killed, out of disk), `folder`.part stays, and the same call continues it.

    Args:
        folder: the folder to make; it must not exist.
        images: the number of images, from 2 up. Every tenth is for validation, beginning with the first.
        seed: the same seed, images, size and n_objects give the same bytes, for any number of workers.
        size: side of the square images in pixels.
        n_objects: least and most objects per image, both included; at least 2.
        workers: number of worker processes; 0 draws in this one.
        progress: show a progress bar.

    Returns:
        The folder.

    Raises:
        FileExistsError: the folder exists; or its part is being written by another run, or belongs to another world.
        OSError: too little free disk; checked before anything is written.
        ValueError: an argument is out of range.
        TypeError: images, seed or workers is not a whole number.
        RuntimeError: a worker process ended before its work was done.
    """
    images, seed = whole_number(images, "images"), whole_number(seed, "seed", least=0)
    workers = whole_number(workers, "workers", least=0)
    if images < 2:
        raise ValueError(f"images must be at least 2, one for validation and one for training; got {images}")
    if n_objects[0] < 2:
        raise ValueError(f"n_objects must begin at 2 or more, since many questions compare two; got {n_objects}")
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".part")
    if folder.exists():
        raise FileExistsError(f"{str(folder)!r} exists already; name a new folder, or remove that one first")
    make_scene(
        scene_seed(seed, 0), size=size, n_objects=n_objects
    )  # raises for wrong arguments before there is a folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    shards = _shards(partial, images, seed, size, n_objects)
    missing = [shard for shard in shards if not _shard_file(partial, shard).exists()]
    _check_disk(folder.parent, sum(shard.last - shard.first + 1 for shard in missing), size)
    plan = {
        "layout": LAYOUT,
        "seed": seed,
        "images": images,
        "size": size,
        "n_objects": list(n_objects),
        "versions": {
            "gpt4roi_nb": version("gpt4roi_nb"),
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "pyarrow": version("pyarrow"),
        },
    }
    with _taken(partial, plan):
        counts = _fill(partial, shards, images, workers, progress)
        records = {file: dict(sorted(parts.items())) for file, parts in sorted(counts.items())}
        write_json(partial / WORLD, {**plan, "records": records})
        (partial / PLAN).unlink()
        partial.replace(folder)
    return folder


def _fill(partial: Path, shards: list[Shard], images: int, workers: int, progress: bool) -> dict[str, Counter[str]]:
    """Write everything but `world.json`; return how many records each file's lists have."""
    (partial / SHARDS).mkdir(exist_ok=True)
    missing = [shard for shard in shards if not _shard_file(partial, shard).exists()]
    there = images - sum(shard.last - shard.first + 1 for shard in missing)
    bar = tqdm(total=images, initial=there, unit="image", disable=not progress)
    with bar, closing(_written(missing, workers)) as written:  # ends the processes after an interrupt
        for shard in written:
            bar.update(shard.last - shard.first + 1)
    spools: dict[str, dict[str, Path]] = defaultdict(dict)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    shutil.rmtree(partial / SPOOLS, ignore_errors=True)
    (partial / SPOOLS).mkdir()
    with ExitStack() as stack:
        handles: dict[Spool, BinaryIO] = {}
        for shard in shards:
            for (file, part), rows in _added_by_shard(_shard_file(partial, shard)):
                if (file, part) not in handles:
                    spools[file][part] = partial / SPOOLS / f"{len(handles)}.jsonl"
                    handles[file, part] = stack.enter_context(spools[file][part].open("wb"))
                handles[file, part].write(rows)
                counts[file][part or "records"] += rows.count(b"\n")
    known: set[Path] = set()
    for entry in FILES:
        source = entry.source if isinstance(entry, ObjectFile) else entry.path
        entry.write(_parent(partial / entry.path, known), spools.get(source, {}))
    shutil.rmtree(partial / SPOOLS)
    shutil.rmtree(partial / SHARDS)
    return counts
