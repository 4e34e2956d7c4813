"""A model and its processor in memory, with the lock, the mode and the version of the weights that every pass needs."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch

from gpt4roi_nb.memory import clear_frames
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.processor import GPT4RoIProcessor


class WeightsChangedError(RuntimeError):
    """The weights changed between two steps of one answer."""


class ForwardLock:
    """One pass at a time, in whatever thread; a question goes before the next training step.

    Reentrant within a thread, so that an answer of many passes can hold it as a whole.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._turn = threading.Condition()
        self._waiting = 0  # passes that wait; a training step lets them go first

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Hold the lock for a pass, or for an answer of several passes."""
        with self._turn:
            self._waiting += 1
        try:
            self._lock.acquire()
        finally:
            with self._turn:
                self._waiting -= 1
                self._turn.notify_all()
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def training_step(self) -> Iterator[None]:
        """Hold the lock for a training step, when nobody waits to ask."""
        with self._turn:
            self._turn.wait_for(lambda: self._waiting == 0)
        with self._lock:
            yield


class Releasable(Protocol):
    """What holds memory that belongs to a loaded model."""

    def release(self) -> None:
        """Give the memory back."""


class LoadedModel:
    """A model and its processor.

    Every pass runs within `inference()`, and every training step within `training_step()`.

    Attributes:
        model: a `GPT4RoIForConditionalGeneration`, an ordinary transformers model in evaluation mode.
        processor: its `GPT4RoIProcessor`.
        source: where it was loaded from.
        forward_lock: one pass at a time. None may begin in one attention mode and end in another.
    """

    def __init__(self, model: GPT4RoIForConditionalGeneration, processor: GPT4RoIProcessor, source: str = "") -> None:
        self._model: GPT4RoIForConditionalGeneration | None = model.eval()
        self.processor = processor
        self.source = source
        self.forward_lock = ForwardLock()
        self._depth = 0  # of `inference()` blocks in the thread that holds the lock
        self._changes = 0
        self._holders: weakref.WeakSet[Releasable] = weakref.WeakSet()

    @property
    def model(self) -> GPT4RoIForConditionalGeneration:
        self.check_loaded()
        return self._model  # type: ignore[return-value]

    @property
    def is_loaded(self) -> bool:
        """False after `unload`."""
        return self._model is not None

    @property
    def device(self) -> torch.device:
        return self.model.device

    @contextmanager
    def inference(self) -> Iterator[GPT4RoIForConditionalGeneration]:
        """Run passes of the model alone and in evaluation mode, also while it trains.

        Other threads wait, training's next step among them. Afterwards the model is in the mode in which it was.
        """
        model = self.model
        with self.forward_lock.inference():
            # Without evaluation mode LoRA drops out, and gradient checkpointing turns the key/value cache off.
            training = [] if self._depth else [module for module in model.modules() if module.training]
            if training:
                model.eval()
            self._depth += 1
            try:
                yield model
            finally:
                self._depth -= 1
                for module in training:
                    module.training = True

    @contextmanager
    def training_step(self) -> Iterator[None]:
        """Change the weights alone: answers that are being written are finished first, and questions that wait go
        before it. What was encoded with the weights before is encoded again where it is used."""
        with self.forward_lock.training_step():
            try:
                yield
            finally:
                self._changes += 1

    @property
    def weights_version(self) -> int:
        """Another number after every change of the weights: by `training_step`, and by anything that torch counts."""
        # Quantised weights are packed anew by their own kernels, without a change of their value.
        weights = (weight for weight in self.model.parameters() if weight.is_floating_point())
        return hash((self._changes, *((weight._version, weight.data_ptr()) for weight in weights)))

    def remember(self, holder: Releasable) -> None:
        """Have `unload` give this holder's memory back as well."""
        self._holders.add(holder)

    def check_loaded(self) -> None:
        """Raises RuntimeError after `unload`."""
        if self._model is None:
            raise RuntimeError(
                "this model has been unloaded; load it again with GPT4RoI.from_pretrained(…) and make a new session"
            )

    def unload(self) -> None:
        """Give the memory back: the model's and that of its sessions. Asking afterwards is an error.

        After an error the notebook keeps its traceback, whose frames hold tensors: those are emptied too.
        """
        for holder in list(self._holders):
            holder.release()
        self._model = None
        clear_frames(getattr(sys, "last_value", None))
