"""Compiled steps of one token, for answers written one at a time. Keys and values lie in memory of a fixed size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, StaticLayer

from gpt4roi_nb.memory import fixed_length
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration

_WITHOUT = "load the model without compile, or check that a C++ compiler is installed (Debian, Ubuntu: apt install g++)"
_NO_COMPILER = f"compile finds no C++ compiler; {_WITHOUT}"

MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")  # torch.compile's


def check_mode(compile: bool | str) -> None:
    """Raise ValueError unless `compile` is True, False or a mode of torch.compile."""
    if not isinstance(compile, bool) and compile not in MODES:
        raise ValueError(f"compile must be True, False or one of {', '.join(MODES)}, but is {compile!r}")


def check_compilable(model: GPT4RoIForConditionalGeneration) -> None:
    """Check, before the first answer, that a model's steps can be compiled.

    Raises:
        ValueError: if the language model is quantised, is spread over several devices or uses flash attention.
        RuntimeError: if a model on a CPU has no C++ compiler.
    """
    places = {str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()}
    attention = model.language_model.config._attn_implementation
    for wrong, what in (
        (getattr(model, "is_quantized", False), "is quantised"),
        (len(places) > 1, f"is spread over {', '.join(sorted(places))}"),
        ("flash" in attention, f"computes attention by {attention}, which takes no keys of a fixed length"),
    ):
        if wrong:
            raise ValueError(
                f"compile needs a language model that is not quantised, on one device, with attention by sdpa or "
                f"eager; this one {what}. Load it without compile"
            )
    if model.device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise RuntimeError(_NO_COMPILER) from error


class CompiledSteps:
    """The language model's pass over one token of one answer, compiled at its first use.

    A compiled pass needs tensors of constant shapes. So the conversation's growing cache is copied into one of a fixed
    length before an answer's second token, and what was added is copied back at the end. Code that reuses, cuts back or
    branches the conversation's cache is not affected.
    """

    def __init__(self, model: GPT4RoIForConditionalGeneration, mode: bool | str = True) -> None:
        """Prepare the compilation.

        Args:
            model: the loaded model.
            mode: one of `MODES`, torch.compile's, or True for its default.

        Raises:
            ValueError, RuntimeError: as `check_mode` and `check_compilable`.
        """
        check_mode(mode)
        check_compilable(model)
        mode = mode if isinstance(mode, str) else MODES[0]
        self._compiled: Any = torch.compile(model.language_model.__call__, mode=mode, dynamic=False)
        self._spare: Cache | None = None  # a cache that no answer uses

    def begin(self, cache: Cache, room: int) -> CompiledWriting:
        """Continue from a cache of one row that is not empty, for at most `room` more tokens."""
        needed = cache.get_seq_length() + room
        spare, self._spare = self._spare, None
        if spare is None or not _fits(spare, cache, needed):
            length = fixed_length(needed)
            spare = Cache(layers=[StaticLayer(max_cache_len=length) for _ in cache.layers])
        return CompiledWriting(self, spare, cache)

    def run(self, inputs_embeds: Tensor, cache: Cache, positions: Tensor) -> Tensor:
        """Compute the logits of one token.

        Args:
            inputs_embeds: (1, 1, D), the token's.
            cache: of a fixed length; grows by the token.
            positions: (1, 1) int64, the token's.

        Returns:
            (1, 1, V).

        Raises:
            RuntimeError: if torch cannot compile the step.
        """
        try:
            logits: Tensor = self._compiled(
                inputs_embeds=inputs_embeds, past_key_values=cache, position_ids=positions, use_cache=True
            ).logits
        except RuntimeError as error:
            from torch._dynamo.exc import TorchDynamoException

            if not isinstance(error, TorchDynamoException):
                raise
            reason = " ".join(str(error).split("\n\n")[0].split())  # the rest is advice for torch's developers
            raise RuntimeError(f"the model's step could not be compiled ({reason}); {_WITHOUT}") from error
        return logits

    def give_back(self, cache: Cache) -> None:
        """Keep a cache for the next answer."""
        self._spare = cache


class CompiledWriting:
    """The compiled steps of one answer, until `end`."""

    def __init__(self, steps: CompiledSteps, static: Cache, cache: Cache) -> None:
        self._steps, self._static, self._cache = steps, static, cache
        self._first = self._length = cache.get_seq_length()
        # Advanced on the device: a number from the host would have to be copied, and waited for, in every step.
        self._positions = torch.tensor([[self._first]], device=next(_states(cache))[0].device)
        static.reset()
        for index, (keys, values) in enumerate(_states(cache)):
            static.update(keys, values, index)

    def logits(self, inputs_embeds: Tensor) -> Tensor:
        """Compute the next token's logits: (1, 1, D) → (1, 1, V)."""
        logits = self._steps.run(inputs_embeds, self._static, self._positions)
        self._positions.add_(1)
        self._length += 1
        return logits

    @torch.inference_mode()
    def end(self) -> None:
        """Append what was added to the growing cache."""
        if self._length > self._first:
            added = slice(self._first, self._length)
            for index, (keys, values) in enumerate(_states(self._static)):
                self._cache.update(keys[..., added, :], values[..., added, :], index)
        self._steps.give_back(self._static)


def _states(cache: Cache) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the keys and values of each layer, (1, heads, length, D) each."""
    for layer in cache.layers:
        yield layer.keys, layer.values  # type: ignore[union-attr, misc]  # both kinds of layers here have them


def _fits(static: Cache, cache: Cache, needed: int) -> bool:
    """Whether a cache of fixed length can replace another one."""
    (one, _), (other, _) = next(_states(static)), next(_states(cache))
    return one.dtype == other.dtype and one.device == other.device and one.shape[-2] >= needed
