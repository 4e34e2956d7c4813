"""Batch sizes that fit into memory: chosen before the work begins, and halved if memory runs out during it."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from torch import nn

from gpt4roi_nb.memory import clear_frames, devices_of, in_words, is_out_of_memory, sum_free

T = TypeVar("T")


class Loaded(Protocol):
    """A loaded model. check_free_memory: whether to compare needed with free memory before work begins."""

    check_free_memory: bool

    @property
    def model(self) -> Any: ...


def less_memory(model: nn.Module | None = None) -> str:
    """Advice for when memory is short: the ways to load a smaller model that are not already in use for this one."""
    ways = []
    if not getattr(model, "is_quantized", False):
        ways.append('quantization="8bit" or "4bit"')
    if model is None or next(model.parameters()).dtype.itemsize > 2:  # bytes of half precision
        ways.append('dtype="bfloat16"')
    if model is None or any(device.type != "cpu" for device in devices_of(model)):
        ways.append('device="cpu", or device_map="auto" for several devices')
    load = f"load the model with {', or '.join(ways)}; or " if ways else ""
    return f"{load}free memory (gpt4roi.unload(), other notebooks)"


class BatchSize:
    """How many items to process at a time: the number asked for, or fewer if memory is short.

    Attributes:
        size: the current number.
    """

    def __init__(self, size: int, what: str, advice: str = "") -> None:
        """Start with `size` items at a time.

        Args:
            size: items at a time.
            what: the items in messages, such as "questions".
            advice: what else helps when a single item does not fit.
        """
        self.size = size
        self._what = what
        self._advice = advice
        self._help = less_memory()
        self._halved = False

    def fit(self, loaded: Loaded, needed: Callable[[int], int]) -> None:
        """Lower `size` to what fits into free memory, with a warning, before the work begins.

        Args:
            loaded: the model, on whose devices memory is counted.
            needed: maps a size to the bytes that it takes besides the weights; must not decrease with the size.

        Raises:
            MemoryError: if a single item does not fit; the message says what helps.
        """
        self._help = less_memory(loaded.model)
        free = check_room(loaded, needed(1), f"the {self._what}, even one at a time, need", self._advice)
        if free is None or needed(self.size) <= free:
            return
        fitting = bisect_right(range(1, self.size + 1), free, key=needed)
        warnings.warn(
            f"{self.size} {self._what} at a time need {in_words(needed(self.size))}, but {in_words(free)} are free; "
            f"continuing with {fitting} at a time",
            stacklevel=3,
        )
        self.size = fitting

    def run(self, total: int, work: Callable[[slice], T]) -> Iterator[T]:
        """Process `total` items, `size` at a time. When memory runs out, repeat the same items in smaller batches.

        Args:
            total: the number of items.
            work: takes a slice of the items and returns what is yielded for it.

        Raises:
            Exception: whatever `work` raises, except for lack of memory.
            MemoryError: if a single item does not fit; the message says what helps.
        """
        done = 0
        while done < total:
            part = slice(done, min(done + self.size, total))
            try:
                result = work(part)
            except (RuntimeError, MemoryError) as error:
                self.halve(error)
                continue
            yield result
            done = part.stop

    def halve(self, error: Exception) -> None:
        """Halve `size` after an out-of-memory error, free the memory that the error holds, and warn the first time.

        Raises:
            Exception: `error` itself, if it is not for lack of memory.
            MemoryError: if `size` is 1; the message says what helps.
        """
        if not is_out_of_memory(error):
            raise error
        clear_frames(error)
        if self.size == 1:
            advice = f"{self._advice}{self._advice and '; '}{self._help}"
            raise MemoryError(f"memory ran out with the {self._what} one at a time: {advice}") from error
        self.size //= 2
        if not self._halved:
            warnings.warn(
                f"memory ran out; continuing with {self.size} {self._what} at a time, or fewer if needed", stacklevel=3
            )
        self._halved = True


def check_room(loaded: Loaded, needed: int, what: str, advice: str = "") -> int | None:
    """Compare the bytes that some work needs besides the weights with free memory, before it begins.

    Args:
        loaded: the model, on whose devices memory is counted.
        needed: bytes besides the weights.
        what: subject and verb of the message, such as "the attention needs".
        advice: what else helps.

    Returns:
        Bytes free on the model's devices together; None if that is unknown, or if the model was loaded with
        `check_free_memory=False`.

    Raises:
        MemoryError: if it does not fit.
    """
    if not loaded.check_free_memory:
        return None
    devices = devices_of(loaded.model)
    free = sum_free(devices)
    if free is not None and needed > free:
        advice = f"{advice}{advice and '; '}{less_memory(loaded.model)}"
        raise MemoryError(
            f"{what} up to {in_words(needed)}, but {in_words(free)} are free on {' and '.join(map(str, devices))}: "
            f"{advice}; a model loaded with check_free_memory=False tries it all the same"
        )
    return free
