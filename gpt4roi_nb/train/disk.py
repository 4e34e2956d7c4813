"""A disk that is full, in words: before the first step, before a checkpoint is written, or while it is."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from gpt4roi_nb.memory import in_words

SPARE_BYTES = 1_000_000  # for the small files
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What PyTorch and safetensors say of a file that could not be written whole; neither keeps the system's error number.
FULL_WORDS = ("inline_container", "PytorchStreamWriter", "os error 28", "os error 122", "os error 27")


def tensor_bytes(values: Iterable[Any]) -> int:
    """Bytes of the tensors among some values, also within dictionaries, as an optimizer keeps its state."""
    total = 0
    for value in values:
        if isinstance(value, Tensor):
            total += value.numel() * value.element_size()
        elif isinstance(value, dict):
            total += tensor_bytes(value.values())
    return total


@dataclass(frozen=True)
class DiskUse:
    """What a training writes, in bytes and numbers of files.

    checkpoint: bytes of one. model: bytes of the trained model, which is written at the end.
    keep: how many checkpoints are kept; while the next one is written, there is one more.
    writes: how many are yet to be written. present: how many are there. continued: whether it goes on from those;
    otherwise its first checkpoint takes their place.
    """

    checkpoint: int
    model: int
    keep: int
    writes: int
    present: int = 0
    continued: bool = False

    @property
    def most(self) -> int:
        """The most checkpoints that there are at a time, the one that is being written included."""
        kept = self.writes + (self.present if self.continued else 0)
        return max(min(self.keep + 1, kept), self.present + min(1, self.writes))

    @property
    def needed(self) -> int:
        """Bytes beside those of the checkpoints that are there."""
        kept = min(self.keep, self.writes + (self.present if self.continued else 0))
        at_the_end = self.checkpoint * (kept - self.present) + self.model
        return max(self.checkpoint * (self.most - self.present), at_the_end)


def check_disk(folder: Path, use: DiskUse) -> None:
    """Compare what a training writes with what is free. folder: it exists.

    Raises:
        OSError: too little is free.
    """
    free = shutil.disk_usage(folder).free
    if free < use.needed + SPARE_BYTES:
        raise OSError(
            errno.ENOSPC,
            f"this training does not fit into {str(folder)!r}: it writes checkpoints of {in_words(use.checkpoint)}, of "
            f"which {use.most} are there at a time (keep={use.keep}, and one that is being written), and a model of "
            f"{in_words(use.model)}. That needs {in_words(use.needed + SPARE_BYTES)}, but {in_words(free)} are free: "
            "free some room, name an output_dir on another disk, or lower keep",
        )


@contextmanager
def room_for(folder: Path, needed: int, what: str) -> Iterator[None]:
    """Write something into a folder.

    Args:
        folder: it exists.
        needed: bytes that it takes, about.
        what: how messages call it.

    Raises:
        OSError: its disk has less room, or turns out to while the block writes.
    """
    needed += SPARE_BYTES
    free = shutil.disk_usage(folder).free
    advice = (
        f"it needs {in_words(needed)}, and {in_words(free)} were free. What was written before is untouched: free some "
        "room, and run the same call again, or name an output_dir on another disk"
    )
    if free < needed:
        raise OSError(errno.ENOSPC, f"{what} does not fit into {str(folder)!r}: {advice}")
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if getattr(error, "errno", None) in FULL or any(words in str(error) for words in FULL_WORDS):
            raise OSError(errno.ENOSPC, f"{what} could not be written whole to {str(folder)!r}: {advice}") from error
        raise
