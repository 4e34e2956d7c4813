"""Where the tokens of an image lie in it: what it takes to lay attention over the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.capture.storage import float32_copy
from gpt4roi_nb.inference.loaded_model import LoadedModel
from gpt4roi_nb.models.attention import eager
from gpt4roi_nb.models.images import PreparedImage, encode

_RESIZED = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "video_llama_3")  # patches of the resized image
_SQUARE = ("llava", "vipllava", "paligemma")  # patches of a square
_TILED = ("llava_next", "llava_onevision")  # patches of a small square, and of tiles in rows that end with a mark
_RESAMPLED = ("kosmos-2",)  # queries that attend to patches of a square


@dataclass(frozen=True)
class Placement:
    """Where an image's tokens lie.

    Attributes:
        rows, columns: of the cells of a map.
        frame: what the cells cover, pixel xyxy in the original image.
        places: (cells, tokens) float32, as `Attention.places`; None if the tokens are the cells.
    """

    rows: int
    columns: int
    frame: Box
    places: Tensor | None = None


def has_places(model_type: str) -> bool:
    """Whether the places of the image's tokens are known for a family of models."""
    return model_type in (*_RESIZED, *_SQUARE, *_TILED, *_RESAMPLED)


def placement_of(loaded: LoadedModel, image: PreparedImage, frame: Box, count: int) -> Placement | None:
    """Return where the tokens of an image lie; None if that is not known.

    Args:
        loaded: the model. Kosmos-2 encodes the image once more.
        image: as its processor prepared it.
        frame: the part of the original that the image shows, pixel xyxy.
        count: how many tokens hold its features.
    """
    model_type = loaded.model.config.model_type
    placement = None
    if model_type in _RESIZED:
        _, rows, columns = image.values["image_grid_thw"][0].tolist()
        merged = getattr(loaded.processor.image_processor, "merge_size", 1)
        placement = Placement(rows // merged, columns // merged, frame)
    elif model_type in _SQUARE:
        side = math.isqrt(count)
        placement = Placement(side, side, _square(frame) if image.padded else frame)
    elif model_type in _TILED:
        placement = _tiled(loaded.processor, image, frame, count)
    elif model_type in _RESAMPLED:
        places = _resampled(loaded, image)
        side = math.isqrt(len(places))
        placement = Placement(side, side, _square(frame) if image.padded else frame, places)
    return placement if placement is not None and _fits(placement, count) else None


def _fits(placement: Placement, count: int) -> bool:
    cells = placement.rows * placement.columns
    return cells == count if placement.places is None else placement.places.shape == (cells, count)


def _square(frame: Box) -> Box:
    """The square to which an image is padded; as `images.padded`."""
    x1, y1, x2, y2 = frame
    side = max(x2 - x1, y2 - y1)
    left, top = x1 - (side - (x2 - x1)) // 2, y1 - (side - (y2 - y1)) // 2
    return left, top, left + side, top + side


def _tiled(processor: Any, image: PreparedImage, frame: Box, count: int) -> Placement | None:
    """LLaVA-NeXT and LLaVA-OneVision (pack_image_features): the small square first, then the rows of all tiles.

    Both cover the whole image, so the attention to a patch of the square is spread over the cells of the tiles that it
    covers.
    """
    height, width = image.values["image_sizes"][0].tolist()
    best = select_best_resolution((height, width), processor.image_processor.image_grid_pinpoints)
    tile = image.values["pixel_values"].shape[-1]
    side = _side_of_square(processor, tile)
    across = [length // tile for length in best]
    patches, rows = processor._get_unpadded_features(height, width, side, side, *across)
    columns = patches // rows
    if side**2 + rows * (columns + 1) != count:
        return None
    spread = torch.kron(_overlaps(rows, side), _overlaps(columns, side))
    tiles = torch.eye(rows * columns).reshape(-1, rows, columns)
    marked = torch.cat([tiles, torch.zeros(rows * columns, rows, 1)], dim=2).flatten(1)
    return Placement(rows, columns, frame, torch.cat([spread, marked], dim=1))


def _side_of_square(processor: Any, tile: int) -> int:
    tokens = getattr(processor, "num_image_tokens", None)  # LLaVA-OneVision's
    return math.isqrt(tokens) if tokens else tile // processor.patch_size


def _overlaps(cells: int, patches: int) -> Tensor:
    """(cells, patches), how much of each patch lies in each cell, where both divide the same length evenly."""
    cell = torch.arange(cells)[:, None] / cells
    patch = torch.arange(patches) / patches
    common = torch.minimum(cell + 1 / cells, patch + 1 / patches) - torch.maximum(cell, patch)
    return common.clamp(min=0) * patches


@torch.inference_mode()
def _resampled(loaded: LoadedModel, image: PreparedImage) -> Tensor:
    """Kosmos-2: how its latent queries attend to the patches, (patches, queries), the mean over its resampler's heads.

    The rest of a query's attention is on the tower's class token and on the queries themselves, and has no place.
    """
    with loaded.inference() as model, eager(model):
        attended = encode(model, image).projection_attentions[0].float().mean(dim=0).cpu()
    queries = len(attended)
    return float32_copy(attended[:, 1:-queries].T.contiguous())
