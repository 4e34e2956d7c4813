"""As many at a time as memory allows: chosen before work begins, and halved where memory runs out in the middle."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Callable

from torch import nn

from gpt4roi_nb.memory import clear_frames, devices_of, in_words, is_out_of_memory, sum_free

LESS_MEMORY = (
    'load the model with quantization="8bit" or "4bit" or in half precision (dtype="bfloat16"), on another device '
    '(device="cpu", or device_map="auto" for several), or give memory back (gpt4roi.unload(), other notebooks)'
)


class BatchSize:
    """How many of something go side by side: so many as were asked for, or fewer where memory is short.

    Attributes:
        size: at present.
    """

    def __init__(self, size: int, what: str, advice: str = LESS_MEMORY) -> None:
        """what: the things, as messages call them, such as "questions". advice: what helps where one is too many."""
        self.size = size
        self._what = what
        self._advice = advice
        self._halved = False

    def fit(self, model: nn.Module, needed: Callable[[int], int]) -> None:
        """Lower `size` to what is free, before the work begins, and warn of it.

        Args:
            model: whose devices count.
            needed: from a size to the bytes that it takes beside the weights; a larger one takes no less.

        Raises:
            MemoryError: not even one fits; the message says what helps.
        """
        free = check_room(model, needed(1), f"the {self._what}, even one at a time, need", self._advice)
        if free is None or needed(self.size) <= free:
            return
        fitting = bisect_right(range(1, self.size + 1), free, key=needed)
        warnings.warn(
            f"{self.size} {self._what} at a time need {in_words(needed(self.size))}, but {in_words(free)} are free; "
            f"it goes on with {fitting} at a time",
            stacklevel=3,
        )
        self.size = fitting

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
            raise MemoryError(f"memory ran out with the {self._what} one at a time: {self._advice}") from error
        self.size //= 2
        if not self._halved:
            warnings.warn(
                f"memory ran out; it goes on with {self.size} {self._what} at a time, or fewer if it must", stacklevel=3
            )
        self._halved = True


def check_room(model: nn.Module, needed: int, what: str, advice: str) -> int | None:
    """Compare the bytes that something needs beside the weights with what is free, before it begins.

    what: and its verb, as the message begins, such as "the attention needs". advice: what helps.

    Returns:
        What is free on the devices of the model together; None where that cannot be told.

    Raises:
        MemoryError: it does not fit.
    """
    devices = devices_of(model)
    free = sum_free(devices)
    if free is not None and needed > free:
        raise MemoryError(
            f"{what} {in_words(needed)}, but {in_words(free)} are free on {' and '.join(map(str, devices))}: {advice}"
        )
    return free
