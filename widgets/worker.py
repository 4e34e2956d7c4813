"""Work off the kernel's main thread, so that a click never keeps the notebook waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import anywidget
import traitlets

from gpt4roi_nb.widgets.errors import in_words, strip_traceback

T = TypeVar("T")


class WorkingView(anywidget.AnyWidget):
    """A widget that says what is going on, and what went wrong; "" when nothing is, and nothing did."""

    busy = traitlets.Unicode().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)


@contextmanager
def problems_shown(view: WorkingView) -> Iterator[None]:
    """Show an exception of the block in the view, in words: nobody else would see what a click led to."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  # whatever it is, the user is told
        view.problem = in_words(error)
        strip_traceback(error)


@dataclass(eq=False)
class _Job:
    """words: for the view. topic: what `drop` knows it by."""

    words: str
    topic: str = ""
    dropped: bool = False


class Worker:
    """Runs jobs one after the other in a thread of its own, and says in a view what is going on and what went wrong.

    Attributes:
        lock: held while a result is shown; reentrant. Hold it to change what results change, too.
    """

    def __init__(self, view: WorkingView) -> None:
        self._view = view
        self.lock = threading.RLock()
        self.closed = False
        self._jobs: list[_Job] = []
        # One thread that stays: each new one would start the threads of torch's own pool anew.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gpt4roi-widget")

    @property
    def working(self) -> bool:
        """Whether a job runs or waits."""
        return bool(self._jobs)

    def submit(
        self,
        words: str,
        compute: Callable[[], T],
        show: Callable[[T], object] | None = None,
        *,
        failed: Callable[[Exception], object] | None = None,
        topic: str = "",
    ) -> Future[T | None]:
        """Run a job when those before it are done.

        Args:
            words: what is going on, for the view's `busy`.
            compute: runs in the thread.
            show: takes the result to the view; not called for a job that was dropped, nor after `close`.
            failed: takes an exception of the two to the view; by default it goes into `problem`, in words.
            topic: under which `drop` finds the job.

        Returns:
            The future of the result, or of the exception without its traceback; None where the job was dropped first.

        Raises:
            RuntimeError: after `close`.
        """
        with self.lock:
            if self.closed:
                raise RuntimeError("this view has been closed; make a new one")
            job = self._begin(words, topic)
            return self._executor.submit(self._run, job, compute, show, failed)

    def drop(self, topic: str) -> None:
        """Forget the jobs of a topic, as newer ones take their place: those that wait do not run, and one that runs is
        not shown."""
        with self.lock:
            for job in self._jobs:
                job.dropped |= job.topic == topic

    @contextmanager
    def occupied(self, words: str) -> Iterator[None]:
        """Count the block as a job, though it runs in the caller's thread."""
        job = self._begin(words)
        try:
            yield
        finally:
            self._end(job)

    def wait(self) -> None:
        """Wait until all that was submitted is done and shown."""
        if not self.closed:
            self._executor.submit(lambda: None).result()

    def close(self) -> None:
        """Show nothing more, and end the thread: now, or after the job that runs, for which nobody waits."""
        with self.lock:
            self.closed = True
        self._executor.shutdown(wait=not self.working)

    def _run(
        self,
        job: _Job,
        compute: Callable[[], T],
        show: Callable[[T], object] | None,
        failed: Callable[[Exception], object] | None,
    ) -> T | None:
        try:
            if not self._is_wanted(job):
                return None
            result = compute()
            with self.lock:
                if show is not None and self._is_wanted(job):
                    show(result)
            return result
        except Exception as error:  # noqa: BLE001  # whatever it is, the user is told, and the future raises it
            with self.lock:
                if not self._is_wanted(job):
                    pass
                elif failed is not None:
                    failed(error)
                else:
                    self._view.problem = in_words(error)
            raise strip_traceback(error) from None
        finally:
            self._end(job)

    def _is_wanted(self, job: _Job) -> bool:
        return not (self.closed or job.dropped)

    def _begin(self, words: str, topic: str = "") -> _Job:
        with self.lock:
            job = _Job(words, topic)
            self._jobs.append(job)
            self._show_busy()
            return job

    def _end(self, job: _Job) -> None:
        with self.lock:
            self._jobs.remove(job)
            self._show_busy()

    def _show_busy(self) -> None:
        if not self.closed:
            self._view.busy = self._jobs[0].words if self._jobs else ""
