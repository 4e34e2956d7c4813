"""How much memory a training needs, whether it is free, and which smaller training would fit if it is not.

The sizes of weights, gradients and the optimizer's state are computed. Those of activations, which the language model's
layers, its logits and the region encoder's fusion keep from the forward to the backward pass, come from measured
constants. A training takes somewhat more: buffers of several processes and temporary tensors within a layer are left
out, so that nothing that could fit is rejected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.memory import free_bytes, in_words
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.train.parts import LORA_DEFAULTS, LORA_MARK

FLOAT32 = torch.float32.itemsize  # of trained weights, their gradients and moments
ADAM = ("adamw_torch", "adamw_torch_fused")
ADAM_MOMENTS = 2
# Bytes per token that a layer of a language model keeps for the backward pass: per unit of its width, and per unit of
# its feed-forward width. Keys: how it trains, and whether it computes in half precision. Measured with LLaMA's layers,
# whose attention keeps no map (SDPA); tests/train/test_memory.py measures them again.
LAYER_BYTES = {
    ("whole", True): (37, 8),
    ("whole", False): (43, 16),
    ("adapters", True): (55, 12),
    ("adapters", False): (67, 14),
    ("frozen", True): (18, 6),
    ("frozen", False): (18, 6),
}
# Bytes that the region encoder's fusion keeps, per round, channel and position of its maps. Key: half precision.
FUSION_BYTES = {True: 6.8, False: 11.6}
# Bytes per token and word, for the logits: themselves, in float32, their logarithms, and the gradient of these.
LOGIT_BYTES = 14
SHARDS = (2, 4, 8, 16, 32, 64)  # numbers of GPUs that are tried


@dataclass(frozen=True)
class Settings:
    """What the memory of a training depends on, besides the model.

    Attributes:
        trainable: parts, as `choose_parts` takes them.
        rank: of the language model's adapters; None if its own weights train.
        adapters: how many parameters the adapters have, as `adapter_numbers` counts them; None counts adapters for all
            matrices but the last.
        batch_size: records per device.
        tokens: per record.
        checkpointing: whether layers are computed again in the backward pass.
        half: whether it computes in half precision (autocast).
        optim: transformers' name for the optimizer. Only AdamW's state is counted.
        shards: how many devices weights, gradients and the optimizer's state are divided among.
    """

    trainable: Sequence[str]
    rank: int | None = None
    adapters: int | None = None
    batch_size: int = 1
    tokens: int = 512
    checkpointing: bool = False
    half: bool = True
    optim: str = ADAM[0]
    shards: int = 1


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on one device. weights: includes their copies in half precision, if training computes in it."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def optimizer_bytes(optim: str) -> int:
    """Bytes that an optimizer keeps per float32 weight; 0 if that is not known."""
    return FLOAT32 * ADAM_MOMENTS if optim in ADAM else 0


def training_memory(model: GPT4RoIForConditionalGeneration, settings: Settings) -> TrainingMemory:
    """Compute the least memory that a training needs.

    Args:
        model: as it is loaded, or a `skeleton` in the dtype that it will be loaded in.
        settings: of the training.
    """
    adapted = settings.rank is not None
    most = _adapter_numbers(model, settings.rank) if settings.rank is not None else 0
    trained = most if settings.adapters is None else settings.adapters
    some_adapted = trained < most
    frozen_bytes = copies = 0
    for part, module in model.named_children():
        trains = part in settings.trainable and not (adapted and part == "language_model")
        for name, weight in module.named_parameters():
            if LORA_MARK in name:  # adapters that an earlier training left on the model; they will be removed
                continue
            if trains:
                trained += weight.numel()
            else:
                frozen_bytes += weight.numel() * weight.element_size()
        if settings.half and trains and settings.shards == 1:  # autocast keeps a copy of each matrix for a step
            matrices = [layer.weight for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
            copies += torch.bfloat16.itemsize * sum(matrix.numel() for matrix in matrices)
    return TrainingMemory(
        weights=(trained * FLOAT32 + frozen_bytes) // settings.shards + copies,
        gradients=trained * FLOAT32 // settings.shards,
        optimizer=trained * optimizer_bytes(settings.optim) // settings.shards,
        activations=int(_activations(model.config, settings, some_adapted)),  # type: ignore[arg-type]  # transformers declares the base class
    )


def _adapter_numbers(model: GPT4RoIForConditionalGeneration, rank: int) -> int:
    """Number of parameters of adapters for all matrices of the language model but its last."""
    output = model.get_output_embeddings()
    linears = [
        layer
        for name, layer in model.language_model.named_modules()
        if isinstance(layer, nn.Linear) and layer is not output and LORA_MARK not in name
    ]
    return sum(rank * (layer.in_features + layer.out_features) for layer in linears)


def _activations(config: GPT4RoIConfig, settings: Settings, some_adapted: bool) -> float:
    """Bytes of activations. some_adapted: whether only some matrices have adapters; then layers count as without
    adapters, which keep no more than those with some."""
    text, region, half = config.text_config, config.region_config, settings.half
    tokens = settings.batch_size * settings.tokens
    frozen = "language_model" not in settings.trainable or some_adapted
    way = "frozen" if frozen else "whole" if settings.rank is None else "adapters"
    width, feed_forward = LAYER_BYTES[way, half]
    layer = tokens * (width * text.hidden_size + feed_forward * (getattr(text, "intermediate_size", None) or 0))
    inputs = tokens * FLOAT32 * text.hidden_size  # all that a layer keeps if it is computed again
    layers = text.num_hidden_layers
    total = layer + layers * inputs if settings.checkpointing else layers * layer
    total += tokens * LOGIT_BYTES * text.vocab_size
    if "region_encoder" in settings.trainable or "vision_tower" in settings.trainable:
        places = settings.batch_size * sum(size**2 for size in config.level_sizes) * region.hidden_size
        rounds, kept = region.num_fusion_rounds, FUSION_BYTES[half]
        total += places * (kept + rounds * FLOAT32 if settings.checkpointing else rounds * kept)
    return total


def check_training_memory(
    model: GPT4RoIForConditionalGeneration, settings: Settings, device: torch.device, accumulation: int = 1
) -> None:
    """Compare the memory that a training needs with what is free on its device.

    Args:
        model: as it is loaded. The memory that it already takes on the device is not counted again.
        settings: of the training.
        device: the one that it trains on.
        accumulation: `gradient_accumulation_steps`, which can make up for a smaller batch.

    Raises:
        MemoryError: it does not fit; the message names the smallest change that would make it fit.
    """
    there = [weight for weight in model.parameters() if weight.device.type != "meta"]
    if len({weight.device for weight in there}) > 1:
        return  # spread over several devices, which share the load
    free = free_bytes(device)
    needed = training_memory(model, settings)
    if free is None:
        return
    free += sum(weight.numel() * weight.element_size() for weight in there if _same_device(weight.device, device))
    if needed.total <= free:
        return
    raise MemoryError(
        f"this training needs at least {in_words(needed.total)} on {device} ({in_words(needed.weights)} for weights, "
        f"{in_words(needed.gradients)} for gradients, {in_words(needed.optimizer)} for the optimizer and "
        f"{in_words(needed.activations)} for activations of {settings.batch_size} × {settings.tokens} tokens), but "
        f"only {in_words(free)} are free for it; {_advice(model, settings, device, free, accumulation)}"
    )


def _same_device(one: torch.device, other: torch.device) -> bool:
    """Whether two devices are the same. Without an index, it is the current GPU, or the only device of its type."""
    if one.type != other.type or one.index == other.index:
        return one == other
    current = torch.cuda.current_device() if one.type == "cuda" else 0
    return (current if one.index is None else one.index) == (current if other.index is None else other.index)


def _advice(
    model: GPT4RoIForConditionalGeneration, settings: Settings, device: torch.device, free: int, accumulation: int
) -> str:
    """The smallest change with which the training fits, and on GPUs, how many of them it would need."""
    fitting = []
    changes = list(_changes(settings, accumulation))
    sizes = [(words, training_memory(model, changed).total) for words, changed in changes]
    fitting += [f"{words}, which needs {in_words(size)}" for words, size in sizes if size <= free][:1]
    if device.type == "cuda" and settings.rank is None:
        smallest = replace(settings, checkpointing=True, batch_size=1)
        several = (
            n for n in SHARDS if training_memory(model, replace(smallest, shards=settings.shards * n)).total <= free
        )
        if count := next(several, None):
            smaller = "gradient_checkpointing=True and batch_size=1"
            fitting.append(f"with {smaller}, {settings.shards * count} such GPUs by FSDP (docs/training.md)")
    if fitting:
        return "the smallest change that fits: " + "; or ".join(fitting)
    least = f" ({sizes[-1][0]} needs {in_words(sizes[-1][1])})" if sizes else ""
    return (
        f"nothing smaller fits either{least}: free some memory (gpt4roi.unload(), other notebooks), train fewer parts, "
        "or take a smaller model or a larger machine"
    )


def _changes(settings: Settings, accumulation: int) -> Iterator[tuple[str, Settings]]:
    """Smaller settings, each with the keywords that give it, the smallest change first."""
    adapters: list[tuple[str, Settings]] = [("", settings)]
    if "language_model" in settings.trainable and settings.rank is None and settings.shards == 1:
        adapters.append(("lora={}, ", replace(settings, rank=int(LORA_DEFAULTS["r"]))))
    for words, changed in adapters:
        steps = [(words, changed)]
        if not changed.checkpointing:
            steps.append((words + "gradient_checkpointing=True, ", replace(changed, checkpointing=True)))
        last_words, last = steps[-1]
        if last.batch_size > 1:
            alone = f"batch_size=1, gradient_accumulation_steps={accumulation * last.batch_size}, "
            steps.append((last_words + alone, replace(last, batch_size=1)))
        yield from ((said.removesuffix(", "), each) for said, each in steps if said)
