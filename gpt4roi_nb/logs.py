"""Other packages' loggers and progress bars, quiet for a while."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

# Weights up to this size are read and written in a moment.
MOMENT_BYTES = 10**9


@contextmanager
def no_progress_bar(weights: int = 0) -> Iterator[None]:
    """Load or save without transformers' progress bars, which are noise in what a script prints, and for a small model.

    weights: their bytes; of more than `MOMENT_BYTES` the bars stay.
    """
    from transformers.utils import logging as bars

    hide = weights <= MOMENT_BYTES and bars.is_progress_bar_enabled()
    if hide:
        bars.disable_progress_bar()
    try:
        yield
    finally:
        if hide:
            bars.enable_progress_bar()


@contextmanager
def quiet(name: str, level: int) -> Iterator[None]:
    """A logger, by name, at this level inside the block, and as it was afterwards."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
