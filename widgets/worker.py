"""Work outside the kernel's main thread, so that a click never blocks the notebook."""

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
    """A widget with texts about the running work and about what went wrong; "" for none."""

    busy = traitlets.Unicode().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)


@contextmanager
def problems_shown(view: WorkingView) -> Iterator[None]:
    """Show an exception of the block in the view, as a message: otherwise nobody would see what a click led to."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  # the user sees it, whatever it is
        view.problem = in_words(error)
        strip_traceback(error)


@dataclass(eq=False)
class _Job:
    """words: the text for the view. topic: by which `drop` finds it."""

    words: str
    topic: str = ""
    dropped: bool = False


class Worker:
    """Runs jobs one after the other in its own thread, and shows in a view what is running and what went wrong.

    Attributes:
        lock: held while a result is shown; reentrant. Hold it to change anything that results change, too.
        closed: whether `close` was called.
    """

    def __init__(self, view: WorkingView) -> None:
        self._view = view
        self.lock = threading.RLock()
        self.closed = False
        self._jobs: list[_Job] = []
        # One thread that stays: each new one would restart the threads of torch's own pool.
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
            words: the text for the view's `busy`.
            compute: runs in the thread.
            show: called with the result, to show it in the view; not for a dropped job, nor after `close`.
            failed: called with an exception of the two; by default its message goes into `problem`.
            topic: by which `drop` finds the job.

        Returns:
            The future of the result, or of the exception without its traceback; None if the job was dropped first.

        Raises:
            RuntimeError: after `close`.
        """
        with self.lock:
            if self.closed:
                raise RuntimeError("this view has been closed; make a new one")
            job = self._begin(words, topic)
            return self._executor.submit(self._run, job, compute, show, failed)

    def drop(self, topic: str) -> None:
        """Drop the jobs of a topic, which newer ones replace: waiting ones do not run, a running one is not shown."""
        with self.lock:
            for job in self._jobs:
                job.dropped |= job.topic == topic

    def newest(self, topic: str) -> str:
        """The words of the newest job of a topic that runs or waits and is not dropped; "" if there is none."""
        with self.lock:
            return next((job.words for job in reversed(self._jobs) if job.topic == topic and not job.dropped), "")

    @contextmanager
    def occupied(self, words: str) -> Iterator[None]:
        """Count the block as a job, although it runs in the caller's thread."""
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
        """Show nothing more, and end the thread: now, or after the running job, without waiting for it."""
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
        except Exception as error:  # noqa: BLE001  # the user sees it, whatever it is, and the future raises it
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
