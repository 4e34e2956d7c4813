"""Passes that show attention weights, without holding more of them than requested."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from gpt4roi_nb.arguments import whole_number
from gpt4roi_nb.batches import check_room
from gpt4roi_nb.capture.replay import Replay
from gpt4roi_nb.finite import log_probabilities, nan_error
from gpt4roi_nb.memory import in_words, map_bytes, modules_of, work_bytes
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration

LIMIT = 2_000_000_000  # bytes


@contextmanager
def eager_attention(model: GPT4RoIForConditionalGeneration) -> Iterator[None]:
    """Switch the language model to eager attention and back, also after an error: only eager mode has weights.

    Args:
        model: the model whose `language_model` is switched.

    Examples:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.capture import eager_attention
        >>> model = GPT4RoI.from_pretrained(device="cpu").model
        >>> with eager_attention(model):
        ...     print(model.language_model.config._attn_implementation)
        eager
    """
    before = model.language_model.config._attn_implementation
    model.language_model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.language_model.set_attn_implementation(before)


def attention_modules(model: GPT4RoIForConditionalGeneration) -> list[nn.Module]:
    """Return the attention module of each of the language model's layers, in order.

    Raises:
        NotImplementedError: if the language model is not built in transformers' usual way.
    """
    found = [
        module
        for module in modules_of(model.language_model)
        if "Attention" in type(module).__name__ and isinstance(getattr(module, "layer_idx", None), int)
    ]
    layers = model.config.text_config.num_hidden_layers
    if [module.layer_idx for module in found] != list(range(layers)):
        raise NotImplementedError(
            f"expected one attention module for each of {layers} layers, but {type(model.language_model).__name__} "
            f"has {len(found)}; its attention cannot be recorded"
        )
    return found


@contextmanager
def capture_attention(
    modules: Sequence[nn.Module], look: Callable[[int, Tensor], None], layers: Sequence[int] | None = None
) -> Iterator[None]:
    """Call `look(layer, weights)` with the (B, heads, T, S) weights of each pass in the block, one layer at a time.

    Args:
        modules: the attention module of each layer, which must be in eager mode.
        look: called with each layer's weights.
        layers: indices of the modules to look at; None means all.
    """

    def hook(layer: int) -> Callable[..., None]:
        def see(module: nn.Module, given: tuple[Any, ...], output: tuple[Tensor, Tensor | None]) -> None:
            weights = output[1]
            if weights is None:
                raise NotImplementedError(f"{type(module).__name__} returns no attention weights in eager mode")
            look(layer, weights)

        return see

    chosen = range(len(modules)) if layers is None else layers
    handles = [modules[layer].register_forward_hook(hook(layer)) for layer in chosen]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def capture_layer_inputs(model: GPT4RoIForConditionalGeneration, look: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Call `look(layer, states)` with the (B, T, D) hidden states that enter each layer of a pass in the block."""
    attention = attention_modules(model)
    layers = [
        module for module in modules_of(model.language_model) if any(child in attention for child in module.children())
    ]

    def hook(layer: int) -> Callable[..., None]:
        def see(module: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            look(layer, given[0] if given else named["hidden_states"])

        return see

    handles = [layer.register_forward_pre_hook(hook(index), with_kwargs=True) for index, layer in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def chosen(given: Sequence[int] | int | None, count: int, what: str) -> list[int]:
    """Check indices of layers or heads, which may be negative; return them from 0. None means all."""
    if given is None:
        return list(range(count))
    several = given if isinstance(given, Iterable) else [given]
    wanted = [whole_number(index, f"each of {what}") for index in several]
    wrong = [index for index in wanted if not -count <= index < count]
    if wrong or not wanted:
        raise ValueError(
            f"{what} must be some of 0 to {count - 1}, or None for all, but "
            + (f"holds {wrong[0]}" if wrong else "is empty")
        )
    return list(dict.fromkeys(index % count for index in wanted))


def attention_bytes(replay: Replay, layers: Sequence[int], heads: Sequence[int], dtype: torch.dtype) -> int:
    """Compute the bytes that recording needs: the weights kept, and those of one whole layer."""
    model = replay.loaded.model
    written, answer = len(replay.ids), len(replay.tokens)
    return sizes(model.config, replay.length, written, answer, len(layers), len(heads), dtype, model.dtype)


def sizes(
    config: PreTrainedConfig,
    prompt: int,
    written: int,
    answer: int,
    layers: int,
    heads: int,
    dtype: torch.dtype,
    model_dtype: torch.dtype,
) -> int:
    """Compute `attention_bytes` from counts: tokens of the prompt, tokens written, and those of the answer in them."""
    total = prompt + max(written - 1, 0)
    return layers * heads * answer * total * dtype.itemsize + map_bytes(config, model_dtype, total)


def check_size(size: int, limit: float, layers: Sequence[int], heads: Sequence[int], dtype: torch.dtype) -> None:
    """Raise MemoryError if a recording would be larger than the limit."""
    if size > limit:
        half = "" if dtype == torch.float16 else ", dtype=torch.float16"
        raise MemoryError(
            f"the attention would take {in_words(size)}, but the limit is {in_words(limit)}; narrow it with "
            f"layers=… (now {len(layers)}), heads=… (now {len(heads)}){half}, or raise limit=…"
        )


def check_pass(replay: Replay, what: str, kept: int = 0) -> None:
    """Check, before it begins, that one pass with eager attention fits into memory.

    Args:
        replay: the answer.
        what: subject and verb of the message, as `check_room` takes it.
        kept: bytes that the pass keeps on the CPU; they count if the model is there too.

    Raises:
        MemoryError: if it does not fit.
    """
    model = replay.loaded.model
    tokens = forced_tokens(replay)
    needed = work_bytes(model, tokens=tokens, cached=0, logits=len(replay.tokens))
    needed += map_bytes(model.config, model.dtype, tokens) + (kept if model.device.type == "cpu" else 0)
    check_room(replay.loaded, needed, what)


def forced_tokens(replay: Replay) -> int:
    """Count the tokens of a teacher-forced pass: the prompt and what was written, except for the last."""
    return replay.length + max(len(replay.ids) - 1, 0)


@torch.inference_mode()
def record(replay: Replay, layers: Sequence[int], heads: Sequence[int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Run one teacher-forced pass in eager mode over a finished answer.

    Returns:
        (layers, heads, A, P + G - 1) weights of the steps that wrote each answer token, and (A,) float32
        log-probabilities of the tokens, recomputed in this pass; both on the CPU.

    Raises:
        FloatingPointError: if the model computes NaN.
    """
    steps, count = replay.steps, len(replay.tokens)
    kept: dict[int, Tensor] = {}
    picked = torch.tensor(list(heads))

    def look(layer: int, weights: Tensor) -> None:
        kept[layer] = weights[0, :, steps][picked.to(weights.device)].to("cpu", dtype)

    embeddings = replay.forced(replay.embeddings())
    with (
        replay.loaded.inference() as model,
        eager_attention(model),
        capture_attention(attention_modules(model), look, layers),
    ):
        logits = model.language_model(inputs_embeds=embeddings, use_cache=False, logits_to_keep=max(count, 1)).logits[0]
    weights = torch.stack([kept[layer] for layer in layers])
    if not torch.isfinite(weights).all():
        raise nan_error(model, "attention")
    if not count:
        return weights, torch.zeros(0)
    wanted = torch.tensor(list(replay.ids[replay.first :]))
    return weights, log_probabilities(logits, model).cpu().gather(-1, wanted[:, None]).squeeze(-1)
