"""The last layers of a tower, and the projector, learn to number an image's objects from left to right.

A list is then a look-up: the language model finds the first object, the second, … by their numbers. Throw-away heads
point at each number's patch, and read there what object it is. Image tokens stay near those that the language model
knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt4roi_nb.data.scenes.question_kinds import centre_x, left_to_right
from gpt4roi_nb.data.scenes.scene import SceneObject
from gpt4roi_nb.demo.recipe.hidden import HiddenStates
from gpt4roi_nb.demo.recipe.recipe import Further
from gpt4roi_nb.demo.recipe.symbols import (
    NUMBERS,
    PLACES,
    attribute_indices,
    attribute_loss,
    centre_attributes,
    centre_patch,
    centre_weights,
    places,
)
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration

MAX_NUMBERED = 8  # objects; as many tokens of fixed text follow the image in a prompt
LEVEL = 0.05  # of the image's side: objects whose middles are so near may take each other's number
POINTER_WEIGHT, CENTRE_WEIGHT, NEAR_WEIGHT = 4.0, 0.3, 1.0
NEAR_CENTRE_WEIGHT = 5.0


def up_to_ties(things: Sequence[SceneObject], cost: Tensor, level: float) -> list[int]:
    """The order from left to right, in which neighbours that stand about level are swapped where that costs less.

    A number that could as well be another object's would otherwise show half of each.

    Args:
        things: the objects.
        cost: (numbers, objects), of giving a number to an object.
        level: how near their middles are, in pixels.
    """
    order = left_to_right(things)[: len(cost)]
    costs = cost.tolist()
    k = 0
    while k + 1 < len(order):
        first, second = order[k], order[k + 1]
        near = centre_x(things[second]) - centre_x(things[first]) < level
        if near and costs[k][second] + costs[k + 1][first] < costs[k][first] + costs[k + 1][second]:
            order[k], order[k + 1] = second, first
            k += 1
        k += 1
    return order


class OrderPhase(nn.Module):
    """What this phase trains: the layers after the first `frozen_layers`, the projector, and the throw-away heads.

    It keeps what layers and projector were, since image tokens are to stay near theirs.
    """

    def __init__(self, model: GPT4RoIForConditionalGeneration, frozen_layers: int) -> None:
        super().__init__()
        width = model.config.text_config.hidden_size
        self.layers = model.vision_tower.encoder.layers[frozen_layers:]
        self.projector = model.multi_modal_projector
        self.norm = nn.LayerNorm(width)
        self.centres = nn.Linear(width, sum(NUMBERS) + len(NUMBERS))
        self.pointers = nn.Linear(width, MAX_NUMBERED)
        self.attributes, self.places = nn.Linear(width, sum(NUMBERS)), nn.Linear(width, PLACES)
        self.old_layers = deepcopy(self.layers).requires_grad_(False)
        self.old_projector = deepcopy(self.projector).requires_grad_(False)

    def forward(self, states: Tensor) -> Tensor:
        """(B, 1 + grid², C) → image tokens (B, grid², D)."""
        return image_tokens(self.layers, self.projector, states)


def image_tokens(layers: Iterable[nn.Module], projector: nn.Module, states: Tensor) -> Tensor:
    """States (B, 1 + grid², C) → image tokens (B, grid², D)."""
    for layer in layers:
        states = layer(states, None)
    tokens: Tensor = projector(states[:, 1:])
    return tokens


def point(heads: OrderPhase, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """(B, grid², D), normed → logits (B, numbers, grid² + 1) of each number's patch, the last for none; and what the
    patches show that each points at (B, numbers, D)."""
    logits = heads.pointers(tokens).float().transpose(1, 2)
    logits = torch.cat([logits, logits.new_zeros(*logits.shape[:2], 1)], dim=2)
    shown = logits.softmax(2)[..., :-1].to(tokens.dtype) @ tokens
    return logits, shown


def order_step(
    phase: OrderPhase,
    states: HiddenStates,
    images: int,
    rng: np.random.Generator,
    *,
    autocast: bool = False,
) -> dict[str, Tensor]:
    """Losses of one batch of random images, those that are not of this world included.

    autocast: compute in bfloat16.
    """
    indices = rng.integers(len(states.bank), size=images)
    while indices.min() >= states.bank.scenes:
        indices = rng.integers(len(states.bank), size=images)
    things = [states.bank.objects[k] for k in indices]
    size, grid = states.bank.images.shape[1], states.bank.owners.shape[1]
    frozen = states.frozen(indices.tolist())
    centres = torch.from_numpy(np.stack([centre_attributes(one, size, grid) for one in things]))
    with torch.autocast(frozen.device.type, torch.bfloat16, enabled=autocast):
        tokens = phase(frozen)
        normed = phase.norm(tokens)
        logits, shown = point(phase, normed)
        wanted = torch.full((images, MAX_NUMBERED), grid * grid)
        ordered: list[SceneObject] = []
        at: list[tuple[int, int]] = []
        costs = -logits.detach().log_softmax(2)
        for row, one in enumerate(things):
            patches = [centre_patch(thing, size, grid) for thing in one]
            for number, k in enumerate(up_to_ties(one, costs[row][:, patches], LEVEL * size)):
                wanted[row, number] = patches[k]
                at.append((row, number))
                ordered.append(one[k])
        rows, numbers = torch.tensor(at).unbind(1)
        seen = shown[rows, numbers]
        read, placed = phase.attributes(seen).float(), phase.places(seen).float()
        of_centres = phase.centres(normed).float().flatten(0, 1)
        with torch.no_grad():
            before = image_tokens(phase.old_layers, phase.old_projector, frozen).float()
    weights = centre_weights(centres, NEAR_CENTRE_WEIGHT)[..., None]
    spread = (weights * (before - before.mean((0, 1))).square()).mean()
    truth = torch.tensor([attribute_indices(one) for one in ordered])
    place_truth = torch.from_numpy(places(ordered, size))
    return {
        "pointer": POINTER_WEIGHT * F.cross_entropy(logits.flatten(0, 1), wanted.flatten()),
        "object": attribute_loss(read, truth),
        "place": F.mse_loss(placed, place_truth),
        "centre": CENTRE_WEIGHT
        * (len(of_centres) / len(ordered))
        * attribute_loss(of_centres, centres.flatten(0, 1), none=1)
        / len(NUMBERS),
        "near": NEAR_WEIGHT * (weights * (tokens.float() - before).square()).mean() / spread,
    }


@torch.no_grad()
def numbered_rightly(phase: OrderPhase, states: HiddenStates, indices: np.ndarray) -> dict[str, float]:
    """Share of objects whose attributes are read rightly behind their numbers; and of images in which colour and
    category of all are, in any order, and no more is there."""
    things = [states.bank.objects[k] for k in indices]
    logits, shown = point(phase, phase.norm(phase(states.frozen(indices.tolist()))))
    parts = phase.attributes(shown).split(list(NUMBERS), dim=2)
    read = torch.stack([part.argmax(2) for part in parts], dim=2)
    there = logits.argmax(2) < logits.shape[2] - 1
    right, whole = [], []
    for row, one in enumerate(things):
        order = left_to_right(one)[:MAX_NUMBERED]
        truth = torch.tensor([attribute_indices(one[k]) for k in order]).reshape(-1, len(NUMBERS))
        found = read[row, : len(truth)] == truth
        right.append(found)
        named = [sorted(map(tuple, one[:, :2].tolist())) for one in (read[row, : len(truth)], truth)]
        whole.append(named[0] == named[1] and int(there[row].sum()) == len(truth))
    shares = torch.cat(right).float()
    return {
        **dict(zip(("category", "colour", "material", "size"), shares.mean(0).tolist(), strict=True)),
        "whole lists": float(np.mean(whole)),
    }


def train_order(
    model: GPT4RoIForConditionalGeneration, states: HiddenStates, recipe: Further, run: Callable[..., dict[str, float]]
) -> dict[str, float]:
    """Train the last layers of the tower, and the projector, in place; return what `run` returns.

    Args:
        model: the one whose tower and projector train.
        states: of its frozen layers.
        recipe: how it is trained.
        run: `run_phase` with its folder, recipe, seed and report.
    """
    model.requires_grad_(False)
    phase = OrderPhase(model, model.config.vision_config.num_hidden_layers - recipe.trained_vision_layers)
    for part in (phase.layers, phase.projector):
        part.requires_grad_(True)
    step = partial(order_step, phase, states, recipe.order_images, autocast=recipe.autocast)
    return run("order", trained=phase, step=step, phase=recipe.order)
