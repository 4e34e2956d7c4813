"""The sum of 3×3 convolutions in float32 on a CPU, with fewer products and in the library that is quicker for them.

Winograd's minimal filtering F(2×2, 3×3) (Lavin and Gray, arXiv 1509.09308): a tile of 2×2 results takes 16 products per
pair of channels in place of 36. Each of the 16 is a matrix product over the channels of all convolutions, so that their
sum costs nothing. These go to oneDNN, which on AMD processors is twice as fast as MKL, PyTorch's default for float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_CHANNELS = 512  # below, the transforms take longer than what they save
BOXES_AT_ONCE = 8  # what they need is transformed together: 100 MB at GPT4RoI's 4 × 1024 channels
TILE = 2
PLACES = 16  # of a transformed tile, 4 × 4
SAMPLED = 997  # every so manieth weight is compared, to notice weights that were replaced

# Rows: how the 4 lines of a transformed filter depend on its 3.
FILTER = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))


def transform_filters(convs: Sequence[nn.Conv2d]) -> list[Tensor]:
    """Return one (out, convs · in) matrix per place of a tile."""
    filters = torch.tensor(FILTER)
    parts = [torch.einsum("ak, oikl, bl -> aboi", filters, conv.weight, filters).flatten(0, 1) for conv in convs]
    return list(torch.cat(parts, dim=2))


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
    """Computes what 3×3 convolutions with a padding of one make of a grid each, added up; keeps transformed filters.

    These take 16/9 of the memory of the filters (268 MB at GPT4RoI's sizes). They are made anew when a weight was
    changed. A copy of this object, and a stored one, has none.
    """

    def __init__(self) -> None:
        self._made_of: list[tuple[int, Tensor]] = []
        self._filters: list[Tensor] = []

    def __reduce__(self) -> tuple[type[ConvolutionSum], tuple[()]]:
        return type(self), ()

    def __call__(self, convs: Sequence[nn.Conv2d], grids: Sequence[Tensor]) -> Tensor:
        """grids: one (N, C, h, w) per convolution → (N, out, h, w)."""
        if not suits(convs, grids):
            total: Tensor = sum(conv(grid) for conv, grid in zip(convs, grids, strict=True))  # type: ignore[assignment]
            return total
        filters = self._current_filters(convs)
        bias = torch.stack([conv.bias for conv in convs]).sum(0)  # type: ignore[misc]
        parts = zip(*(grid.split(BOXES_AT_ONCE) for grid in grids), strict=True)
        return torch.cat([self._convolve(part, filters) for part in parts]) + bias[:, None, None]

    @staticmethod
    def _convolve(grids: Sequence[Tensor], filters: Sequence[Tensor]) -> Tensor:
        height, width = grids[0].shape[-2:]
        joined = torch.cat([grid.permute(0, 2, 3, 1) for grid in grids], dim=-1)
        joined = F.pad(joined, (0, 0, 0, width % TILE, 0, height % TILE))
        tiles = transform_tiles(joined)
        products = [F.linear(tile.to_mkldnn(), each).to_dense() for tile, each in zip(tiles, filters, strict=True)]
        results = transform_back(torch.stack(products), *joined.shape[1:3])
        return results[:, :height, :width].permute(0, 3, 1, 2).contiguous()

    def _current_filters(self, convs: Sequence[nn.Conv2d]) -> list[Tensor]:
        now = [_state(conv.weight) for conv in convs]
        if len(now) != len(self._made_of) or not all(map(_alike, now, self._made_of)):
            with torch.no_grad():
                self._filters = [each.contiguous().to_mkldnn() for each in transform_filters(convs)]
            self._made_of = now
        return self._filters


def suits(convs: Sequence[nn.Conv2d], grids: Sequence[Tensor]) -> bool:
    """Whether the sum is computed here, and not by the convolutions: in float32, on a CPU, without gradients."""
    weights = [conv.weight for conv in convs]
    return (
        convs[0].in_channels >= MIN_CHANNELS
        and len(grids[0]) > 0
        and torch.backends.mkldnn.is_available()
        and all(each.device.type == "cpu" and each.dtype == torch.float32 for each in (*weights, *grids))
        and not torch.is_autocast_enabled("cpu")
        and not (torch.is_grad_enabled() and any(each.requires_grad for each in (*weights, *grids)))
    )


def _state(weight: Tensor) -> tuple[int, Tensor]:
    """What tells whether a weight was changed: its version, and some of its values for changes that skip that."""
    version = 0 if weight.is_inference() else weight._version
    return version, weight.detach().flatten()[::SAMPLED].clone()


def _alike(a: tuple[int, Tensor], b: tuple[int, Tensor]) -> bool:
    return a[0] == b[0] and torch.equal(a[1], b[1])
