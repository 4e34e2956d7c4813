"""What a step of training takes beside the weights, compared with what is free before the first."""

from __future__ import annotations

import warnings
from bisect import bisect_right

import torch
from torch import nn

from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.memory import free_bytes, in_words, layer_graph_bytes, prompt_tokens

MOMENTS = 2  # Adam's, of the dtype of what trains
# What a round of the fusion keeps for the backward pass, in times its maps in float32. Counted on GPT4RoI-7B;
# tests/train/test_cost.py counts again.
GRAPH_MAPS = 4
LOGITS = 3 * torch.float32.itemsize  # of each logit: in float32, its log-probability, its gradient


def step_bytes(model: nn.Module, rows: int, tokens: int, *, itemsize: int, checkpointing: bool) -> int:
    """Bytes that a step takes beside the weights, at most: gradients, Adam's moments, and what the backward pass needs.

    Args:
        model: a GPT4RoI with `requires_grad` set as it will train.
        rows: the batch size. tokens: of the longest row.
        itemsize: bytes of a number of the dtype that the language model computes in.
        checkpointing: keep what goes into each layer alone.
    """
    config: GPT4RoIConfig = model.config  # type: ignore[assignment]  # transformers declares the base class
    return (1 + MOMENTS) * trained_bytes(model) + rows * row_bytes(config, tokens, itemsize, checkpointing)


def trained_bytes(model: nn.Module) -> int:
    """Bytes of what trains; its gradients take as much again, and each of Adam's moments."""
    return sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)


def row_bytes(config: GPT4RoIConfig, tokens: int, itemsize: int, checkpointing: bool) -> int:
    """Bytes that one row keeps for the backward pass. See `step_bytes`."""
    text, region = config.text_config, config.region_config
    layer = tokens * layer_graph_bytes(config, itemsize)
    kept = tokens * text.hidden_size * itemsize
    layers = layer + text.num_hidden_layers * kept if checkpointing else text.num_hidden_layers * layer
    places = sum(size**2 for size in config.level_sizes) * region.hidden_size * torch.float32.itemsize
    rounds = region.num_fusion_rounds
    fusion = places * (GRAPH_MAPS + rounds if checkpointing else GRAPH_MAPS * rounds)
    return layers + fusion + tokens * text.vocab_size * (itemsize + LOGITS)


def check_step(
    model: nn.Module, device: torch.device, batch_size: int, max_length: int, *, half: bool, checkpointing: bool
) -> None:
    """Compare what a step takes at least with what is free on a device that holds the weights already.

    A row is taken to be as long as a question about one region. half: the language model computes in half precision.

    Raises:
        MemoryError: gradients and Adam's moments alone do not fit.

    Warns:
        UserWarning: they do, but the batch is likely too large; the message names what would fit.
    """
    free = free_bytes(device)
    if free is None:
        return
    config: GPT4RoIConfig = model.config  # type: ignore[assignment]  # transformers declares the base class
    trained = trained_bytes(model)
    least = (1 + MOMENTS) * trained
    if least > free:
        raise MemoryError(
            f"the gradients of what trains and Adam's moments need {in_words(least)}, but {in_words(free)} are free on "
            f"{device}: train the language model by lora={{}}, train fewer parts (trainable=…), or shard it over "
            "several GPUs (docs/training.md)"
        )
    tokens = min(max_length, prompt_tokens(config))
    itemsize = 2 if half else next(model.parameters()).dtype.itemsize

    def needed(rows: int, lean: bool = checkpointing) -> int:
        return step_bytes(model, rows, tokens, itemsize=itemsize, checkpointing=lean)

    if needed(batch_size) <= free:
        return
    fitting = bisect_right(range(1, batch_size + 1), free, key=needed)
    ways = [f"batch_size={fitting}, with gradient_accumulation_steps raised by as much"] if fitting else []
    if not checkpointing and needed(batch_size, True) <= free:
        ways.append("gradient_checkpointing=True")
    warnings.warn(
        f"a step with batch_size={batch_size} takes about {in_words(needed(batch_size))} beside the weights, but "
        f"{in_words(free)} are free on {device}, so that memory may run out; what would fit: "
        + (", or ".join(ways) or "batch_size=1 with gradient_checkpointing=True comes nearest"),
        stacklevel=3,
    )
