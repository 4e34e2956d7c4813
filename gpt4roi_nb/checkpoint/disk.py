"""Clear errors for a disk that is full: before something is written, or while it is."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from gpt4roi_nb.memory import in_words

SPARE_BYTES = 1_000_000  # for the small files
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Parts of PyTorch's and safetensors' errors for a file that could not be written; neither keeps the system's errno.
FULL_WORDS = ("inline_container", "PytorchStreamWriter", "os error 28", "os error 122", "os error 27")


@contextmanager
def room_for(folder: Path, needed: int, what: str, remedy: str) -> Iterator[None]:
    """Check that there is room before the block writes something, and explain the error if it runs out meanwhile.

    Args:
        folder: an existing folder, into which the block writes.
        needed: about how many bytes it writes.
        what: what messages call it, such as "the trained model".
        remedy: what to do, in messages.

    Raises:
        OSError: the folder's disk has less room, or runs full while the block writes.
    """
    needed += SPARE_BYTES
    free = shutil.disk_usage(folder).free
    advice = f"it needs {in_words(needed)}, but only {in_words(free)} were free. {remedy}"
    if free < needed:
        raise OSError(errno.ENOSPC, f"{what} does not fit into {str(folder)!r}: {advice}")
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if getattr(error, "errno", None) in FULL or any(words in str(error) for words in FULL_WORDS):
            raise OSError(errno.ENOSPC, f"{what} could not be written to {str(folder)!r}: {advice}") from error
        raise
