"""What a model of transformers needs in memory, from its configuration alone, and whether it fits."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

from gpt4roi_nb import memory
from gpt4roi_nb.memory import LoadOption, in_words
from gpt4roi_nb.quantization import HEAD, QUANTIZATIONS, check_packing, quantised_linears

# A session's prompt and answer: a photograph of a million pixels is about 1,300 tokens in Qwen's models, 4,100 at
# their largest. Not measured on real weights.
SESSION_TOKENS = 4096
_LANGUAGE = ("language_model", "text_model")  # as transformers' classes call it


def prompted_skeleton(config: PreTrainedConfig) -> nn.Module | None:
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
    return list(dict.fromkeys([*names, HEAD]))


def prompted_session_bytes(config: PreTrainedConfig, dtype: torch.dtype, weights: int) -> int:
    """Return the bytes of keys and values of SESSION_TOKENS, and of a GPT4RoI's headroom (at most the weights)."""
    text: Any = config.get_text_config(decoder=True)
    tokens = min(SESSION_TOKENS, text.max_position_embeddings)
    return tokens * memory.token_bytes(config, dtype) + memory.headroom_bytes(dtype, weights)


def prompted_work_bytes(model: PreTrainedModel, *, rows: int, tokens: int, logits: int = 1, pixels: int = 0) -> int:
    """Return the bytes that a batch takes besides a loaded model's weights: keys, values, logits, images, a headroom.

    The headroom is a GPT4RoI's, per row, and grows with rows of more than SESSION_TOKENS. Not measured on real weights.

    Args:
        model: of transformers, as it is in memory.
        rows: prompts in the batch.
        tokens: of the longest prompt and its answer.
        logits: positions per row whose logits are computed at one time.
        pixels: of the images of a row before their preparation, together.
    """
    images = pixels * 3 * 2 * torch.float32.itemsize  # while they are prepared, and afterwards
    return rows * images + memory.work_bytes(
        model, rows=rows, tokens=tokens, cached=rows * tokens, logits=logits, headroom_tokens=SESSION_TOKENS
    )


def check_prompted_memory(
    config: PreTrainedConfig,
    model: nn.Module | None,
    device: torch.device,
    dtype: torch.dtype,
    quantization: str | None,
    source: str,
) -> None:
    """Compare the need of a model and a session with the free memory, before weights are fetched or read.

    Args:
        config: of the model.
        model: its `prompted_skeleton`; None compares nothing.
        device: where it is to go.
        dtype: of its weights, or with `quantization` of the other parts.
        quantization: of its language model.
        source: the model in the message.

    Raises:
        MemoryError: if it does not fit; the message names the smallest change of setting that would.
        ValueError: if the processor cannot compute with this quantisation of this model.
    """
    if model is None:
        return
    free = memory.sum_free([device])
    skipped = not_quantised(model)
    check_packing(quantised_linears(model, skipped) if quantization else {}, quantization, device)
    if free is None:
        return

    def needs(kind: torch.dtype, bits: str | None) -> tuple[int, int]:
        weights = memory.weight_bytes(model, kind, bits, skipped)
        return weights, prompted_session_bytes(config, kind, weights)

    weights, session = needs(dtype, quantization)
    if weights + session <= free:
        return
    half = memory.half_of(dtype)
    options = [
        LoadOption(memory.settings_in_words(half, bits), sum(needs(half, bits)), free)
        for bits in (None, *QUANTIZATIONS)
    ]
    raise MemoryError(
        f"{source!r} needs {in_words(weights + session)}"
        f" ({memory.needs_in_words(weights, session, dtype, quantization)}), but {in_words(free)} are free on {device};"
        f" {memory.advice(options)}"
    )
