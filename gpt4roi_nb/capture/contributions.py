"""Split a region token into parts that add up to it: those of each level, the position and the constants."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from gpt4roi_nb.capture.storage import float32_copy
from gpt4roi_nb.roi import RegionHead


@torch.inference_mode()
def contributions(head: RegionHead, head_outputs: list[Tensor], position_embedding: Tensor) -> dict[str, Tensor]:
    """See `RoIFeatures.contribution`, also for shapes. Computed in float32 on the head's device."""
    weight = head.output_projection.weight
    out = weight.float()
    flatten = head.flatten_projection.weight.float()
    outputs = [each.to(weight.device) for each in head_outputs]
    passed = (torch.stack(outputs).sum(dim=0) > 0).float()  # the ReLU's active set

    def through(grid: Tensor) -> Tensor:
        return rearrange(grid * passed, "n c h w -> n (c h w)") @ flatten.T @ out.T

    constants = [conv.bias.float()[:, None, None] for conv in head.level_convs]  # type: ignore[index, operator, union-attr]
    parts = {
        f"level {level}": through(grid - constant)
        for level, (grid, constant) in enumerate(zip(outputs, constants, strict=True))
    }
    parts["position"] = position_embedding.to(weight.device) @ out.T
    bias = head.flatten_projection.bias.float() @ out.T + head.output_projection.bias.float()
    parts["bias"] = through(torch.stack(constants).sum(dim=0).expand_as(outputs[0])) + bias
    return {name: float32_copy(part) for name, part in parts.items()}


def shares(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn (N, D) parts into (N,) lengths along their sum, as shares of it."""
    token = torch.stack(list(parts.values())).sum(dim=0)
    along = F.normalize(token, dim=-1)
    length = token.norm(dim=-1)
    return {name: (part * along).sum(dim=-1) / length for name, part in parts.items()}
