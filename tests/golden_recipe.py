"""Loads what was recorded from the original code: weights by recipe, results by file."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import torch

from gpt4roi_nb.check_gpu.device_config import GOLDEN
from gpt4roi_nb.check_gpu.golden import recipe as load_recipe
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration

recipe = load_recipe()


def encode_each_image_once(model: GPT4RoIForConditionalGeneration) -> None:
    """Makes the model keep what it encodes: with the real widths an image takes most of a test's time."""
    encode = functools.cache(model.encode_image)
    model.encode_image = lambda pixel_values, tower_states=None: encode(pixel_values)


def read_json(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


def unpack(values: list[Any]) -> list[int]:
    """The files write a run of equal values as {"repeat": value, "times": n}."""
    unpacked: list[int] = []
    for value in values:
        unpacked.extend([value["repeat"]] * value["times"] if isinstance(value, dict) else [value])
    return unpacked


def summary(tensor: torch.Tensor) -> np.ndarray:
    """Mean, population standard deviation, minimum, maximum of the whole tensor, as the files record them."""
    values = tensor.double()
    return np.array([values.mean(), values.std(unbiased=False), values.min(), values.max()])
