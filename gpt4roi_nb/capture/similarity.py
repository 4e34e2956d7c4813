"""What looks like a region: other regions, places of the image, regions of a bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torchvision.ops import roi_align

from gpt4roi_nb.arguments import whole_number

SAMPLES = 7  # side of the grid on which a box is averaged


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The regions of a bank that are most like each of N regions, the most similar first.

    Attributes:
        indices: (N, k) int64 rows of the bank.
        similarity: (N, k) cosines.
        labels: N lists of k labels.

    Examples:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> scene = make_scene(5)
        >>> session = GPT4RoI.from_pretrained(device="cpu").session(scene.image)
        >>> bank = session.roi_features([thing.box for thing in scene.objects[:3]])
        >>> names = [thing.category for thing in scene.objects[:3]]
        >>> session.roi_features([scene.objects[1].box]).nearest(bank, k=1, labels=names).labels == [[names[1]]]
        True
    """

    indices: Tensor
    similarity: Tensor
    labels: list[list[Any]]


def cosine(one: Tensor, other: Tensor) -> Tensor:
    """Compute the cosines between (N, D) and (M, D) vectors: (N, M)."""
    return F.normalize(one, dim=-1) @ F.normalize(other, dim=-1).T


def similarity_map(maps: Tensor, box: Tensor) -> Tensor:
    """Compute (S, S) from (C, S, S) maps and a (4,) box, xyxy in [0, 1]; see `RoIFeatures.similarity_map`."""
    side = maps.shape[-1]
    centred = maps - maps.mean(dim=(1, 2), keepdim=True)
    inside = roi_align(centred[None], [box[None] * side], output_size=SAMPLES, sampling_ratio=2, aligned=True)
    places = rearrange(centred, "c h w -> (h w) c")
    return rearrange(cosine(places, inside.mean(dim=(2, 3))), "(h w) 1 -> h w", h=side)


def nearest(tokens: Tensor, bank: Tensor, k: int, labels: Sequence[Any] | None) -> Neighbours:
    """See `RoIFeatures.nearest`."""
    if bank.ndim != 2 or bank.shape[-1] != tokens.shape[-1]:
        raise ValueError(
            f"the bank must be (M, {tokens.shape[-1]}), vectors as wide as the region tokens, but is "
            f"{tuple(bank.shape)}"
        )
    if labels is not None and len(labels) != len(bank):
        raise ValueError(f"the bank has {len(bank)} regions, but {len(labels)} labels were given; give one per region")
    k = whole_number(k, "k")
    if not 1 <= k <= len(bank):
        raise ValueError(f"k must be between 1 and the {len(bank)} regions of the bank, but is {k}")
    found = cosine(tokens, bank.float().cpu()).topk(k, dim=-1)
    names = range(len(bank)) if labels is None else labels
    return Neighbours(found.indices, found.values, [[names[index] for index in row] for row in found.indices.tolist()])
