"""The sum of 3×3 convolutions in float32 on a CPU, with 16 products per pair of channels in place of 36.

Winograd's minimal filtering F(2×2, 3×3) (Lavin and Gray, arXiv 1509.09308) computes tiles of 2×2 results. Each of the
16 products is a matrix product over the channels of all convolutions, which thereby also adds them up. oneDNN computes
them: on AMD processors it takes half the time of MKL, PyTorch's default in float32 (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_CHANNELS = 512  # below, the transforms take as long as they save
BOXES_AT_ONCE = 8  # their transformed tiles take 100 MB at GPT4RoI's 4 × 1024 channels, a few times over
TILE = 2
PLACES = 16  # of a transformed tile, 4 × 4
SAMPLED = 997  # every 997th weight is compared: fused optimizers and `.data` change weights without a new version

FILTER = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))  # a line of a filter, transformed


def filter_bytes(levels: int, channels: int) -> int:
    """Compute the bytes that a `ConvolutionSum` keeps: 268 MB for GPT4RoI's four levels of 1024 channels."""
    return 0 if channels < MIN_CHANNELS else PLACES * levels * channels**2 * torch.float32.itemsize


def transform_filters(convs: Sequence[nn.Conv2d]) -> Tensor:
    """Return (16, out, convs · in): a matrix for each place of a tile."""
    lines = convs[0].weight.new_tensor(FILTER)
    inputs = convs[0].in_channels
    found = convs[0].weight.new_empty(4, 4, convs[0].out_channels, len(convs) * inputs)
    for k, conv in enumerate(convs):
        found[..., k * inputs : (k + 1) * inputs] = torch.einsum("ak, oikl, bl -> aboi", lines, conv.weight, lines)
    return found.flatten(0, 1)


def _lines(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, ...]:
    """Transform four lines of an input tile."""
    return a - c, b + c, c - b, b - d


def _results(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Transform four lines of products back to two of results."""
    return a + b + c, b - c - d


def transform_tiles(grids: Tensor) -> Tensor:
    """(N, h, w, C), h and w even → (16, N · tiles, C): each place of the transformed tiles, with a border of zeros."""
    padded = F.pad(grids, (0, 0, 1, 1, 1, 1))
    _, height, width, channels = padded.shape
    rows = _lines(*(padded[:, k : height - 3 + k : TILE] for k in range(4)))
    tiles = [tile for row in rows for tile in _lines(*(row[:, :, k : width - 3 + k : TILE] for k in range(4)))]
    return torch.stack(tiles).view(PLACES, -1, channels)


def transform_back(products: Tensor, height: int, width: int) -> Tensor:
    """(16, N · tiles, C) → (N, height, width, C)."""
    tiles = products.view(4, 4, -1, height // TILE, width // TILE, products.shape[-1])
    rows = [torch.stack(_results(*row.unbind(0)), dim=3) for row in _results(*tiles.unbind(0))]
    return torch.stack(rows, dim=2).reshape(-1, height, width, products.shape[-1])


class ConvolutionSum:
    """Computes what several convolutions make of a grid each, added up; keeps their filters, transformed.

    The convolutions are 3×3 with a padding of one and a bias, and of the same widths. Where they are not suited
    (`can_compute`), they compute themselves. Filters are transformed again when weights have changed; a change of
    single values through `.data` is not noticed. A copy of this object, and a stored one, has no filters.
    """

    def __init__(self) -> None:
        self._made_of: list[tuple[int, int, Tensor]] = []
        self._filters: Tensor | None = None

    def __reduce__(self) -> tuple[type[ConvolutionSum], tuple[()]]:
        return type(self), ()

    def __call__(self, convs: Sequence[nn.Conv2d], grids: Sequence[Tensor]) -> Tensor:
        """grids: one (N, C, h, w) per convolution → (N, out, h, w), of the same dtype."""
        if not can_compute(convs, grids):
            if len(grids[0]):  # an image without boxes says nothing about the next one
                self._filters = None
            total: Tensor = sum(conv(grid) for conv, grid in zip(convs, grids, strict=True))  # type: ignore[assignment]
            return total
        filters = self._current_filters(convs)
        bias = torch.stack([conv.bias for conv in convs]).sum(0)  # type: ignore[misc]
        parts = zip(*(grid.split(BOXES_AT_ONCE) for grid in grids), strict=True)
        return torch.cat([_convolve(part, filters) for part in parts]) + bias[:, None, None]

    def _current_filters(self, convs: Sequence[nn.Conv2d]) -> Tensor:
        now = [_state(conv.weight) for conv in convs]
        if self._filters is None or len(now) != len(self._made_of) or not all(map(_alike, now, self._made_of)):
            self._filters = None  # its memory is free before as much is taken again
            with torch.no_grad():
                filters = transform_filters(convs)
            self._filters, self._made_of = filters, now
            return filters
        return self._filters


def can_compute(convs: Sequence[nn.Conv2d], grids: Sequence[Tensor]) -> bool:
    """Whether `ConvolutionSum` can compute the sum, and quicker: many channels in float32 on a CPU, no gradients.

    Convolutions that an adapter has replaced, or with hooks, compute themselves.
    """
    if not torch.backends.mkldnn.is_available() or torch.is_autocast_enabled("cpu") or not len(grids[0]):
        return False
    if not all(type(conv) is nn.Conv2d and not conv._forward_hooks and not conv._forward_pre_hooks for conv in convs):
        return False
    tensors = [*(conv.weight for conv in convs), *grids]
    return (
        convs[0].in_channels >= MIN_CHANNELS
        and all(each.device.type == "cpu" and each.dtype == torch.float32 for each in tensors)
        and not (torch.is_grad_enabled() and any(each.requires_grad for each in tensors))
    )


def _convolve(grids: Sequence[Tensor], filters: Tensor) -> Tensor:
    """Compute the sum without the biases. grids: one (n, C, h, w) per convolution; filters: transformed."""
    height, width = grids[0].shape[-2:]
    joined = torch.cat([grid.permute(0, 2, 3, 1) for grid in grids], dim=-1)
    joined = F.pad(joined, (0, 0, 0, width % TILE, 0, height % TILE))
    tiles = transform_tiles(joined)
    products = [F.linear(tile.to_mkldnn(), each).to_dense() for tile, each in zip(tiles, filters, strict=True)]
    results = transform_back(torch.stack(products), *joined.shape[1:3])
    return results[:, :height, :width].permute(0, 3, 1, 2).contiguous()


def _state(weight: Tensor) -> tuple[int, int, Tensor]:
    """What tells whether a weight was changed: where it is, its version, and some of its values."""
    version = 0 if weight.is_inference() else weight._version
    return weight.data_ptr(), version, weight.detach().reshape(-1)[::SAMPLED].clone()


def _alike(a: tuple[int, int, Tensor], b: tuple[int, int, Tensor]) -> bool:
    return a[:2] == b[:2] and torch.equal(a[2], b[2])
