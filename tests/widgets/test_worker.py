"""Work outside the main thread: in order, only the latest of a topic, with texts about progress and failures."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
import torch

from gpt4roi_nb.widgets.errors import OUT_OF_MEMORY
from gpt4roi_nb.widgets.worker import Worker, WorkingView

PATIENCE = 20  # seconds


class Gate:
    """A job that waits; `begun` says that it runs."""

    def __init__(self) -> None:
        self.begun, self.opened = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.opened.wait(PATIENCE)
        return "done"


@pytest.fixture()
def worker() -> Iterator[Worker]:
    worker = Worker(WorkingView())
    yield worker
    worker.close()


def test_jobs_run_in_order_in_one_other_thread(worker: Worker) -> None:
    shown: list[int] = []
    threads = [worker.submit("", threading.current_thread, lambda _, n=n: shown.append(n)) for n in range(5)]
    worker.wait()
    assert shown == [0, 1, 2, 3, 4]
    assert {future.result() for future in threads} == worker._executor._threads != {threading.main_thread()}


def test_the_view_says_what_is_going_on_until_nothing_is(worker: Worker) -> None:
    gate = Gate()
    worker.submit("First…", gate)
    last = worker.submit("Second…", lambda: worker._view.busy)
    assert worker.working and worker._view.busy == "First…"
    gate.opened.set()
    assert last.result() == "Second…"
    assert not worker.working and worker._view.busy == ""
    with worker.occupied("Here…"):
        assert worker.working and worker._view.busy == "Here…"
    assert not worker.working and worker._view.busy == ""


def test_newer_ones_take_the_place_of_those_that_wait_and_of_what_runs(worker: Worker) -> None:
    gate, done, shown = Gate(), [], []
    running = worker.submit("", gate, shown.append, topic="maps")
    assert gate.begun.wait(PATIENCE)
    for number in range(3):
        worker.drop("maps")
        worker.submit("", lambda n=number: done.append(n), lambda _, n=number: shown.append(n), topic="maps")
    worker.submit("", lambda: None, lambda _: shown.append("other"), topic="tests")
    gate.opened.set()
    worker.wait()
    assert running.result() == "done" and done == [2] and shown == [2, "other"]


def test_a_failure_is_words_in_the_view_and_an_exception_for_who_waits(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(error: Exception) -> None:
        raise error

    with caplog.at_level(logging.ERROR):
        worker.submit("", lambda: fail(KeyError("odd")))
        worker.wait()
    assert "KeyError" in worker._view.problem and "Traceback" in caplog.text
    failed: list[Exception] = []
    future = worker.submit("", lambda: fail(ValueError("no such box")), failed=failed.append)
    with pytest.raises(ValueError, match="no such box"):
        future.result()
    assert "KeyError" in worker._view.problem and len(failed) == 1
    worker.submit("", lambda: None, lambda _: fail(torch.OutOfMemoryError("CUDA")))
    worker.wait()
    assert worker._view.problem == OUT_OF_MEMORY and worker._view.busy == ""
    assert worker.submit("", lambda: "goes on").result() == "goes on"


@pytest.mark.parametrize("fails", [False, True])
def test_closing_waits_for_nobody_and_nothing_is_shown_afterwards(fails: bool) -> None:
    worker, gate, shown = Worker(WorkingView()), Gate(), []

    def compute() -> str:
        gate()
        if fails:
            raise ValueError("too late")
        return "done"

    worker.submit("Busy…", compute, shown.append)
    waiting = worker.submit("", lambda: shown.append("ran"))
    assert gate.begun.wait(PATIENCE)
    (thread,) = worker._executor._threads
    worker.close()
    state = worker._view.get_state()
    assert thread.is_alive()
    gate.opened.set()
    thread.join(PATIENCE)
    assert not thread.is_alive() and waiting.result() is None
    assert shown == [] and worker._view.get_state() == state
    worker.wait()
    with pytest.raises(RuntimeError, match="has been closed; make a new one"):
        worker.submit("", lambda: None)


def test_an_idle_worker_that_is_closed_has_no_thread() -> None:
    worker = Worker(WorkingView())
    (thread,) = {worker.submit("", threading.current_thread).result()}
    worker.close()
    assert not thread.is_alive()
