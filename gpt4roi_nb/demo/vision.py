"""The first phase: tower and region encoder learn to see, with throw-away heads in place of the language model.

A linear reader on each region vector names its attributes and where it stands; another on each image token names what
the patch shows. Only when both can be read off linearly does the language model come in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from gpt4roi_nb.data.questions import VALUES
from gpt4roi_nb.data.scenes import SceneObject
from gpt4roi_nb.demo.bank import NO_OBJECT, SceneBank
from gpt4roi_nb.demo.recipe import Recipe
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration, ImageEncoding
from gpt4roi_nb.processor import CLIP_MEAN, CLIP_STD
from gpt4roi_nb.prompt import IGNORE
from gpt4roi_nb.roi import RegionHead

LOOSE_SHARE, LOOSE_MARGIN = 0.2, 0.15  # some people leave a margin all round: how many, and how much at most
SMALLEST_SIDE = 0.03  # of a jittered box, as a share of the picture's side
DEPTH_SCALE = 0.1  # table units to about one
PLACE_WEIGHT, PATCH_WEIGHT = 2.0, 0.7


@dataclass(frozen=True)
class VisionBatch:
    """Pictures with all their objects, as the model takes them.

    pixel_values: (B, 3, S, S). boxes: one (n_i, 4) an image, in [0, 1], jittered. attributes: (sum n_i, 4) int64,
    indices into `VALUES`. places: (sum n_i, 4): centre x and y of the box, and depth and x on the table.
    patches: (B, grid², 4) int64 attributes of what a patch shows, IGNORE where nothing. shown: (B, grid²) bool.
    """

    pixel_values: Tensor
    boxes: list[Tensor]
    attributes: Tensor
    places: Tensor
    patches: Tensor
    shown: Tensor


def pixel_values(images: np.ndarray) -> Tensor:
    """(B, S, S, 3) uint8 → (B, 3, S, S) float32, as the processor makes them of pictures of the tower's own size."""
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


def attribute_indices(thing: SceneObject) -> list[int]:
    return [values.index(getattr(thing, name)) for name, values in VALUES.items()]


def draw_batch(bank: SceneBank, indices: Sequence[int], jitter_amount: float, rng: np.random.Generator) -> VisionBatch:
    """The scenes of a bank at these indices."""
    size = bank.images.shape[1]
    boxes, attributes, places, patches = [], [], [], []
    for index in indices:
        things = bank.objects[index]
        exact = np.array([thing.box for thing in things], np.float32) / size
        boxes.append(torch.from_numpy(jitter(exact, jitter_amount, rng)))
        named = np.array([attribute_indices(thing) for thing in things])
        attributes.append(named)
        depth = np.array([thing.position for thing in things], np.float32) * DEPTH_SCALE
        places.append(np.concatenate([(exact[:, :2] + exact[:, 2:]) / 2, depth], axis=1))
        owners = bank.owners[index].reshape(-1)
        patches.append(np.where((owners == NO_OBJECT)[:, None], IGNORE, named[owners]))
    shown = np.stack(patches)[..., 0] != IGNORE
    return VisionBatch(
        pixel_values(np.stack([bank.images[index] for index in indices])),
        boxes,
        torch.from_numpy(np.concatenate(attributes)),
        torch.from_numpy(np.concatenate(places)).float(),
        torch.from_numpy(np.stack(patches)),
        torch.from_numpy(shown),
    )


def pool(head: RegionHead, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
    """As `RegionHead.pool`, for boxes inside the picture, by two matrix products a level.

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
        self.sizes = [len(values) for values in VALUES.values()]
        self.region_norm, self.patch_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attributes = nn.Linear(width, sum(self.sizes))
        self.places = nn.Linear(width, 4)
        self.patch_attributes = nn.Linear(width, sum(self.sizes))
        self.patch_shown = nn.Linear(width, 1)

    def losses(self, image_features: Tensor, regions: Tensor, batch: VisionBatch) -> dict[str, Tensor]:
        regions = self.region_norm(regions)
        attributes = self._named(self.attributes(regions), batch.attributes)
        places = F.mse_loss(self.places(regions).float(), batch.places)
        patches = self.patch_norm(image_features)
        named = self._named(self.patch_attributes(patches).flatten(0, 1), batch.patches.flatten(0, 1))
        shown = F.binary_cross_entropy_with_logits(self.patch_shown(patches)[..., 0].float(), batch.shown.float())
        return {"region": attributes, "place": PLACE_WEIGHT * places, "patch": PATCH_WEIGHT * (named + shown)}

    def _named(self, logits: Tensor, targets: Tensor) -> Tensor:
        parts = logits.float().split(self.sizes, dim=1)
        losses = [F.cross_entropy(part, targets[:, k], ignore_index=IGNORE) for k, part in enumerate(parts)]
        return torch.stack(losses).sum()

    @torch.no_grad()
    def right(self, regions: Tensor, attributes: Tensor) -> Tensor:
        """(n, 4) bool: which attributes of which region are read rightly."""
        parts = self.attributes(self.region_norm(regions)).split(self.sizes, dim=1)
        return torch.stack([part.argmax(1) for part in parts], dim=1) == attributes


class Seeing(nn.Module):
    """What the first phase trains: the vision half of a model, and the readers."""

    def __init__(self, model: GPT4RoIForConditionalGeneration) -> None:
        super().__init__()
        self.vision_tower = model.vision_tower
        self.projector = model.multi_modal_projector
        self.region_encoder = model.region_encoder
        self.readers = Readers(model.config.text_config.hidden_size)


def vision_step(
    model: GPT4RoIForConditionalGeneration, seeing: Seeing, bank: SceneBank, recipe: Recipe, rng: np.random.Generator
) -> dict[str, Tensor]:
    """Losses of one batch of random scenes."""
    indices = rng.integers(len(bank), size=recipe.images_a_step).tolist()
    batch = draw_batch(bank, indices, recipe.box_jitter, rng)
    with torch.autocast("cpu", torch.bfloat16):
        encoding, regions = see(model, batch.pixel_values, batch.boxes)
        return seeing.readers.losses(encoding.image_features, regions, batch)


@torch.no_grad()
def reading_accuracy(model: GPT4RoIForConditionalGeneration, seeing: Seeing, bank: SceneBank) -> dict[str, float]:
    """Share of objects of a bank whose attributes the readers name rightly, with exact boxes."""
    right = []
    rng = np.random.default_rng(0)
    for start in range(0, len(bank), 32):
        batch = draw_batch(bank, range(start, min(start + 32, len(bank))), 0.0, rng)
        _, regions = see(model, batch.pixel_values, batch.boxes)
        right.append(seeing.readers.right(regions, batch.attributes))
    shares = torch.cat(right).float()
    return {**dict(zip(VALUES, shares.mean(0).tolist(), strict=True)), "all": shares.prod(1).mean().item()}


@torch.no_grad()
def rescale_tokens(model: GPT4RoIForConditionalGeneration, bank: SceneBank, scale: float) -> None:
    """Gives region vectors and image tokens the scale of the words, in place, and each of the two its own mark.

    What varies gets the standard deviation `scale`; the mean becomes a random vector of the same size, by which
    attention can find all regions, or all patches, whatever they show. A linear map after linear layers, so nothing
    that can be read off them is lost.
    """
    batch = draw_batch(bank, range(min(64, len(bank))), 0.0, np.random.default_rng(0))
    encoding, regions = see(model, batch.pixel_values, batch.boxes)
    marks = torch.Generator().manual_seed(0)
    for layer, tokens in (
        (model.region_encoder.head.output_projection, regions),
        (model.multi_modal_projector, encoding.image_features.flatten(0, 1)),
    ):
        centre = tokens.mean(0)
        factor = scale / (tokens - centre).std()
        layer.weight.mul_(factor)
        mark = scale * torch.randn(centre.shape, generator=marks)
        layer.bias.sub_(centre).mul_(factor).add_(mark)
