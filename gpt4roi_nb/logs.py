"""Silence other packages' loggers and progress bars for a while."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

# Reading or writing weights up to this size takes only a moment.
MOMENT_BYTES = 10**9


@contextmanager
def no_progress_bar(weights: int = 0) -> Iterator[None]:
    """Hide transformers' progress bars while loading or saving; they clutter the output of scripts and small models.

    Args:
        weights: bytes of the weights; above `MOMENT_BYTES` the bars stay.
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
    """Set a logger, by name, to a level inside the block, and back afterwards."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
