"""A model and its processor in memory, with what every pass needs: lock, mode and version of the weights."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

import torch

from gpt4roi_nb.inference.compiled import CompiledSteps
from gpt4roi_nb.inference.detokenizer import AnswerFormat
from gpt4roi_nb.memory import clear_frames, modules_of
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.tokenizer import ADDED_TOKENS

PAUSE = 1.0  # seconds that the reader of a streamed answer may take per piece before training continues


class WeightsChangedError(RuntimeError):
    """The weights changed between two steps of one answer."""


class ForwardLock:
    """The lock of the model: one pass at a time, in whatever thread, and no training step during an answer.

    Several answers may be written at once, pass by pass. A training step waits until none is being written; waiting
    answers go first.
    """

    def __init__(self) -> None:
        self._pass = threading.RLock()
        self._changed = threading.Condition()
        self._holding: Counter[int] = Counter()  # by thread: blocks that need the weights unchanged
        self._training: int | None = None  # the thread that changes them
        self._reserved: dict[object, float] = {}  # by answer: deadline of its next step, by the monotonic clock
        self.training_steps = 0  # that were taken
        self.hashes: dict[int, str] = {}  # of the weights by their version, kept while these are held

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
                self._holding += Counter()  # drops zeros
                if not self._holding:
                    self.hashes.clear()
                self._changed.notify_all()

    @contextmanager
    def one_pass(self) -> Iterator[None]:
        """Run a pass alone; reentrant."""
        with self.hold_weights(), self._pass:
            yield

    @contextmanager
    def training_step(self) -> Iterator[None]:
        """Wait until no other thread needs the weights unchanged, then allow to change them; reentrant."""
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
                self.training_steps += 1
                self._changed.notify_all()

    def _seconds_to_wait(self, me: int) -> float:
        """Return the seconds until a training step may be tried again; 0 if it may begin."""
        if self._training == me:
            return 0.0
        if self._training is not None or any(thread != me for thread in self._holding):
            return threading.TIMEOUT_MAX  # until notified
        return max(0.0, max(self._reserved.values(), default=0.0) - time.monotonic())

    def reserve(self, answer: object, seconds: float = PAUSE) -> None:
        """Keep the next training step waiting for some seconds, since this answer's next step will follow."""
        with self._changed:
            self._reserved[answer] = time.monotonic() + seconds

    def end_reservation(self, answer: object) -> None:
        """Stop keeping training waiting: this answer is finished."""
        with self._changed:
            self._reserved.pop(answer, None)
            self._changed.notify_all()


class Releasable(Protocol):
    """An object that holds memory of a loaded model."""

    def release(self) -> None:
        """Free the memory."""


class LoadedModel:
    """A model and its processor in memory.

    Every pass runs within `inference()`, an answer of several passes within `hold_weights()`, and every training step
    within `training_step()`.

    Attributes:
        model: a `GPT4RoIForConditionalGeneration`, an ordinary transformers model in evaluation mode.
        processor: its `GPT4RoIProcessor`.
        source: where it was loaded from.
        forward_lock: the lock of the model. No pass begins in one attention mode and ends in another.
        check_free_memory: whether work larger than a session compares needed with free memory before it begins.
        compiled: the compiled steps of answers written alone; None if nothing is compiled.
        way: how a region is told to the model.
        revision: commit of the hub id that it was loaded from with `load_model`; "" for a folder.
    """

    way: str = "region tokens"
    revision: str = ""

    def __init__(self, model: GPT4RoIForConditionalGeneration, processor: GPT4RoIProcessor, source: str = "") -> None:
        self._model: GPT4RoIForConditionalGeneration | None = model.eval()
        self.processor = processor
        self.source = source
        self.forward_lock = ForwardLock()
        self._depth = 0  # of `inference()` blocks in the thread that holds the lock
        self.check_free_memory = True
        self.compiled: CompiledSteps | None = None
        self._holders: weakref.WeakSet[Releasable] = weakref.WeakSet()

    @property
    def model(self) -> GPT4RoIForConditionalGeneration:
        """The model. Raises RuntimeError after `unload`."""
        self.check_loaded()
        return self._model  # type: ignore[return-value]

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory; False after `unload`."""
        return self._model is not None

    @property
    def about(self) -> str:
        """One sentence on what this checkpoint is."""
        stated = self._model.config.about if self._model is not None else ""
        return stated or f"GPT4RoI from {self.source or 'memory'}"

    @property
    def answer_format(self) -> AnswerFormat:
        """What decides where an answer ends."""
        return self.processor

    @property
    def context_length(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self.model.config.text_config.max_position_embeddings

    def never_written(self) -> list[int]:
        """Ids that stand for images and regions, or for no token at all, and that no answer may hold."""
        tokenizer = self.processor.tokenizer
        added = tokenizer.convert_tokens_to_ids(list(ADDED_TOKENS))
        beyond = range(len(tokenizer), self.model.config.text_config.vocab_size)
        return [*(index for index in added if index is not None), *beyond]

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return self.model.device

    @contextmanager
    def hold_weights(self) -> Iterator[None]:
        """Keep training waiting, so that all passes within the block use the same weights."""
        with self.forward_lock.hold_weights():
            yield

    @contextmanager
    def inference(self) -> Iterator[GPT4RoIForConditionalGeneration]:
        """Run a pass of the model alone and in evaluation mode, also while it trains.

        Other threads wait, including the next training step. Afterwards the model has the mode that it had before.
        """
        with self.forward_lock.one_pass():
            model = self.model
            # In training mode, LoRA applies dropout, and gradient checkpointing turns the key/value cache off.
            training = [] if self._depth else [module for module in modules_of(model) if module.training]
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
        """Change the weights while nothing else uses them.

        Answers that are being written or are waiting go first. Images encoded with the old weights are encoded again
        when they are used.
        """
        with self.forward_lock.training_step():
            yield

    @property
    def training_steps(self) -> int:
        """How often the weights were changed within `training_step()`, by any of the models that share them."""
        return self.forward_lock.training_steps

    @property
    def weights_version(self) -> int:
        """A number that differs after every change of the weights by `training_step` or anything that torch counts."""
        weights = (weight for module in modules_of(self.model) for weight in module._parameters.values())
        # Quantised weights are repacked by their own kernels, without a change of their values.
        floats = (weight for weight in weights if weight is not None and weight.is_floating_point())
        return hash((self.training_steps, *((weight._version, weight.data_ptr()) for weight in floats)))

    def fingerprint(self) -> str:
        """A hash of the weights as they are in memory: one changed number changes it.

        It is computed once while the weights are held, for all models that share them.
        """
        with self.hold_weights():
            version, hashes = self.weights_version, self.forward_lock.hashes
            if version not in hashes:
                hashes[version] = self._hash_weights()
            return hashes[version]

    @torch.inference_mode()
    def _hash_weights(self) -> str:
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            flat = tensor.detach().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).cpu().numpy().data)
        return digest.hexdigest()

    def remember(self, holder: Releasable) -> None:
        """Have `unload` free this holder's memory as well."""
        self._holders.add(holder)

    def check_loaded(self) -> None:
        """Raise RuntimeError after `unload`."""
        if self._model is None:
            raise RuntimeError(
                "this model has been unloaded; load it again with GPT4RoI.from_pretrained(…) and make a new session"
            )

    def unload(self) -> None:
        """Free the memory of the model and of its sessions. Asking afterwards is an error.

        After an error, the notebook keeps a traceback whose frames hold tensors; these are emptied too.
        """
        for holder in list(self._holders):
            holder.release()
        self._model = self.compiled = None
        clear_frames(getattr(sys, "last_value", None))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.unload()
        if error is not None:
            clear_frames(error)
