"""Loads what was recorded from the original code: weights by recipe, results by file."""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from gpt4roi_nb.checkpoint.keys import to_original
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration

GOLDEN = Path(__file__).parent / "golden"


def _load_recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_recipe_module", GOLDEN / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recipe = _load_recipe()


def fill(module: nn.Module, prefix: str = "", strip: str = "") -> set[str]:
    """Sets every parameter to the recipe's value for its original name; returns those names."""
    names = set()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            original = to_original(prefix + name).removeprefix(strip)
            names.add(original)
            parameter.copy_(torch.from_numpy(recipe.tensor_for(original, parameter.shape)))
    return names


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
