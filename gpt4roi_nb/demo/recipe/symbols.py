"""The truth about a scene as region vectors and image tokens, for a language model that cannot see yet.

A region's symbols hold its attributes and its place; a patch's say whether an object has its centre there, and which.
Fixed random directions turn either into a vector of the language model's width. The vision half learns meanwhile to
write image tokens in the same code, and both are brought into it exactly before the halves meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gpt4roi_nb.data.scenes.questions import VALUES
from gpt4roi_nb.data.scenes.scene import Scene, SceneObject
from gpt4roi_nb.prompt import IGNORE

NUMBERS = tuple(len(values) for values in VALUES.values())  # of values, per attribute
BLUR = 0.1  # standard deviation of the noise on symbols
# Of a region: centre x and y of its box, x and depth on the table, and logarithm of the box's area.
PLACES = 5
PLACE_CENTRES = np.array([0.51, 0.52, 0.1, 5.4, -3.2], np.float32)
PLACE_SCALES = np.array([0.23, 0.22, 1.85, 2.7, 0.57], np.float32)


def attribute_indices(thing: SceneObject) -> list[int]:
    """Indices of its attributes into `VALUES`."""
    return [values.index(getattr(thing, name)) for name, values in VALUES.items()]


def places(things: Sequence[SceneObject], size: int) -> np.ndarray:
    """(n, PLACES) float32, each of about mean 0 and standard deviation 1. size: side of the image in pixels."""
    boxes = np.array([thing.box for thing in things], np.float32).reshape(-1, 4) / size
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    table = np.array([thing.position for thing in things], np.float32).reshape(-1, 2)
    whole = np.concatenate([centres, table, np.log(sides.prod(1, keepdims=True))], axis=1)
    return (whole - PLACE_CENTRES) / PLACE_SCALES


def centre_attributes(things: Sequence[SceneObject], size: int, grid: int) -> np.ndarray:
    """(grid², 4) int64: attributes of the object whose box has its centre in a patch, one past the last for none."""
    found = np.tile(np.array(NUMBERS, np.int64), (grid * grid, 1))
    for thing in things:
        found[centre_patch(thing, size, grid)] = attribute_indices(thing)
    return found


def centre_patch(thing: SceneObject, size: int, grid: int) -> int:
    """Index of the patch, row by row, in which an object's box has its centre."""
    x1, y1, x2, y2 = thing.box
    column, row = (int((a + b) / 2 * grid / size) for a, b in ((x1, x2), (y1, y2)))
    return row * grid + column


def attribute_loss(logits: Tensor, targets: Tensor, none: int = 0) -> Tensor:
    """Sum over the attributes of the mean cross-entropy, where targets (n, 4) are not IGNORE.

    logits: (n, sum of NUMBERS, and `none` more of each attribute, for "there is none").
    """
    parts = logits.split([number + none for number in NUMBERS], dim=1)
    losses = [F.cross_entropy(part, targets[:, k], ignore_index=IGNORE) for k, part in enumerate(parts)]
    return torch.stack(losses).sum()


def centre_weights(centres: Tensor, weight: float) -> Tensor:
    """(..., 4) int64 as `centre_attributes` has them → (...) float32: `weight` where an object has its centre, or 1."""
    return 1 + (weight - 1) * (centres[..., 0] < NUMBERS[0]).float()


def tally(centres: Tensor) -> Tensor:
    """(B, grid², 4) int64 as `centre_attributes` has them → (B, grid², sum of NUMBERS) float32: how many objects of
    each value have their centre in a patch or one before it."""
    return _one_hot(centres).cumsum(1)


def symbols_of(scenes: Sequence[Sequence[SceneObject]], size: int, grid: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of all objects of B scenes: attributes (n, 4) int64, and places (n, PLACES); centres (B, grid², 4) int64."""
    attributes = torch.tensor([attribute_indices(thing) for things in scenes for thing in things])
    placed = torch.from_numpy(np.concatenate([places(things, size) for things in scenes]))
    return attributes, placed, torch.from_numpy(np.stack([centre_attributes(things, size, grid) for things in scenes]))


class Code:
    """Symbols to vectors and back, by orthogonal directions.

    width: of the vectors, at least `Code.DIRECTIONS`.
    """

    ATTRIBUTE, PLACE, MARK = 4.0, 3.0, 5.0  # lengths; a word's embedding has about 10
    PATCH_ATTRIBUTE, PATCH_PLACE, PATCH_MARK = 4.0, 1.5, 4.0

    def __init__(self, width: int) -> None:
        attributes = sum(NUMBERS)
        lengths = (
            *((self.ATTRIBUTE,) * attributes + (self.PLACE,) * PLACES + (self.MARK,)),
            *((self.PATCH_ATTRIBUTE,) * (attributes + 1) + (self.PATCH_PLACE,) * 2 + (self.PATCH_MARK,)),
        )
        if width < len(lengths):
            raise ValueError(f"the code needs vectors of {len(lengths)} numbers or more, but the width is {width}")
        square = torch.randn(width, width, generator=torch.Generator().manual_seed(0))
        directions = torch.linalg.qr(square).Q[: len(lengths)] * torch.tensor(lengths)[:, None]
        self.regions, self.patches = directions.split((attributes + PLACES + 1, attributes + 4))

    def tell(self, scenes: Sequence[Scene], grid: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Region vectors (objects of all scenes, D) and image tokens (B, grid², D), with noise, as from vision."""
        size = scenes[0].image.shape[1]
        attributes, placed, centres = symbols_of([scene.objects for scene in scenes], size, grid)
        return self.region_vectors(attributes, placed, rng), self.image_tokens(centres, rng)

    def region_vectors(self, attributes: Tensor, placed: Tensor, rng: np.random.Generator | None = None) -> Tensor:
        """attributes: (n, 4) int64. placed: (n, PLACES) → (n, D)."""
        ones = attributes.new_ones(len(attributes), 1, dtype=placed.dtype)
        return _blurred(torch.cat([_one_hot(attributes), placed, ones], dim=1), rng) @ self.regions

    def image_tokens(self, centres: Tensor, rng: np.random.Generator | None = None) -> Tensor:
        """centres: (B, grid², 4) int64 as `vision.VisionBatch` has them → (B, grid², D)."""
        batch, patches, _ = centres.shape
        grid = round(patches**0.5)
        line = torch.linspace(-1.7, 1.7, grid)
        place = torch.stack([line.repeat(grid), line.repeat_interleave(grid)], dim=1).expand(batch, -1, -1)
        there = (centres[..., :1] < NUMBERS[0]).float()
        shown = _one_hot(centres)
        return _blurred(torch.cat([shown, there, place, torch.ones_like(there)], dim=2), rng) @ self.patches


def _blurred(symbols: Tensor, rng: np.random.Generator | None) -> Tensor:
    if rng is None:
        return symbols
    return symbols + BLUR * torch.from_numpy(rng.standard_normal(symbols.shape, dtype=np.float32))


def some_objects(scene: Scene, number: tuple[int, int], rng: np.random.Generator) -> Scene:
    """A scene with some of the objects only (its image still shows all), in another order."""
    least, most = number
    count = min(int(rng.integers(least, most + 1)), len(scene.objects))
    order = rng.permutation(len(scene.objects))[:count].tolist()
    return replace(scene, objects=tuple(scene.objects[k] for k in order))


def _one_hot(indices: Tensor) -> Tensor:
    """(..., 4) → (..., sum of NUMBERS); an index past the last gives zeros."""
    return torch.cat([F.one_hot(indices[..., k], n + 1)[..., :n] for k, n in enumerate(NUMBERS)], dim=-1).float()
