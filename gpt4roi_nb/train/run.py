"""A training as its caller sees it: its log, its probes' answers, its skipped records, and a way to stop it."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from gpt4roi_nb.data.collate import Collator
from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.files import read_json_lines, replacing
from gpt4roi_nb.session.gpt4roi import GPT4RoI
from gpt4roi_nb.train.parts import Part
from gpt4roi_nb.train.probes import Probes

ANSWERS_FILE = "answers.jsonl"
RUNNING, STOPPED, FAILED, DONE = "running", "stopped", "failed", "done"

logger = logging.getLogger(__name__)
Listener = Callable[["TrainingRun"], None]


@dataclass
class TrainingRun:
    """A training that runs, or has run. `train` makes it.

    Attributes:
        output_dir: the folder for checkpoints, logs, and at the end the model.
        parts: which parts train.
        problems: records that could not be used, counted and listed.
        probes: regions that the model is asked about while it trains.
        history: the logged lines, oldest first: "step", "loss", "loss/SOURCE", "learning_rate", "grad_norm", "epoch",
            "tokens_per_second", "images_per_second", "seconds_left", "memory" (bytes), and "waiting", the share of the
            time spent waiting for the next batch.
        answers: (step, the probes' answers), oldest first.
        step, max_steps: steps made so far, and of the whole training.

    Example:
        >>> from pathlib import Path
        >>> from gpt4roi_nb.train import TrainingRun
        >>> run = TrainingRun(Path("run"), parts=[])
        >>> run.state
        'running'
        >>> run.start(lambda: run.stop(), block=False)  # `train` gives its own work
        >>> run.wait().state
        'stopped'
    """

    output_dir: Path
    parts: list[Part]
    problems: Problems = field(default_factory=Problems)
    probes: Probes | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    answers: list[tuple[int, list[str]]] = field(default_factory=list)
    step: int = 0
    max_steps: int = 0
    _data: Any = field(default=None, repr=False)
    _listeners: list[Listener] = field(default_factory=list, repr=False)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)
    _thread: threading.Thread | None = field(default=None, repr=False)
    _error: BaseException | None = field(default=None, repr=False)

    def start(self, work: Callable[[], None], *, block: bool) -> None:
        """Do the training's work, and tell the listeners when it is over.

        Args:
            work: called without arguments.
            block: do it in this thread; otherwise in a new one.
        """
        if block:
            self._work(work)
        else:
            self._thread = threading.Thread(target=self._work_quietly, args=(work,), name="gpt4roi-train", daemon=True)
            self._thread.start()

    def _work(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self.ended(error)
            raise
        self.ended()

    def _work_quietly(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(BaseException):  # `wait` raises it in the caller's thread
            self._work(work)

    def stop(self) -> None:
        """End the training after the current step, with a checkpoint. Calls the listeners."""
        if not self.stopping:  # a listener may call this
            self._stop.set()
            self.changed()

    def wait(self, timeout: float | None = None) -> TrainingRun:
        """Wait for the end, for at most `timeout` seconds; if the training failed, raise its exception.

        Returns:
            The run itself.
        """
        if self._thread is not None:
            self._thread.join(timeout)
        if self._error is not None:
            raise self._error
        return self

    @property
    def running(self) -> bool:
        return not self._ended.is_set()

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called and the training has ended."""
        return self.stopping and not self.running

    @property
    def state(self) -> str:
        """ "running", "stopped", "failed" or "done"."""
        if self.running:
            return RUNNING
        return FAILED if self._error is not None else STOPPED if self.stopping else DONE

    @property
    def error(self) -> BaseException | None:
        """The exception that made it fail, or None."""
        return self._error

    def report(self) -> str:
        """Tables of records that could not be used, and why: in training, and when the data were loaded."""
        said = [self.problems.table("records that training could not use")]
        if hasattr(self._data, "report"):
            said.append(self._data.report())
        return "\n".join(said)

    def listen(self, listener: Listener) -> None:
        """Call a function with the run, in the training's thread after each step and at the end, and by `stop`."""
        self._listeners.append(listener)

    def changed(self) -> None:
        """Call the listeners."""
        for listener in self._listeners:
            listener(self)

    def ended(self, error: BaseException | None = None) -> None:
        """Mark the training as over. error: why it failed; None if it did not."""
        self._error = error
        self._ended.set()
        self.changed()


class RunCallback(TrainerCallback):
    """Passes the Trainer's events on to a run, the run's stop to the Trainer, and the epoch to the data."""

    def __init__(
        self,
        run: TrainingRun,
        gpt4roi: GPT4RoI,
        collator: Collator,
        probe_steps: int,
        report: Callable[[dict[str, float]], None] | None,
    ) -> None:
        self.run, self.gpt4roi, self.collator = run, gpt4roi, collator
        self.probe_steps, self.report = probe_steps, report

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.run.step, self.run.max_steps = state.global_step, state.max_steps
        warmup = args.get_warmup_steps(state.max_steps)
        if warmup >= state.max_steps:
            logger.warning(
                "the warm-up takes %d of the training's %d steps, so the learning rate never rises to %g; "
                "give a share, as warmup_steps=0.03",
                warmup, state.max_steps, args.learning_rate,
            )  # fmt: skip
        self.run.answers[:] = [(step, answers) for step, answers in self.run.answers if step < state.global_step]
        self._probe(state)
        self.run.changed()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.collator.epoch = int(state.epoch or 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.run.step = state.global_step
        if state.global_step % self.probe_steps == 0 or state.global_step == state.max_steps:
            self._probe(state)
        if self.run.stopping:
            control.should_training_stop = control.should_save = True
        self.run.changed()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.run.problems.counts():
            logger.warning("%s", self.run.report())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:  # the Trainer's summary at the end
            return
        line = {"step": state.global_step, **logs}
        self.run.history.append(line)
        if self.report is not None:
            self.report(line)
        self.run.changed()

    def _probe(self, state: Any) -> None:
        probes = self.run.probes
        if probes is None or not state.is_world_process_zero:
            return
        self.run.answers.append((state.global_step, probes.ask(self.gpt4roi)))
        entries = [entry for entry in _entries(self.run.output_dir) if not _is_about(entry, probes.about)]
        entries += [{"step": step, "answers": answers, **probes.about} for step, answers in self.run.answers]
        self.run.output_dir.mkdir(parents=True, exist_ok=True)
        with replacing(self.run.output_dir / ANSWERS_FILE) as partial:
            partial.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


def read_answers(output_dir: Path, probes: Probes | None) -> list[tuple[int, list[str]]]:
    """The answers to these probes before an interruption; those to other probes are left out."""
    if probes is None:
        return []
    entries = [entry for entry in _entries(output_dir) if _is_about(entry, probes.about)]
    return [(int(entry["step"]), entry["answers"]) for entry in entries]


def _entries(output_dir: Path) -> list[dict[str, Any]]:
    file = output_dir / ANSWERS_FILE
    return read_json_lines(file)[0] if file.is_file() else []  # without a damaged line, which an interruption cut short


def _is_about(entry: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
    return all(entry.get(name) == value for name, value in about.items())
