"""The half of stage 0 that learns to see: tower and region encoder, with throw-away heads in place of a language model.

A linear reader on each region vector names its attributes and where it stands; another on each image token names what
the patch shows. Image tokens are also drawn towards the code of `symbols`, in which the language half learns meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from gpt4roi_nb.data.scenes.questions import VALUES
from gpt4roi_nb.demo.recipe.bank import NO_OBJECT, SceneBank
from gpt4roi_nb.demo.recipe.recipe import Recipe
from gpt4roi_nb.demo.recipe.symbols import (
    NUMBERS,
    PLACES,
    Code,
    attribute_indices,
    attribute_loss,
    centre_attributes,
    centre_weights,
    places,
)
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration, ImageEncoding
from gpt4roi_nb.processor import CLIP_MEAN, CLIP_STD
from gpt4roi_nb.prompt import IGNORE
from gpt4roi_nb.roi import RegionHead

LOOSE_SHARE, LOOSE_MARGIN = 0.2, 0.15  # some people leave a margin all round: how many, and how much at most
SMALLEST_SIDE = 0.03  # of a jittered box, as a share of the image's side
PLACE_WEIGHT, PATCH_WEIGHT, CENTRE_WEIGHT, CODE_WEIGHT = 1.0, 0.5, 1.0, 2.0
CODE_CENTRE_WEIGHT = 10.0  # of a patch in which an object has its centre, in the distance from the code


@dataclass(frozen=True)
class VisionBatch:
    """Images with all their objects, as the model takes them.

    pixel_values: (B, 3, S, S). boxes: one (n_i, 4) per image, in [0, 1], jittered. attributes: (sum n_i, 4) int64,
    indices into `VALUES`. places: (sum n_i, 5), as `symbols.places` has them. patches: (B, grid², 4) int64 attributes
    of what a patch shows, IGNORE where nothing. centres: (B, grid², 4) int64 attributes of the object whose box has its
    centre in the patch, one past the last where there is none.
    """

    pixel_values: Tensor
    boxes: list[Tensor]
    attributes: Tensor
    places: Tensor
    patches: Tensor
    centres: Tensor


def pixel_values(images: np.ndarray) -> Tensor:
    """(B, S, S, 3) uint8 → (B, 3, S, S) float32, as the processor makes them of images of the tower's own size."""
    scaled = torch.from_numpy(np.array(images)).float() / 255
    return rearrange((scaled - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD), "b h w c -> b c h w").contiguous()


def jitter(boxes: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Boxes (n, 4) in [0, 1] as a hand draws them: each edge a little off, some with a margin all round."""
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    loose = (rng.random((len(boxes), 1)) < LOOSE_SHARE) * rng.uniform(0, LOOSE_MARGIN, (len(boxes), 1))
    drawn = boxes + sides * (rng.normal(0, amount, boxes.shape).clip(-2 * amount, 2 * amount) + loose * [-1, -1, 1, 1])
    low = drawn[:, :2].clip(0, 1 - SMALLEST_SIDE)
    high = np.maximum(drawn[:, 2:].clip(0, 1), low + SMALLEST_SIDE)
    return np.concatenate([low, high], axis=1).astype(np.float32)


def draw_batch(bank: SceneBank, indices: Sequence[int], jitter_amount: float, rng: np.random.Generator) -> VisionBatch:
    """The scenes of a bank at these indices."""
    size = bank.images.shape[1]
    boxes, attributes, placed, patches, centres = [], [], [], [], []
    for index in indices:
        things = bank.objects[index]
        exact = np.array([thing.box for thing in things], np.float32) / size
        boxes.append(torch.from_numpy(jitter(exact, jitter_amount, rng)))
        named = np.array([attribute_indices(thing) for thing in things])
        attributes.append(named)
        placed.append(places(things, size))
        owners = bank.owners[index].reshape(-1)
        patches.append(np.where((owners == NO_OBJECT)[:, None], IGNORE, named[owners]))
        centres.append(centre_attributes(things, size, bank.owners.shape[1]))
    return VisionBatch(
        pixel_values(np.stack([bank.images[index] for index in indices])),
        boxes,
        torch.from_numpy(np.concatenate(attributes)),
        torch.from_numpy(np.concatenate(placed)),
        torch.from_numpy(np.stack(patches)),
        torch.from_numpy(np.stack(centres)),
    )


def pool(head: RegionHead, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
    """As `RegionHead.pool`, for boxes inside the image, by two matrix products per level.

    RoIAlign of an upright box is separable; on a CPU this is several times as fast as the operator, most of all
    backwards.
    """
    counts = [len(image_boxes) for image_boxes in boxes]
    padded = nn.utils.rnn.pad_sequence(list(boxes), batch_first=True)  # (B, N, 4)
    kept = torch.arange(padded.shape[1]) < torch.tensor(counts)[:, None]
    pooled = []
    for level_maps in maps:
        size = level_maps.shape[-1]
        across = _sampling_weights(padded[..., 0], padded[..., 2], size, head).to(level_maps.dtype)
        down = _sampling_weights(padded[..., 1], padded[..., 3], size, head).to(level_maps.dtype)
        rows = torch.einsum("bnyh,bchw->bnycw", down, level_maps)
        grids = torch.einsum("bnycw,bnxw->bncyx", rows, across)
        pooled.append(grids[kept])
    return pooled


def _sampling_weights(start: Tensor, end: Tensor, size: int, head: RegionHead) -> Tensor:
    """start, end: (B, N) in [0, 1] → (B, N, bins, size): what each pixel of a line adds to each bin."""
    samples = head.output_size * head.sampling_ratio
    steps = (torch.arange(samples) + 0.5) / samples
    places = (start[..., None] + (end - start)[..., None] * steps) * size - 0.5
    distance = (places.clamp(0, size - 1)[..., None] - torch.arange(size)).abs()
    return rearrange((1 - distance).clamp(min=0), "b n (o s) k -> b n o s k", s=head.sampling_ratio).mean(dim=3)


def see(
    model: GPT4RoIForConditionalGeneration, pixels: Tensor, boxes: Sequence[Tensor]
) -> tuple[ImageEncoding, Tensor]:
    """The image's encoding and the region vectors (sum n_i, D)."""
    encoding = model.encode_image(pixels)
    head = model.region_encoder.head
    return encoding, head.combine(pool(head, encoding.fused_maps, boxes), boxes)


class Readers(nn.Module):
    """The throw-away heads: linear readers of region vectors and of image tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.region_norm, self.patch_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attributes = nn.Linear(width, sum(NUMBERS))
        self.places = nn.Linear(width, PLACES)
        self.patch_attributes = nn.Linear(width, sum(NUMBERS))
        self.patch_centres = nn.Linear(width, sum(NUMBERS) + len(NUMBERS))

    def losses(self, image_features: Tensor, regions: Tensor, batch: VisionBatch, code: Code) -> dict[str, Tensor]:
        regions = self.region_norm(regions)
        attributes = attribute_loss(self.attributes(regions), batch.attributes)
        places = F.mse_loss(self.places(regions), batch.places)
        patches = self.patch_norm(image_features).flatten(0, 1)
        owners = attribute_loss(self.patch_attributes(patches), batch.patches.flatten(0, 1))
        # Nearly every patch is no centre, so the sum is shared among the objects.
        centres = attribute_loss(self.patch_centres(patches), batch.centres.flatten(0, 1), none=1)
        an_object = len(patches) / len(batch.attributes)
        return {
            "region": attributes,
            "place": PLACE_WEIGHT * places,
            "patch": PATCH_WEIGHT * owners,
            "centre": CENTRE_WEIGHT * an_object * centres / len(NUMBERS),
            "code": CODE_WEIGHT * distance_from_code(image_features, batch.centres, code),
        }

    @torch.no_grad()
    def right(self, regions: Tensor, attributes: Tensor) -> Tensor:
        """(n, 4) bool: which attributes of which region are read rightly."""
        parts = self.attributes(self.region_norm(regions)).split(list(NUMBERS), dim=1)
        return torch.stack([part.argmax(1) for part in parts], dim=1) == attributes


def distance_from_code(image_features: Tensor, centres: Tensor, code: Code) -> Tensor:
    """Mean squared distance of image tokens from their code, as a share of the code's own variance; patches in which an
    object has its centre weigh more.

    image_features: (B, grid², D). centres: as `VisionBatch` has them.
    """
    wanted = code.image_tokens(centres)
    weights = centre_weights(centres, CODE_CENTRE_WEIGHT)[..., None]
    weights = weights / weights.mean()
    spread = (weights * (wanted - (weights * wanted).mean((0, 1))).square()).mean()
    return (weights * (image_features - wanted).square()).mean() / spread


class VisionPhase(nn.Module):
    """What the vision half of stage 0 trains: the vision half of a model, and the readers."""

    def __init__(self, model: GPT4RoIForConditionalGeneration) -> None:
        super().__init__()
        self.vision_tower = model.vision_tower
        self.projector = model.multi_modal_projector
        self.region_encoder = model.region_encoder
        self.readers = Readers(model.config.text_config.hidden_size)


def vision_step(
    model: GPT4RoIForConditionalGeneration,
    phase: VisionPhase,
    bank: SceneBank,
    code: Code,
    recipe: Recipe,
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    """Losses of one batch of random scenes."""
    indices = rng.integers(len(bank), size=recipe.images_a_step).tolist()
    batch = draw_batch(bank, indices, recipe.box_jitter, rng)
    encoding, regions = see(model, batch.pixel_values, batch.boxes)
    return phase.readers.losses(encoding.image_features, regions, batch, code)


@torch.no_grad()
def reading_accuracy(model: GPT4RoIForConditionalGeneration, phase: VisionPhase, bank: SceneBank) -> dict[str, float]:
    """Share of objects of a bank whose attributes the readers name rightly, with exact boxes."""
    right = []
    rng = np.random.default_rng(0)
    for start in range(0, len(bank), 32):
        batch = draw_batch(bank, range(start, min(start + 32, len(bank))), 0.0, rng)
        _, regions = see(model, batch.pixel_values, batch.boxes)
        right.append(phase.readers.right(regions, batch.attributes))
    shares = torch.cat(right).float()
    return {**dict(zip(VALUES, shares.mean(0).tolist(), strict=True)), "all": shares.prod(1).mean().item()}
