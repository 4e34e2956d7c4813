"""Checks of what `train` is given, before it changes anything."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import torch
from transformers import TrainingArguments

from gpt4roi_nb.arguments import real_number, whole_number
from gpt4roi_nb.data.augmentation import AUGMENTATIONS
from gpt4roi_nb.data.collate import ImageFolders
from gpt4roi_nb.data.mixture import WithImages
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.train.arguments import PUBLISHED, Stage
from gpt4roi_nb.train.memory import Settings, check_training_memory
from gpt4roi_nb.train.parts import LORA_DEFAULTS, adapter_numbers
from gpt4roi_nb.train.sharding import is_sharded

# The smallest value of each integer that `train` takes.
LEAST = {
    "max_steps": -1,
    "batch_size": 1,
    "gradient_accumulation_steps": 1,
    "max_length": 1,
    "seed": 0,
    "save_steps": 1,
    "keep": 1,
    "logging_steps": 1,
    "workers": 0,
    "probe_steps": 1,
}


def check_options(options: Mapping[str, Any]) -> None:
    """Raise TypeError for a keyword's former name, which transformers does not know either."""
    if "warmup" in options:
        raise TypeError(
            f"train has no keyword warmup; give warmup_steps={options['warmup']!r}: "
            "a number of steps, or, if below 1, a share of all steps"
        )


def check_stage(stage: int) -> Stage:
    """Return the published settings of a stage; raise ValueError if there is no such stage."""
    if stage not in PUBLISHED:
        raise ValueError(f"stage must be 1 or 2, but is {stage!r}; for other parts give trainable")
    return PUBLISHED[stage]


def check_numbers(given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a training's numbers to Python's, and check them; None stays None.

    Raises:
        TypeError: one is not a number, or not an integer where it has to be.
        ValueError: one is too small, NaN or infinite.
    """
    numbers: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            numbers[name] = None
        elif name in LEAST:
            numbers[name] = whole_number(value, name, LEAST[name])
        else:
            numbers[name] = real_number(value, name)
            if not 0 <= numbers[name] < math.inf:
                raise ValueError(f"{name} must be a finite number of at least 0, but is {value}")
    if numbers["epochs"] == 0 or numbers["max_steps"] == 0:
        raise ValueError(
            "epochs and max_steps must not be 0, since that trains nothing; give epochs, or max_steps (-1: by epochs)"
        )
    return numbers


def check_data(data: Sized, images: ImageFolders | None) -> None:
    """Raise ValueError if the data are empty, or do not know their images' folder and `images` is not given."""
    if not len(data):
        raise ValueError("there are no data to train on: their length is 0")
    if images is None and not isinstance(data, WithImages):
        raise ValueError("the data do not know which folder their images are in; name it: train(…, images=folder)")


def check_augment(augment: Any) -> str | dict[str, str] | None:
    """Convert `train`'s `augment` to what `Collator` takes: a name, or one per source; None for no augmentation.

    Raises:
        ValueError: there is no augmentation of that name.
        TypeError: it is neither a name nor a mapping from sources to names.
    """
    if augment is None or augment is False or augment == {}:
        return None
    if augment is True:
        return "mild"
    if not isinstance(augment, str | Mapping):
        raise TypeError(f"augment must be a name, or one per source, as {{'coco': 'published'}}, but is {augment!r}")
    for variant in [augment] if isinstance(augment, str) else augment.values():
        if variant not in AUGMENTATIONS:
            raise ValueError(
                f"augment must be one of {', '.join(AUGMENTATIONS)}, for all sources or per source, but is {augment!r}"
            )
    return augment if isinstance(augment, str) else dict(augment)


def check_tower_cache(trainable: Sequence[str], augment: str | Mapping[str, str] | None) -> None:
    """Raise ValueError if the tower's hidden states for every image change from step to step."""
    if isinstance(augment, str) or "vision_tower" in trainable:
        raise ValueError(
            "a tower cache needs a frozen tower and unchanged images: leave out tower_cache, or augment; with augment "
            "for some sources only, as {'coco': 'published'}, the images of the others are cached"
        )


def computes_in_half(asked: bool) -> bool:
    """Whether a training computes in half precision (autocast), by its own or its launcher's setting."""
    return asked or os.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no"


def check_gradients(model: GPT4RoIForConditionalGeneration, autocast: bool) -> None:
    """Raise ValueError if gradients would vanish on their way through a frozen language model."""
    if not computes_in_half(autocast) and any(
        weight.dtype == torch.float16 for weight in model.language_model.parameters()
    ):
        raise ValueError(
            "without autocast, gradients vanish in a frozen language model in float16: give bf16=True or fp16=True, "
            'or load it in another dtype, as GPT4RoI.from_pretrained(…, dtype="bfloat16")'
        )


def check_fits(
    model: GPT4RoIForConditionalGeneration,
    trainable: Sequence[str],
    lora: Mapping[str, Any] | None,
    arguments: TrainingArguments,
    tokens: int,
    gradient_checkpointing: bool,
) -> None:
    """Raise MemoryError if a training needs more than is free on its device.

    Args:
        model: as it is loaded.
        trainable: parts, as `choose_parts` takes them.
        lora: options of the adapters; None if there are none.
        arguments: of the training.
        tokens: per record.
        gradient_checkpointing: whether layers are computed again in the backward pass.
    """
    settings = Settings(
        trainable,
        rank=None if lora is None else int(lora.get("r", LORA_DEFAULTS["r"])),
        adapters=None if lora is None else adapter_numbers(model, dict(lora)),
        batch_size=arguments.per_device_train_batch_size,
        tokens=tokens,
        checkpointing=gradient_checkpointing,
        half=computes_in_half(bool(arguments.bf16 or arguments.fp16)),
        optim=arguments.optim,
        shards=arguments.world_size if is_sharded(os.environ) else 1,
    )
    check_training_memory(model, settings, arguments.device, arguments.gradient_accumulation_steps)


def check_unsharded(given: Mapping[str, Any]) -> None:
    """Raise ValueError if a sharded training is given what it does not support; None is not given."""
    if unfit := [name for name, value in given.items() if value is not None]:
        raise ValueError(
            f"a sharded training (FSDP) does not support {', '.join(unfit)}: leave it out, or train unsharded"
        )
