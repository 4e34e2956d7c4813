"""The hidden states of a frozen tower, or of its frozen layers, for the images of a bank, each computed once."""

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
    """The states of every image of a bank, in float16: about 160 kB per image, with two levels at the recipe's size.

    Each is computed when it is first needed; the tower must not change, except for its last layers.

    trained: how many of these are computed afresh each time. autocast: whether they compute in bfloat16.
    """

    def __init__(
        self, model: GPT4RoIForConditionalGeneration, bank: SceneBank, *, trained: int = 0, autocast: bool = False
    ) -> None:
        self.bank = bank
        self._model = model
        self._autocast = autocast
        layers = model.vision_tower.encoder.layers
        self._frozen_count = len(layers) - trained
        self._trained_layers = layers[self._frozen_count :]
        if max(model.config.feature_layers) > self._frozen_count:
            raise ValueError(
                f"the region levels need layer {max(model.config.feature_layers)}, but only the first "
                f"{self._frozen_count} layers are frozen; train fewer"
            )
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def frozen(self, indices: Sequence[int]) -> Tensor:
        """Return the states after the last frozen layer, CLS included: (B, 1 + grid², C) float32."""
        return torch.stack([states for states, _ in self._of(indices)]).float()

    def levels(self, indices: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """Return, for these images, the state of the image tokens (B, grid², C), and the same for each region level."""
        several = torch.stack([levels for _, levels in self._of(indices)]).float()
        last = self.frozen(indices)
        with torch.autocast(last.device.type, torch.bfloat16, enabled=self._autocast):
            for layer in self._trained_layers:
                last = layer(last, None)
        return last[:, -self._model.config.num_image_tokens :], list(several.unbind(1))

    def _of(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """What is kept of these images: states after the last frozen layer, and region levels."""
        missing = sorted(set(indices) - self._kept.keys())
        for start in range(0, len(missing), IMAGES_AT_ONCE):
            self._compute(missing[start : start + IMAGES_AT_ONCE])
        return [self._kept[index] for index in indices]

    @torch.no_grad()
    def _compute(self, indices: list[int]) -> None:
        pixels = pixel_values(np.stack([self.bank.images[index] for index in indices]))
        model = self._model
        states = model.vision_tower(pixels, output_hidden_states=True).hidden_states
        levels = [states[layer][:, -model.config.num_image_tokens :] for layer in model.config.feature_layers]
        several = torch.stack(levels, dim=1).half()
        self._kept.update(zip(indices, zip(states[self._frozen_count].half(), several, strict=True), strict=True))

    def boxes(self, indices: Sequence[int], amount: float, rng: np.random.Generator) -> list[Tensor]:
        """Return each image's boxes, (n_i, 4) in [0, 1], jittered."""
        size = self.bank.images.shape[1]
        exact = [
            np.array([thing.box for thing in self.bank.objects[k]], np.float32).reshape(-1, 4) / size for k in indices
        ]
        return [torch.from_numpy(jitter(boxes, amount, rng)) for boxes in exact]


def encode(
    model: GPT4RoIForConditionalGeneration,
    states: HiddenStates,
    indices: Sequence[int],
    amount: float,
    rng: np.random.Generator,
    other_boxes: Sequence[np.ndarray] = (),
) -> tuple[Tensor, Tensor]:
    """Image tokens (B, grid², D) and region vectors, from kept hidden states.

    other_boxes: of each image, (n, 4) in [0, 1], boxes that are no object's; they are taken as they are.

    Returns:
        The image tokens; and (regions, D), the objects of all images, with jittered boxes, and then all other boxes.
    """
    last, levels = states.levels(indices)
    boxes = states.boxes(indices, amount, rng)
    is_other = torch.zeros(sum(map(len, boxes)), dtype=torch.bool)
    if other_boxes:
        is_other = torch.cat(
            [torch.arange(len(own) + len(more)) >= len(own) for own, more in zip(boxes, other_boxes, strict=True)]
        )
        boxes = [torch.cat([own, torch.from_numpy(more)]) for own, more in zip(boxes, other_boxes, strict=True)]
    head = model.region_encoder.head
    regions = head.combine(pool(head, model.region_encoder.fusion(levels), boxes), boxes)
    return model.multi_modal_projector(last), torch.cat([regions[~is_other], regions[is_other]])
