"""As many at a time as memory allows: chosen before work begins, and halved where memory runs out in the middle."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from torch import nn

from gpt4roi_nb.memory import clear_frames, devices_of, in_words, is_out_of_memory, sum_free

T = TypeVar("T")


class Loaded(Protocol):
    """A loaded model. check_free_memory: whether what it needs is compared with what is free before it begins."""

    check_free_memory: bool

    @property
    def model(self) -> Any: ...


def less_memory(model: nn.Module | None = None) -> str:
    """What helps where memory lacks; of the ways to load a model those that this one was not loaded by."""
    ways = []
    if not getattr(model, "is_quantized", False):
        ways.append('quantization="8bit" or "4bit"')
    if model is None or next(model.parameters()).dtype.itemsize > 2:  # bytes of half precision
        ways.append('dtype="bfloat16"')
    if model is None or any(device.type != "cpu" for device in devices_of(model)):
        ways.append('device="cpu", or device_map="auto" for several devices')
    load = f"load the model with {', or '.join(ways)}; or " if ways else ""
    return f"{load}give memory back (gpt4roi.unload(), other notebooks)"


class BatchSize:
    """How many of something go side by side: so many as were asked for, or fewer where memory is short.

    Attributes:
        size: at present.
    """

    def __init__(self, size: int, what: str, advice: str = "") -> None:
        """what: the things, as messages call them ("questions"). advice: what helps too where one is too many."""
        self.size = size
        self._what = what
        self._advice = advice
        self._help = less_memory()
        self._halved = False

    def fit(self, loaded: Loaded, needed: Callable[[int], int]) -> None:
        """Lower `size` to what is free, before the work begins, and warn of it.

        Args:
            loaded: whose devices count.
            needed: from a size to the bytes that it takes beside the weights; a larger one takes no less.

        Raises:
            MemoryError: not even one fits; the message says what helps.
        """
        self._help = less_memory(loaded.model)
        free = check_room(loaded, needed(1), f"the {self._what}, even one at a time, need", self._advice)
        if free is None or needed(self.size) <= free:
            return
        fitting = bisect_right(range(1, self.size + 1), free, key=needed)
        warnings.warn(
            f"{self.size} {self._what} at a time need {in_words(needed(self.size))}, but {in_words(free)} are free; "
            f"it goes on with {fitting} at a time",
            stacklevel=3,
        )
        self.size = fitting

    def run(self, total: int, work: Callable[[slice], T]) -> Iterator[T]:
        """Do some work on all of `total` things, `size` at a time; where memory runs out it is done again on fewer.

        work: takes which of the things, and gives what is yielded.

        Raises:
            Exception: whatever `work` raises but for want of memory.
            MemoryError: one at a time was too many; the message says what helps.
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
        """Halve `size` after an error, give the memory back that the error holds, and warn the first time.

        Raises:
            Exception: `error` itself, where it is not for want of memory.
            MemoryError: one at a time was too many; the message says what helps.
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
                f"memory ran out; it goes on with {self.size} {self._what} at a time, or fewer if it must", stacklevel=3
            )
        self._halved = True


def check_room(loaded: Loaded, needed: int, what: str, advice: str = "") -> int | None:
    """Compare the bytes that something needs beside the weights with what is free, before it begins.

    what: and its verb, as the message begins, such as "the attention needs". advice: what helps too.

    Returns:
        What is free on the devices of the model together; None where that cannot be told, or where the model was
        loaded with `check_free_memory=False`.

    Raises:
        MemoryError: it does not fit.
    """
    if not loaded.check_free_memory:
        return None
    devices = devices_of(loaded.model)
    free = sum_free(devices)
    if free is not None and needed > free:
        advice = f"{advice}{advice and '; '}{less_memory(loaded.model)}"
        raise MemoryError(
            f"{what} up to {in_words(needed)}, but {in_words(free)} are free on {' and '.join(map(str, devices))}: "
            f"{advice}; a model that was loaded with check_free_memory=False tries it all the same"
        )
    return free
