"""What a model of transformers needs in memory, counted without its weights."""

import pytest
import torch
from tiny_families import FAMILIES as TINY
from tiny_families import tiny_family

from gpt4roi_nb.memory import weight_bytes
from gpt4roi_nb.models.memory import not_quantised, prompted_session_bytes, prompted_skeleton


@pytest.mark.parametrize("name", TINY)
def test_bytes_of_weights_are_counted_without_them(name: str) -> None:
    model, _ = tiny_family(name)
    built = prompted_skeleton(model.config)
    counted = weight_bytes(built, torch.float32)
    assert counted == sum(parameter.nbytes for parameter in model.parameters())
    skipped = not_quantised(built)
    outside = {
        n for n, module in model.named_modules() if type(module) is torch.nn.Linear and n.startswith(tuple(skipped))
    }
    inside = {n for n, module in model.named_modules() if type(module) is torch.nn.Linear} - outside
    assert inside and all("language_model" in n or "text_model" in n for n in inside)
    assert not any("vision" in n or "visual" in n for n in inside)
    assert weight_bytes(built, torch.float32, "8bit", skipped) < counted
    assert 0 < prompted_session_bytes(model.config, torch.float32, counted) < 50 * counted
