"""Map what the vision half writes to the code that the language half has learnt to read, by least squares.

Both halves are trained separately. This solves for the region encoder's last linear layer and for the projector; the
stages of training continue from there.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from gpt4roi_nb.demo.recipe.hidden import HiddenStates
from gpt4roi_nb.demo.recipe.symbols import Code, centre_weights, symbols_of
from gpt4roi_nb.demo.recipe.vision import pool
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration

BATCH = 32
CENTRE_WEIGHT = 5.0  # of a patch in which an object has its centre; few have
RIDGE = 1e-4  # as a share of the inputs' mean square


@torch.no_grad()
def align(
    model: GPT4RoIForConditionalGeneration, states: HiddenStates, code: Code, jitter: float, count: int
) -> dict[str, float]:
    """Sets both layers, from the first `count` images; returns the share of the code's variance that each writes."""
    head = model.region_encoder.head
    rng = np.random.default_rng(0)
    bank = states.bank
    size, grid = bank.images.shape[1], bank.owners.shape[1]
    vectors, regions, patches, tokens, weights = [], [], [], [], []
    output = head.output_projection
    setattr(head, "output_projection", nn.Identity())  # noqa: B010  # what goes into the layer is wanted
    for start in range(0, min(count, len(bank)), BATCH):
        indices = range(start, min(start + BATCH, len(bank)))
        last, levels = states.levels(indices)
        boxes = states.boxes(indices, jitter, rng)
        vectors.append(head.combine(pool(head, model.region_encoder.fusion(levels), boxes), boxes))
        attributes, placed, centres = symbols_of([bank.objects[k] for k in indices], size, grid)
        regions.append(code.region_vectors(attributes, placed))
        patches.append(last.flatten(0, 1))
        tokens.append(code.image_tokens(centres).flatten(0, 1))
        weights.append(centre_weights(centres, CENTRE_WEIGHT).flatten())
    head.output_projection = output
    return {
        "regions": solve(output, torch.cat(vectors), torch.cat(regions)),
        "patches": solve(model.multi_modal_projector, torch.cat(patches), torch.cat(tokens), torch.cat(weights)),
    }


@torch.no_grad()
def solve(layer: nn.Linear, inputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    """Sets a linear layer by weighted ridge regression; returns the share of the targets' variance that it explains.

    inputs: (n, in). targets: (n, out). weights: (n,) of the rows.
    """
    x = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1).double()
    weighted = x if weights is None else x * weights[:, None]
    square = weighted.T @ x
    ridge = RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype)
    found = torch.linalg.solve(square + ridge, weighted.T @ targets.double()).float()
    layer.weight.copy_(found[:-1].T)
    layer.bias.copy_(found[-1])
    missed = (layer(inputs) - targets).square().sum()
    return float(1 - missed / (targets - targets.mean(0)).square().sum())
