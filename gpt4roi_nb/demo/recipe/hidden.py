"""The tower's hidden states of a bank, computed once: all that the stages with a frozen tower need of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gpt4roi_nb.demo.recipe.bank import SceneBank
from gpt4roi_nb.demo.recipe.vision import jitter, pixel_values, pool
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration

IMAGES_AT_ONCE = 32


class HiddenStates:
    """Of every picture of a bank, in float16: about 110 kB a picture and two levels at the recipe's size."""

    @torch.inference_mode()
    def __init__(self, model: GPT4RoIForConditionalGeneration, bank: SceneBank) -> None:
        self.bank = bank
        images, levels = [], []
        for start in range(0, len(bank), IMAGES_AT_ONCE):
            last, several = model.hidden_levels(pixel_values(bank.images[start : start + IMAGES_AT_ONCE]))
            images.append(last.half())
            levels.append(torch.stack(several, dim=1).half())
        # Copies made outside of inference mode may take part in training.
        self._images, self._levels = torch.cat(images), torch.cat(levels)

    def levels(self, indices: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """Of these pictures: the image tokens' state (B, grid², C), and one such a region level."""
        chosen = list(indices)
        return self._images[chosen].clone().float(), [level.clone().float() for level in self._levels[chosen].unbind(1)]

    def boxes(self, indices: Sequence[int], amount: float, rng: np.random.Generator) -> list[Tensor]:
        """Of each picture (n_i, 4) in [0, 1], jittered."""
        size = self.bank.images.shape[1]
        exact = [np.array([thing.box for thing in self.bank.objects[k]], np.float32) / size for k in indices]
        return [torch.from_numpy(jitter(boxes, amount, rng)) for boxes in exact]


def encode(
    model: GPT4RoIForConditionalGeneration,
    states: HiddenStates,
    indices: Sequence[int],
    amount: float,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Image tokens (B, grid², D) and region vectors (objects of all pictures, D), from kept hidden states."""
    last, levels = states.levels(indices)
    boxes = states.boxes(indices, amount, rng)
    head = model.region_encoder.head
    regions = head.combine(pool(head, model.region_encoder.fusion(levels), boxes), boxes)
    return model.multi_modal_projector(last), regions
