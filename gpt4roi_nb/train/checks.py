"""What cannot be trained, said before anything is changed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import torch

from gpt4roi_nb.arguments import real_number, whole_number
from gpt4roi_nb.data.augmentation import AUGMENTATIONS
from gpt4roi_nb.data.collate import ImageFolders
from gpt4roi_nb.data.mixture import Pictured
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration

# The least of each whole number that `train` takes.
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
    """Raises TypeError for a keyword by its former name, which transformers would not know either."""
    if "warmup" in options:
        raise TypeError(
            f"train has no keyword warmup; give warmup_steps={options['warmup']!r}: "
            "a number of steps, or below 1 a share of all steps"
        )


def check_numbers(given: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a training by name, as Python's; None stays None.

    Raises:
        TypeError: one is no number, or not whole where it has to be.
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
        raise ValueError("a training of 0 epochs or 0 steps teaches nothing; give epochs, or max_steps (-1: by epochs)")
    return numbers


def check_data(data: Sized, images: ImageFolders | None) -> None:
    """Raises ValueError for data that are empty, or do not know where their images lie."""
    if not len(data):
        raise ValueError("there is no data to train on: its length is 0")
    if images is None and not isinstance(data, Pictured):
        raise ValueError("the data do not know where their pictures lie; name their folder: train(…, images=folder)")


def check_augment(augment: Any) -> str | dict[str, str] | None:
    """How each source's images are augmented, as `Collator` takes it; None for none.

    Raises:
        ValueError: no augmentation is called so.
        TypeError: it is neither a name nor a mapping from sources to names.
    """
    if augment is None or augment is False or augment == {}:
        return None
    if augment is True:
        return "mild"
    if not isinstance(augment, str | Mapping):
        raise TypeError(
            f"augment must be a name, or a name for each source, as {{'coco': 'published'}}, but is {augment!r}"
        )
    for variant in [augment] if isinstance(augment, str) else augment.values():
        if variant not in AUGMENTATIONS:
            raise ValueError(
                f"augment must be one of {', '.join(AUGMENTATIONS)}, for all sources or each, but is {augment!r}"
            )
    return augment if isinstance(augment, str) else dict(augment)


def check_tower_cache(trainable: Sequence[str], augment: str | Mapping[str, str] | None) -> None:
    """Raises ValueError where the tower's hidden states of every image differ from step to step."""
    if isinstance(augment, str) or "vision_tower" in trainable:
        raise ValueError(
            "a tower cache fits a frozen tower and unchanged images: leave out tower_cache, or augment; with augment "
            "for single sources, as {'coco': 'published'}, the images of the others are kept"
        )


def computes_in_half(asked: bool) -> bool:
    """Whether a training computes in half precision (autocast): it is asked to, or its launcher is."""
    return asked or os.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no"


def check_gradients(model: GPT4RoIForConditionalGeneration, autocast: bool) -> None:
    """Raises ValueError where gradients vanish on their way through a frozen language model."""
    if not computes_in_half(autocast) and any(
        weight.dtype == torch.float16 for weight in model.language_model.parameters()
    ):
        raise ValueError(
            "a frozen language model in float16 passes gradients on only under autocast, else they vanish: give "
            'bf16=True or fp16=True, or load it in another dtype, as GPT4RoI.from_pretrained(…, dtype="bfloat16")'
        )
