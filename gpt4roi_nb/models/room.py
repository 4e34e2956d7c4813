"""What a model of transformers needs in memory, from its configuration alone, and whether it fits."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedConfig

from gpt4roi_nb.memory import HEADROOM, in_words, sum_free
from gpt4roi_nb.quantization import QUANTIZATIONS, check_packing, quantised_bytes

# A session's prompt and answer: a photograph of a million pixels is about 1,300 tokens in Qwen's models, 4,100 at
# their largest. Not measured on real weights.
SESSION_TOKENS = 4096
_LANGUAGE = ("language_model", "text_model")  # as transformers' classes call it
_HEAD = "lm_head"


def skeleton(config: PreTrainedConfig) -> nn.Module | None:
    """Build a model with shapes but no values; return None for a class that cannot be built so."""
    try:
        with torch.device("meta"):
            return AutoModelForImageTextToText.from_config(copy.deepcopy(config), trust_remote_code=False)
    except (NotImplementedError, RuntimeError, ImportError):  # it computes with its values, or lacks a package
        return None


def not_quantised(model: nn.Module) -> list[str]:
    """Name the modules that are not quantised, as in a GPT4RoI: all outside the language model, and the head."""
    names: list[str] = []

    def search(module: nn.Module, prefix: str) -> bool:
        """Whether a language model is below; the names of what stands beside it are noted."""
        children = [(f"{prefix}{name}", name, child) for name, child in module.named_children()]
        below = {full for full, name, child in children if name in _LANGUAGE or search(child, f"{full}.")}
        if below:
            names.extend(full for full, _, _ in children if full not in below)
        return bool(below)

    search(model, "")
    return list(dict.fromkeys([*names, _HEAD]))


def weight_bytes(model: nn.Module, dtype: torch.dtype, quantization: str | None) -> int:
    """Return the bytes of the weights once the model is loaded. model: a `skeleton`, or any that is not quantised."""
    total = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    if quantization is None:
        return total
    for linear in language_linears(model).values():
        total += quantised_bytes(linear, quantization) - linear.weight.numel() * dtype.itemsize
    return total


def language_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the matrices that `quantization` turns into 8 or 4 bits, by name."""
    skipped = tuple(not_quantised(model))
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and not name.startswith(skipped) and not name.endswith(_HEAD)
    }


def token_bytes(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Return the bytes of one token's keys and values."""
    text: Any = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return text.num_hidden_layers * 2 * heads * head_dim * dtype.itemsize


def session_bytes(config: PreTrainedConfig, dtype: torch.dtype, weights: int) -> int:
    """Return the bytes of keys and values of SESSION_TOKENS, and of a GPT4RoI's headroom (at most the weights)."""
    text: Any = config.get_text_config(decoder=True)
    tokens = min(SESSION_TOKENS, text.max_position_embeddings)
    return tokens * token_bytes(config, dtype) + min(HEADROOM * dtype.itemsize, weights)


def work_bytes(model: Any, *, rows: int, tokens: int, logits: int = 1, pixels: int = 0) -> int:
    """Return the bytes that a batch takes besides a loaded model's weights: keys, values, logits, images, a headroom.

    The headroom is a GPT4RoI's, per row, and grows with rows of more than SESSION_TOKENS. Not measured on real weights.

    Args:
        model: of transformers, as it is in memory.
        rows: prompts in the batch.
        tokens: of the longest prompt and its answer.
        logits: positions per row whose logits are computed at one time.
        pixels: of the images of a row before their preparation, together.
    """
    text: Any = model.config.get_text_config(decoder=True)
    # As computed, in float32, and their logarithms.
    scores = logits * text.vocab_size * (model.dtype.itemsize + 2 * torch.float32.itemsize)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    headroom = min(HEADROOM * model.dtype.itemsize, weights) * max(1.0, tokens / SESSION_TOKENS)
    images = pixels * 3 * 2 * torch.float32.itemsize  # while they are prepared, and afterwards
    return rows * (tokens * token_bytes(model.config, model.dtype) + scores + images + math.ceil(headroom))


def check_room(
    config: PreTrainedConfig, device: torch.device, dtype: torch.dtype, quantization: str | None, source: str
) -> None:
    """Compare the need of a model and a session with the free memory, before weights are fetched or read.

    Args:
        config: of the model.
        device: where it is to go.
        dtype: of its weights, or with `quantization` of the other parts.
        quantization: of its language model.
        source: the model in the message.

    Raises:
        MemoryError: if it does not fit; the message names the smallest change of setting that would.
        ValueError: if the processor cannot compute with this quantisation of this model.
    """
    model, free = skeleton(config), sum_free([device])
    if model is None:
        return
    check_packing(language_linears(model) if quantization else {}, quantization, device)
    if free is None:
        return

    def needed(kind: torch.dtype, bits: str | None) -> int:
        weights = weight_bytes(model, kind, bits)
        return weights + session_bytes(config, kind, weights)

    if needed(dtype, quantization) <= free:
        return
    half = dtype if dtype.itemsize == torch.bfloat16.itemsize else torch.bfloat16
    options = [
        (f'{f"quantization={bits!r}, " if bits else ""}dtype="{str(half).removeprefix("torch.")}"', needed(half, bits))
        for bits in (None, *QUANTIZATIONS)
    ]
    fitting = next((f"{words}, which needs {in_words(size)}" for words, size in options if size <= free), None)
    advice = (
        f"the smallest change that fits: {fitting}"
        if fitting
        else f"nothing smaller fits either ({options[-1][0]} needs {in_words(options[-1][1])}): free memory, or take a "
        "smaller model or a larger machine"
    )
    weights = weight_bytes(model, dtype, quantization)
    kind = f"in {quantization.replace('bit', ' bits')}" if quantization else f"as {str(dtype).removeprefix('torch.')}"
    raise MemoryError(
        f"{source!r} needs {in_words(needed(dtype, quantization))} ({in_words(weights)} for the weights {kind} and "
        f"{in_words(session_bytes(config, dtype, weights))} for a session), but {in_words(free)} are free on {device}; "
        f"{advice}"
    )
