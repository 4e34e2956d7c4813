"""A training's speed, its waiting time, its remaining time, and its memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch


class Meter:
    """Measures steps, and reports their averages since the last reading."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None  # the time before the first step, and its number
        self._since = time.perf_counter()
        self._tokens = self._images = 0
        self._waited = 0.0

    def add(self, tokens: int, images: int) -> None:
        """Count a batch that the model gets. tokens: including padding, which costs as much."""
        self._tokens += tokens
        self._images += images

    @contextmanager
    def waiting(self, step: int) -> Iterator[None]:
        """Count the time of the block as waiting for data. step: how many steps were made before."""
        started = time.perf_counter()
        if self._began is None:
            self._began, self._since = (started, step), started
        try:
            yield
        finally:
            self._waited += time.perf_counter() - started

    def read(self, step: int, steps: int, processes: int) -> dict[str, float]:
        """Report the figures since the last reading.

        Args:
            step: how many steps were made.
            steps: of the whole training.
            processes: how many train together.

        Returns:
            Tokens and images per second, of all processes; the share of the time spent waiting for data; the seconds
            left, estimated from all steps so far; and the memory in bytes: the GPU's peak, or the process's.
        """
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        values = {
            "tokens_per_second": processes * self._tokens / seconds,
            "images_per_second": processes * self._images / seconds,
            "waiting": self._waited / seconds,
            "memory": float(_memory()),
        }
        self._since, self._tokens, self._images, self._waited = now, 0, 0, 0.0
        if self._began is not None and step > self._began[1]:
            values["seconds_left"] = (now - self._began[0]) / (step - self._began[1]) * (steps - step)
        return values


def _memory() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return int(psutil.Process().memory_info().rss)
