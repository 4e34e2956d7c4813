"""How fast a training goes, what it waits for, how long it will take, and its memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch


class Meter:
    """Counts what the steps take, and says what it was since it was read last."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None  # the time before the first step, and its number
        self._since = time.perf_counter()
        self._tokens = self._images = 0
        self._waited = 0.0

    def add(self, tokens: int, images: int) -> None:
        """A batch that the model gets. tokens: with the padding, which costs as much."""
        self._tokens += tokens
        self._images += images

    @contextmanager
    def waiting(self, step: int) -> Iterator[None]:
        """The time in here is spent waiting for data. step: how many were made before."""
        started = time.perf_counter()
        if self._began is None:
            self._began, self._since = (started, step), started
        try:
            yield
        finally:
            self._waited += time.perf_counter() - started

    def read(self, step: int, steps: int, processes: int) -> dict[str, float]:
        """Since the last reading: tokens and images a second, of all processes, the share of the time in which data was
        waited for; and the seconds left, from all steps so far, and the memory in bytes: the GPU's peak, or what the
        process has.
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
