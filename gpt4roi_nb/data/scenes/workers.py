"""Processes that draw scenes beside one another."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

LATE = 1.0  # seconds by which one process may get a signal later than another


@contextmanager
def worker_processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Start `count` processes, and end them with the block.

    Raises:
        RuntimeError: one of them ended before its work was done.
    """
    # spawn, since forking a process that runs threads (a notebook's, torch's) can lock up
    context = multiprocessing.get_context("spawn")
    # A terminal's Ctrl+C reaches all processes: these end without a traceback each. They must not ignore it, since a
    # second one that meets the first process while it waits for them would leave both waiting.
    end_at_once = (signal.SIGINT, signal.SIG_DFL)
    try:
        with ProcessPoolExecutor(count, context, initializer=signal.signal, initargs=end_at_once) as pool:
            yield pool
    except BrokenProcessPool as error:
        time.sleep(LATE)  # raises KeyboardInterrupt if a Ctrl+C has reached the processes before it reaches this one
        raise RuntimeError(
            "a worker process ended before its work was done: it was killed (for its memory?), or the script that "
            "starts it lacks `if __name__ == '__main__':`, without which each process would run the whole script; "
            "add that line, or use workers=0"
        ) from error
