"""A model and its processor in memory, with the lock, the mode and the version of the weights that every pass needs."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch

from gpt4roi_nb.inference.compiled import CompiledSteps
from gpt4roi_nb.memory import clear_frames
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.processor import GPT4RoIProcessor

PAUSE = 1.0  # seconds that a reader of a streamed answer may take for each piece before training goes on


class WeightsChangedError(RuntimeError):
    """The weights changed between two steps of one answer."""


class ForwardLock:
    """Who may use the model: one pass at a time, in whatever thread, and no training step within an answer.

    Answers may be written side by side, pass by pass. A training step waits until none is being written, and those that
    wait go before it.
    """

    def __init__(self) -> None:
        self._pass = threading.RLock()
        self._changed = threading.Condition()
        self._holding: Counter[int] = Counter()  # by thread: blocks that need the weights as they are
        self._training: int | None = None  # the thread that changes them
        self._reserved: dict[object, float] = {}  # by answer: until when its next step may come, by the monotonic clock

    @contextmanager
    def hold_weights(self) -> Iterator[None]:
        """Keep the next training step waiting; reentrant."""
        me = threading.get_ident()
        with self._changed:
            self._holding[me] += 1
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._training in (None, me))
            yield
        finally:
            with self._changed:
                self._holding[me] -= 1
                self._holding += Counter()  # leaves out what is zero
                self._changed.notify_all()

    @contextmanager
    def one_pass(self) -> Iterator[None]:
        """Run a pass alone; reentrant."""
        with self.hold_weights(), self._pass:
            yield

    @contextmanager
    def training_step(self) -> Iterator[None]:
        """Change the weights, when no other thread needs them as they are; reentrant."""
        me = threading.get_ident()
        with self._changed:
            while left := self._seconds_to_wait(me):
                self._changed.wait(left)
            before, self._training = self._training, me
        try:
            with self._pass:
                yield
        finally:
            with self._changed:
                self._training = before
                self._changed.notify_all()

    def _seconds_to_wait(self, me: int) -> float:
        """Until a training step may be tried again; 0 where it may begin."""
        if self._training == me:
            return 0.0
        if self._training is not None or any(thread != me for thread in self._holding):
            return threading.TIMEOUT_MAX  # until it is told
        return max(0.0, max(self._reserved.values(), default=0.0) - time.monotonic())

    def reserve(self, answer: object, seconds: float = PAUSE) -> None:
        """Keep the next training step waiting for so long, since this answer's next step will come."""
        with self._changed:
            self._reserved[answer] = time.monotonic() + seconds

    def end_reservation(self, answer: object) -> None:
        """This answer is finished."""
        with self._changed:
            self._reserved.pop(answer, None)
            self._changed.notify_all()


class Releasable(Protocol):
    """What holds memory that belongs to a loaded model."""

    def release(self) -> None:
        """Give the memory back."""


class LoadedModel:
    """A model and its processor.

    Every pass runs within `inference()`, an answer of several passes within `hold_weights()`, and every training step
    within `training_step()`.

    Attributes:
        model: a `GPT4RoIForConditionalGeneration`, an ordinary transformers model in evaluation mode.
        processor: its `GPT4RoIProcessor`.
        source: where it was loaded from.
        forward_lock: who may use the model. No pass begins in one attention mode and ends in another.
        training_steps: how often the weights were changed within `training_step()`.
        check_free_memory: whether work that is larger than a session compares its memory with what is free before.
        compiled: the compiled steps of answers that are written alone; None where nothing is compiled.
    """

    def __init__(self, model: GPT4RoIForConditionalGeneration, processor: GPT4RoIProcessor, source: str = "") -> None:
        self._model: GPT4RoIForConditionalGeneration | None = model.eval()
        self.processor = processor
        self.source = source
        self.forward_lock = ForwardLock()
        self._depth = 0  # of `inference()` blocks in the thread that holds the lock
        self.training_steps = 0
        self.check_free_memory = True
        self.compiled: CompiledSteps | None = None
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
    def about(self) -> str:
        """One sentence on what this checkpoint is."""
        stated = self._model.config.about if self._model is not None else ""
        return stated or f"GPT4RoI from {self.source or 'memory'}"

    @property
    def device(self) -> torch.device:
        return self.model.device

    @contextmanager
    def hold_weights(self) -> Iterator[None]:
        """Keep training waiting, so that all passes within the block use the same weights."""
        with self.forward_lock.hold_weights():
            yield

    @contextmanager
    def inference(self) -> Iterator[GPT4RoIForConditionalGeneration]:
        """Run a pass of the model alone and in evaluation mode, also while it trains.

        Other threads wait, training's next step among them. Afterwards the model is in the mode in which it was.
        """
        with self.forward_lock.one_pass():
            model = self.model
            # Without evaluation mode LoRA drops out, and gradient checkpointing turns the key/value cache off.
            training = [] if self._depth else [module for module in _modules(model) if module.training]
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
        """Change the weights alone: answers that are being written are finished first, and those that wait go before
        it. What was encoded with the weights before is encoded again where it is used."""
        with self.forward_lock.training_step():
            try:
                yield
            finally:
                self.training_steps += 1

    @property
    def weights_version(self) -> int:
        """Another number after every change of the weights: by `training_step`, and by anything that torch counts."""
        weights = (weight for module in _modules(self.model) for weight in module._parameters.values())
        # Quantised weights are packed anew by their own kernels, without a change of their value.
        floats = (weight for weight in weights if weight is not None and weight.is_floating_point())
        return hash((self.training_steps, *((weight._version, weight.data_ptr()) for weight in floats)))

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
        self._model = self.compiled = None
        clear_frames(getattr(sys, "last_value", None))


def _modules(model: torch.nn.Module) -> list[torch.nn.Module]:
    """All modules of a model; `model.modules()` takes four times as long, and this is asked at every token."""
    found = [model]
    for module in found:  # grows meanwhile
        found += [child for child in module._modules.values() if child is not None]
    return found
