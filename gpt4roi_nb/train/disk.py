"""What a training writes, compared with the free space before the first step."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt4roi_nb.checkpoint.disk import SPARE_BYTES
from gpt4roi_nb.memory import in_words

# The end of `room_for`'s messages.
REMEDY = (
    "Everything written before is intact: free some space and repeat the call, or give an output_dir on another disk"
)


def tensor_bytes(values: Iterable[Any]) -> int:
    """Count the bytes of all tensors among some values, also in dictionaries such as an optimizer's state."""
    total = 0
    for value in values:
        if isinstance(value, Tensor):
            total += value.numel() * value.element_size()
        elif isinstance(value, dict):
            total += tensor_bytes(value.values())
    return total


@dataclass(frozen=True)
class DiskUse:
    """What a training writes, in bytes and numbers of checkpoints.

    Attributes:
        checkpoint: bytes of one checkpoint.
        model: bytes of the trained model, which is written at the end.
        keep: how many checkpoints are kept; while the next one is written, there is one more.
        writes: how many are yet to be written.
        present: how many exist already.
        continued: whether training continues from those; otherwise its first checkpoint replaces them.
    """

    checkpoint: int
    model: int
    keep: int
    writes: int
    present: int = 0
    continued: bool = False

    @property
    def most(self) -> int:
        """The largest number of checkpoints that exist at a time, including the one being written."""
        kept = self.writes + (self.present if self.continued else 0)
        return max(min(self.keep + 1, kept), self.present + min(1, self.writes))

    @property
    def needed(self) -> int:
        """Bytes needed in addition to those of the existing checkpoints."""
        kept = min(self.keep, self.writes + (self.present if self.continued else 0))
        at_the_end = self.checkpoint * (kept - self.present) + self.model
        return max(self.checkpoint * (self.most - self.present), at_the_end)


def check_disk(folder: Path, use: DiskUse) -> None:
    """Compare what a training writes with the free space.

    Args:
        folder: an existing folder on the disk.
        use: what the training writes.

    Raises:
        OSError: too little space is free.
    """
    free = shutil.disk_usage(folder).free
    if free < use.needed + SPARE_BYTES:
        raise OSError(
            errno.ENOSPC,
            f"this training does not fit into {str(folder)!r}: it writes checkpoints of {in_words(use.checkpoint)}, up "
            f"to {use.most} at a time (keep={use.keep}, and the one being written), and a model of "
            f"{in_words(use.model)}. That needs {in_words(use.needed + SPARE_BYTES)}, but only {in_words(free)} are "
            "free: free some space, give an output_dir on another disk, or lower keep",
        )
