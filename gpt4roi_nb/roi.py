"""Boxes to region tokens: fuse several levels of the vision tower, RoIAlign each, and make one vector a region.

Knows nothing of text. The arithmetic is that of GPT4RoI (arXiv 2307.03601, figure 2): `MultiLevelFusion` does not
depend on the boxes and is computed once an image; `RegionHead` costs little and is computed for every box.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torchvision.ops import roi_align
from transformers.modeling_layers import GradientCheckpointingLayer

from gpt4roi_nb.config import GPT4RoIConfig


def resize(maps: Tensor, size: int) -> Tensor:
    """Bilinear, corners aligned, computed in float32. maps: (B, C, h, w) → (B, C, size, size), same dtype."""
    if maps.shape[-2:] == (size, size):
        return maps
    return F.interpolate(maps.float(), size=(size, size), mode="bilinear", align_corners=True).to(maps.dtype)


def append_coordinates(maps: Tensor) -> Tensor:
    """(B, C, S, S) → (B, C + 2, S, S): two channels more, x then y, each from -1 to 1 inclusive, made in float32."""
    batch, _, height, width = maps.shape
    x = torch.linspace(-1, 1, width, device=maps.device).expand(batch, 1, height, width)
    y = torch.linspace(-1, 1, height, device=maps.device)[:, None].expand(batch, 1, height, width)
    return torch.cat([maps, x.to(maps.dtype), y.to(maps.dtype)], dim=1)


class FusionRound(GradientCheckpointingLayer):
    """One 3×3 convolution, GroupNorm and ReLU, shared by all levels."""

    def __init__(self, channels: int, groups: int, eps: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm = nn.GroupNorm(groups, channels, eps=eps)

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(maps)))


class MultiLevelFusion(nn.Module):
    """The tower's hidden states to fused maps, one a level."""

    def __init__(self, config: GPT4RoIConfig) -> None:
        super().__init__()
        region = config.region_config
        self.sizes = config.level_sizes
        self.input_convs = nn.ModuleList(
            nn.Conv2d(config.vision_config.hidden_size + 2, region.hidden_size, kernel_size=1) for _ in self.sizes
        )
        self.rounds = nn.ModuleList(
            FusionRound(region.hidden_size, region.num_groups, region.norm_eps) for _ in range(region.num_fusion_rounds)
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """features: one (B, grid², C) a level, shallowest first, no CLS → one (B, hidden_size, S_l, S_l) a level."""
        maps = self.project(features)
        for fusion_round in self.rounds:
            maps = [fusion_round(mixed) for mixed in self.mix(maps)]
        return maps

    def project(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Each level resized to its size, with coordinates, through its own 1×1 convolution."""
        maps = []
        for level, (hidden, size, conv) in enumerate(zip(features, self.sizes, self.input_convs, strict=True)):
            grid = round(hidden.shape[1] ** 0.5)
            if grid * grid != hidden.shape[1]:
                raise ValueError(f"level {level} must be a square grid of patches, but has {hidden.shape[1]} of them")
            maps.append(conv(append_coordinates(resize(rearrange(hidden, "b (h w) c -> b c h w", h=grid), size))))
        return maps

    def mix(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Each level's first half beside a quarter of its deeper and a quarter of its shallower neighbour.

        The deeper neighbour gives its last quarter of channels, the shallower its third; levels at an edge are their
        own neighbour. All levels read the maps of the round before.
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
    """Fused maps and boxes to one vector a region, in the language model's width."""

    def __init__(self, config: GPT4RoIConfig) -> None:
        super().__init__()
        region = config.region_config
        self.image_size = config.vision_config.image_size
        self.output_size = region.output_size
        self.sampling_ratio = region.sampling_ratio
        self.level_convs = nn.ModuleList(
            nn.Conv2d(region.hidden_size, region.hidden_size, kernel_size=3, padding=1) for _ in config.level_sizes
        )
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
        """maps: (B, C, S_l, S_l) a level; boxes: one (n_i, 4) an image, xyxy in [0, 1] → (sum of n_i, D), in order."""
        return self.combine(self.pool(maps, boxes), boxes)

    def pool(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
        """RoIAlign on every level for every box, in float32: one (sum of n_i, C, output_size, output_size) a level."""
        pixels = [image_boxes.float() * self.image_size for image_boxes in boxes]
        return [
            roi_align(
                level_maps.float(),
                pixels,
                output_size=self.output_size,
                spatial_scale=level_maps.shape[-1] / self.image_size,
                sampling_ratio=self.sampling_ratio,
                aligned=True,  # as mmcv 1.4.7 does by default; torchvision's default is False
            ).to(level_maps.dtype)
            for level_maps in maps
        ]

    def combine(self, pooled: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """The pooled grids of all levels and the boxes' positions to the region vectors."""
        content = self.content(pooled)
        return self.output_projection(content + self.position(boxes, content.dtype))

    def content(self, pooled: Sequence[Tensor]) -> Tensor:
        """(N, embed_dim): what the pooled grids say, without the boxes' positions."""
        levels = sum(conv(grid) for conv, grid in zip(self.level_convs, pooled, strict=True))
        return self.flatten_projection(rearrange(F.relu(levels), "n c h w -> n (c h w)"))

    def position(self, boxes: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """(N, embed_dim): what the boxes' positions say."""
        return self.position_embedding(torch.cat(list(boxes)).to(dtype))


class RegionEncoder(nn.Module):
    """The whole of it: `fusion` once an image, `head` for every box."""

    def __init__(self, config: GPT4RoIConfig) -> None:
        super().__init__()
        self.fusion = MultiLevelFusion(config)
        self.head = RegionHead(config)

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Hidden states of the levels and boxes, as `MultiLevelFusion` and `RegionHead` take them → (n, D)."""
        return self.head(self.fusion(features), boxes)
