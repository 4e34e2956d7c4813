"""A disk that is full, in words: before a checkpoint is written, or while it is."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
