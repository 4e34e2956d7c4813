"""Executing a plan: file by file into a folder beside the target, so that it can be stopped and continued."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from gpt4roi_nb.checkpoint.delta import Adder
from gpt4roi_nb.checkpoint.plan import Step
from gpt4roi_nb.checkpoint.shards import Shards
from gpt4roi_nb.files import alone_in, read_json, replacing, write_json
from gpt4roi_nb.typed import typed_fields

MAX_SHARD_BYTES = 1_000_000_000
MARGIN_BYTES = 50_000_000  # for the small files
PROGRESS_FILE = "progress.json"
_STATE = {"finished": dict[str, int], "checked": list[str], "doubts": list[str]}  # beside the plan


def assign(steps: Sequence[Step], dtype: torch.dtype) -> dict[str, list[Step]]:
    """Divide the tensors among files, in order, up to `MAX_SHARD_BYTES` per file: file name → its tensors."""
    groups: list[list[Step]] = [[]]
    size = 0
    for step in steps:
        if groups[-1] and size + step.bytes(dtype) > MAX_SHARD_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(step)
        size += step.bytes(dtype)
    return {f"model-{n:05}-of-{len(groups):05}.safetensors": group for n, group in enumerate(groups, start=1)}


def fingerprint(dtype: torch.dtype, *several: Shards | None) -> list[Any]:
    """What an unfinished conversion must have in common with this one, so that it can be continued."""
    states = [(file, file.stat()) for shards in several if shards is not None for file in shards.files]
    return [str(dtype), *([str(file.resolve()), state.st_size, state.st_mtime_ns] for file, state in states)]


def finished_files(partial: Path, plan: dict[str, Any]) -> dict[str, int]:
    """The files that an interrupted run of the same conversion has finished, with their sizes in bytes.

    Raises:
        FileExistsError: `partial` exists and is not an unfinished conversion.
    """
    progress = partial / PROGRESS_FILE
    if not progress.is_file():
        left = [] if not partial.exists() else [path.name for path in partial.iterdir()] if partial.is_dir() else ["."]
        if [name for name in left if name != f"{PROGRESS_FILE}.part"]:
            raise FileExistsError(f"{str(partial)!r} exists and is not an unfinished conversion; move it away")
        return {}
    written = read_json(progress)
    if written.get("plan") != plan:
        return {}  # from other files, or to another dtype: nothing can be reused
    state = typed_fields({name: written.get(name) for name in _STATE}, _STATE, repr(str(progress)))
    finished: dict[str, int] = state["finished"]
    return {
        file: size
        for file, size in finished.items()
        if (partial / file).is_file() and (partial / file).stat().st_size == size
    }


def check_disk(folder: Path, partial: Path, finished: dict[str, int], needed: int) -> None:
    """Raise OSError if a folder's disk has no room for `needed` more bytes.

    Unfinished files of an earlier run in `partial` will be deleted, so they count as free.
    """
    old = [path for path in partial.iterdir() if path.name not in finished] if partial.is_dir() else []
    left = sum(path.stat().st_size for path in old)
    free = shutil.disk_usage(folder).free + left
    if free < needed + MARGIN_BYTES:
        raise OSError(
            errno.ENOSPC,
            f"the conversion needs {(needed + MARGIN_BYTES) / 1e9:.2f} GB more in {str(folder)!r}, but only "
            f"{free / 1e9:.2f} GB are free; free some space, or choose another target",
        )


@contextmanager
def begun(partial: Path, plan: dict[str, Any], finished: dict[str, int]) -> Iterator[None]:
    """Hold the work's folder for this process alone, with only the finished files in it."""
    with alone_in(partial, "conversion"):
        for path in partial.iterdir():
            if path.name not in finished and path.name != PROGRESS_FILE:
                path.unlink()  # a partial file of a run that was killed
        known = read_json(partial / PROGRESS_FILE) if finished else {}  # if so, of this same plan
        write_json(partial / PROGRESS_FILE, {"checked": [], "doubts": [], **known, "plan": plan, "finished": finished})
        yield


def write_tensors(
    partial: Path,
    files: dict[str, list[Step]],
    finished: dict[str, int],
    dtype: torch.dtype,
    progress: bool,
    adder: Adder,
) -> None:
    """Write the files that are not finished. Afterwards the adder has the findings about the base from all files."""
    state = read_json(partial / PROGRESS_FILE)
    adder.checked = [*dict.fromkeys([*state["checked"], *adder.checked])]
    adder.doubts = [*dict.fromkeys([*state["doubts"], *adder.doubts])]
    total = sum(step.bytes(dtype) for group in files.values() for step in group)
    with tqdm(total=total, unit="B", unit_scale=True, disable=not progress, desc="converting") as bar:
        for file, group in files.items():
            if file not in finished:
                tensors = {}
                for step in group:
                    tensors[step.fate.name] = step.run(dtype, adder)
                    bar.update(step.bytes(dtype))
                finished[file] = _write_file(partial / file, tensors)
                found = {"checked": adder.checked, "doubts": adder.doubts}
                write_json(partial / PROGRESS_FILE, {**state, **found, "finished": finished})
            else:
                bar.update(sum(step.bytes(dtype) for step in group))


def _write_file(file: Path, tensors: dict[str, Tensor]) -> int:
    """Write a whole file or none. Returns its size in bytes."""
    try:
        with replacing(file) as partial:
            save_file(tensors, partial, metadata={"format": "pt"})
            with partial.open("rb") as written:
                os.fsync(written.fileno())  # on disk before it gets its name
    except (OSError, SafetensorError) as error:
        raise OSError(
            errno.EIO,
            f"{file.name} could not be written ({error}); make sure that the disk has room, and run the same command "
            f"again: the finished files stay in {str(file.parent)!r}",
        ) from error
    return file.stat().st_size
