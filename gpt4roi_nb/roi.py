"""From boxes to region tokens: fuse several levels of the vision tower, RoIAlign each, make one vector per region.

Knows nothing of text. The arithmetic is that of GPT4RoI (arXiv 2307.03601, figure 2): `MultiLevelFusion` does not
depend on the boxes and is computed once per image; `RegionHead` costs little and is computed for every box.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torchvision.ops import roi_align
from transformers.modeling_layers import GradientCheckpointingLayer

from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.winograd import ConvolutionSum


def resize(maps: Tensor, size: int) -> Tensor:
    """Resize maps bilinearly, corners aligned, in float32: (B, C, h, w) → (B, C, size, size) of the same dtype."""
    if maps.shape[-2:] == (size, size):
        return maps
    return F.interpolate(maps.float(), size=(size, size), mode="bilinear", align_corners=True).to(maps.dtype)


def append_coordinates(maps: Tensor) -> Tensor:
    """Append two channels, x then y, each from -1 to 1 inclusive, made in float32: (B, C, S, S) → (B, C + 2, S, S)."""
    batch, _, height, width = maps.shape
    x = torch.linspace(-1, 1, width, device=maps.device).expand(batch, 1, height, width)
    y = torch.linspace(-1, 1, height, device=maps.device)[:, None].expand(batch, 1, height, width)
    return torch.cat([maps, x.to(maps.dtype), y.to(maps.dtype)], dim=1)


def resizing_taps(*sizes: int, device: torch.device | None = None) -> Tensor:
    """Write what a 3×3 convolution of resized maps reads along one axis as a matrix.

    Args:
        sizes: the side of the maps, and each side that they are resized to, in order.
        device: of the result.

    Returns:
        (sizes[-1], 3, sizes[0]) float32: row (i, k) holds the weights of the maps' own places in what tap k reads at
        place i. It is zero in the padding of the convolution, which comes after the resizing.
    """
    matrix = torch.eye(sizes[0], device=device)
    for size in sizes[1:]:
        matrix = F.interpolate(matrix[None], size=size, mode="linear", align_corners=True)[0]
    return rearrange(F.pad(matrix, (1, 1)).unfold(1, 3, 1), "small large tap -> large tap small")


def layout_for(dtype: torch.dtype) -> torch.memory_format:
    """Return the layout of maps that the kernels for this dtype read and write."""
    return torch.contiguous_format if dtype == torch.float32 else torch.channels_last


class FusionConv(nn.Conv2d):
    """The 3×3 convolution of a round."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel_size=3, padding=1, bias=False)

    def forward(self, maps: Tensor, taps: Tensor | None = None) -> Tensor:
        """Convolve maps, which with taps are resized on the way.

        Resizing and convolution are linear, so each tap's product with the weights can be computed before the maps
        grow, for (s / S)² of the cost; the products are resized and added up in float32. With taps, the result has the
        dtype of the weights, also under autocast, where GroupNorm reads float32.

        Args:
            maps: (B, C, S, S); with taps (B, C, s, s), not yet resized.
            taps: (3, S, 3, s) from `resizing_taps`, for the first half of the channels and the two quarters.

        Returns:
            (B, C, S, S).
        """
        if taps is None:
            return super().forward(maps.contiguous(memory_format=layout_for(maps.dtype)))
        quarter = self.in_channels // 4
        parts = [2 * quarter, quarter, quarter]
        products = [
            torch.einsum("bcyx, ocij -> boijyx", part, weight)
            for part, weight in zip(maps.split(parts, dim=1), self.weight.split(parts, dim=1), strict=True)
        ]
        device = maps.device.type
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            rows = [
                torch.einsum("boijyx, hiy -> bohjx", product.float(), tap)
                for product, tap in zip(products, taps, strict=True)
            ]
            columns = rearrange(taps, "part w j x -> w j (part x)")
            resized = torch.einsum("bohjx, wjx -> bohw", torch.cat(rows, dim=-1), columns)
            dtype = self.weight.dtype
            return resized.to(dtype, memory_format=layout_for(dtype))


class FusionRound(GradientCheckpointingLayer):
    """One 3×3 convolution, GroupNorm and ReLU, shared by all levels."""

    def __init__(self, channels: int, groups: int, eps: float) -> None:
        super().__init__()
        self.conv = FusionConv(channels)
        self.norm = nn.GroupNorm(groups, channels, eps=eps)

    def forward(self, maps: Tensor, taps: Tensor | None = None) -> Tensor:
        """Compute one round; maps and taps are as `FusionConv` takes them, the result is (B, C, S, S)."""
        return F.relu(self.norm(self.conv(maps, taps)), inplace=True)


class MultiLevelFusion(nn.Module):
    """Turn the tower's hidden states into fused maps, one per level."""

    def __init__(self, config: GPT4RoIConfig) -> None:
        super().__init__()
        region = config.region_config
        self.grid_size = config.grid_size
        self.sizes = config.level_sizes
        self.input_convs = nn.ModuleList(
            nn.Conv2d(config.vision_config.hidden_size + 2, region.hidden_size, kernel_size=1) for _ in self.sizes
        )
        self.rounds = nn.ModuleList(
            FusionRound(region.hidden_size, region.num_groups, region.norm_eps) for _ in range(region.num_fusion_rounds)
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Fuse the levels: the result of `project`, followed by `mix` and a round as often as there are rounds.

        Everything before the first round's GroupNorm is linear, so it is computed on the tower's own grid.

        Args:
            features: one (B, grid², C) per level, shallowest first, without CLS.

        Returns:
            One (B, hidden_size, S_l, S_l) float32 per level: RoIAlign reads float32, and the maps are converted once.
        """
        rounds = list(self.rounds)
        if not rounds or self.grid_size == 1:  # a single place has no coordinates to resize
            maps = self.project(features)
        else:
            grids = [conv(append_coordinates(grid)) for conv, grid in self._inputs(features)]
            first = rounds.pop(0)
            maps = [first(mixed, self._taps(level, mixed.device)) for level, mixed in enumerate(self.mix(grids))]
        for fusion_round in rounds:
            maps = [fusion_round(mixed) for mixed in self.mix(maps)]
        # In the layout that RoIAlign reads, or it would copy whole maps for every box.
        return [level_maps.to(torch.float32, memory_format=torch.contiguous_format) for level_maps in maps]

    def project(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Resize each level to its size, append coordinates, and apply the level's own 1×1 convolution."""
        return [
            conv(append_coordinates(resize(grid, size)))
            for size, (conv, grid) in zip(self.sizes, self._inputs(features), strict=True)
        ]

    def _inputs(self, features: Sequence[Tensor]) -> list[tuple[nn.Module, Tensor]]:
        """Return each level's 1×1 convolution and its hidden states as (B, C, grid, grid)."""
        inputs = []
        for level, (conv, hidden) in enumerate(zip(self.input_convs, features, strict=True)):
            if hidden.shape[1] != self.grid_size**2:
                raise ValueError(
                    f"level {level} must hold {self.grid_size**2} patches, {self.grid_size} per side, but holds "
                    f"{hidden.shape[1]}; give the tower's hidden states without leading tokens such as CLS"
                )
            inputs.append((conv, rearrange(hidden, "b (h w) c -> b c h w", h=self.grid_size)))
        return inputs

    def _taps(self, level: int, device: torch.device) -> Tensor:
        """Return (3, S_l, 3, grid): the resizing of a level's own channels and its deeper and shallower neighbour's."""
        size = self.sizes[level]
        deeper, shallower = self.sizes[min(level + 1, len(self.sizes) - 1)], self.sizes[max(level - 1, 0)]
        through = (size, deeper, shallower)
        return torch.stack([resizing_taps(self.grid_size, one, size, device=device) for one in through])

    def mix(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Concatenate each level's first half with a quarter of its deeper and a quarter of its shallower neighbour.

        The deeper neighbour gives its last quarter of channels, the shallower its third quarter. The first and the last
        level are their own neighbours on one side. All levels read the maps of the round before.
        """
        quarter = maps[0].shape[1] // 4
        last = len(maps) - 1
        mixed = []
        for level, own in enumerate(maps):
            deeper = maps[min(level + 1, last)][:, 3 * quarter :]
            shallower = maps[max(level - 1, 0)][:, 2 * quarter : 3 * quarter]
            size = own.shape[-1]
            mixed.append(torch.cat([own[:, : 2 * quarter], resize(deeper, size), resize(shallower, size)], dim=1))
        return mixed


class RegionHead(nn.Module):
    """Turn fused maps and boxes into one vector per region, in the language model's width."""

    def __init__(self, config: GPT4RoIConfig) -> None:
        super().__init__()
        region = config.region_config
        self.image_size = config.vision_config.image_size
        self.output_size = region.output_size
        self.sampling_ratio = region.sampling_ratio
        self.level_convs = nn.ModuleList(
            nn.Conv2d(region.hidden_size, region.hidden_size, kernel_size=3, padding=1) for _ in config.level_sizes
        )
        self.sum_of_levels = ConvolutionSum()
        self.flatten_projection = nn.Linear(region.hidden_size * region.output_size**2, region.embed_dim)
        self.position_embedding = nn.Sequential(
            nn.Linear(4, region.position_hidden_size),
            nn.ReLU(),
            nn.LayerNorm(region.position_hidden_size, eps=region.norm_eps),
            nn.Linear(region.position_hidden_size, region.embed_dim),
            nn.ReLU(),
            nn.LayerNorm(region.embed_dim, eps=region.norm_eps),
        )
        self.output_projection = nn.Linear(region.embed_dim, config.text_config.hidden_size)

    def forward(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Compute the region vectors.

        Args:
            maps: one (B, C, S_l, S_l) per level.
            boxes: per image, (n_i, 4) xyxy in [0, 1].

        Returns:
            (sum of n_i, D), in order.
        """
        return self.combine(self.pool(maps, boxes), boxes)

    def pool(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
        """Apply RoIAlign to every level for every box, in float32.

        Args:
            maps: one (B, C, S_l, S_l) per level.
            boxes: per image, (n_i, 4) xyxy in [0, 1].

        Returns:
            One (sum of n_i, C, output_size, output_size) per level, in the dtype of the weights.
        """
        dtype = self.flatten_projection.weight.dtype
        pixels = [image_boxes.float() * self.image_size for image_boxes in boxes]
        return [
            roi_align(
                level_maps.float(),
                pixels,
                output_size=self.output_size,
                spatial_scale=level_maps.shape[-1] / self.image_size,
                sampling_ratio=self.sampling_ratio,
                aligned=True,  # as mmcv 1.4.7 does by default; torchvision's default is False
            ).to(dtype)
            for level_maps in maps
        ]

    def combine(self, pooled: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Combine the pooled grids of all levels and the boxes' positions to the region vectors."""
        content = self.content(pooled)
        return self.output_projection(content + self.position(boxes, content.dtype))

    def content(self, pooled: Sequence[Tensor]) -> Tensor:
        """Compute what the pooled grids contribute, without the boxes' positions: (N, embed_dim)."""
        levels = self.sum_of_levels(list(self.level_convs), pooled)  # type: ignore[arg-type]
        return self.flatten_projection(rearrange(F.relu(levels), "n c h w -> n (c h w)"))

    def position(self, boxes: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """Compute what the boxes' positions contribute: (N, embed_dim)."""
        return self.position_embedding(torch.cat(list(boxes)).to(dtype))


class RegionEncoder(nn.Module):
    """The whole region encoder: `fusion` once per image, `head` for every box."""

    def __init__(self, config: GPT4RoIConfig) -> None:
        super().__init__()
        self.fusion = MultiLevelFusion(config)
        self.head = RegionHead(config)

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Compute (n, D) region vectors; features are as `MultiLevelFusion`, boxes as `RegionHead` takes them."""
        return self.head(self.fusion(features), boxes)
