"""Main components of feature maps, shared by levels and images, so that their colours can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

from gpt4roi_nb.arguments import whole_number


class FeatureMaps(Protocol):
    """The features to fit components to: one tensor per level, (C, S, S) maps or (N, C, o, o) pooled grids."""

    @property
    def levels(self) -> list[Tensor]: ...
    @property
    def input_convs(self) -> list[Tensor]: ...
    @property
    def fused_maps(self) -> list[Tensor]: ...
    @property
    def pooled(self) -> list[Tensor]: ...


@dataclass(frozen=True, eq=False)
class PCA:
    """Main components of features.

    Attributes:
        of: which features.
        components: (n, C) orthonormal rows, the strongest first; the largest entry of each is positive.
        mean: (C,) of the features.
        explained: (n,) share of the variance.
        low, high: (n,) range of the fitted values; maps are scaled to it.
        maps: per level, (n, S, S), or (N, n, o, o) for pooled grids, in [0, 1] by that range.

    Examples:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> scene = make_scene(5)
        >>> features = GPT4RoI.from_pretrained(device="cpu").session(scene.image).roi_features([scene.objects[0].box])
        >>> pca = features.pca("fused_maps", n=3)
        >>> len(pca.maps) == len(features.fused_maps) and len(pca.maps[0])
        3
    """

    of: str
    components: Tensor
    mean: Tensor
    explained: Tensor
    low: Tensor
    high: Tensor
    maps: list[Tensor]

    def project(self, features: FeatureMaps) -> list[Tensor]:
        """Compute the values along the components, not scaled: (…, n, S, S) per level."""
        return [_along(each, self.mean, self.components) for each in getattr(features, self.of)]

    def maps_of(self, features: FeatureMaps) -> list[Tensor]:
        """Compute the maps of other features with the same components and range, clipped to [0, 1]."""
        return [_scaled(each, self.low, self.high) for each in self.project(features)]


def principal_axes(vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the directions in which vectors vary most.

    Args:
        vectors: (M, C) float.

    Returns:
        Their mean, (C,); orthonormal rows, (C, C) float32, the strongest first, with the largest entry of each
        positive; and the sum of squares along each, (C,) float64.
    """
    mean = vectors.mean(dim=0)
    centred = (vectors - mean).double()
    # From the covariance, since there are usually many more vectors than channels.
    values, axes = torch.linalg.eigh(centred.T @ centred)
    components = axes.flip(1).T
    # The sign of a component means nothing; it is fixed so that colours are the same each time.
    signs = components.gather(1, components.abs().argmax(dim=1, keepdim=True)).sign()
    return mean, (components * signs).float(), values.flip(0).clamp(min=0)


def fit_components(several: Sequence[FeatureMaps], of: str, n: int) -> PCA:
    """Fit components to all levels of all features together; `maps` are those of the first."""
    vectors = torch.cat([_vectors(each) for features in several for each in getattr(features, of)])
    n = whole_number(n, "n")
    if not 1 <= n <= vectors.shape[1]:
        raise ValueError(f"n must be between 1 and the {vectors.shape[1]} channels, but is {n}")
    if len(vectors) < 2:
        raise ValueError(f"components need at least 2 vectors, but {of} holds {len(vectors)}; give a box")
    mean, components, values = principal_axes(vectors)
    components = components[:n]
    along = (vectors - mean) @ components.T
    low, high = along.amin(dim=0), along.amax(dim=0)
    maps = [_scaled(_along(each, mean, components), low, high) for each in getattr(several[0], of)]
    total = values.sum()
    explained = (values[:n] / total).float() if total > 0 else torch.zeros(n)
    return PCA(of, components, mean, explained, low, high, maps)


def _vectors(maps: Tensor) -> Tensor:
    """(C, h, w) or (N, C, h, w) → (places, C)."""
    return rearrange(maps if maps.ndim == 4 else maps[None], "n c h w -> (n h w) c")


def _along(maps: Tensor, mean: Tensor, components: Tensor) -> Tensor:
    return torch.einsum("kc,...chw->...khw", components, maps - mean[:, None, None])


def _scaled(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    width = (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    return ((values - low[:, None, None]) / width[:, None, None]).clamp(0, 1)
