"""Attention for many conversations about one image in one row, which do not see each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

SHARED_PREFIX = "shared_prefix"  # name of the attention below


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    prefix_length: int,
    slot_length: int,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention of rows as `rows.Rows` describes them: a slot sees the opening and itself.

    query, key, value: (B, H, T, D).
    """
    batch, heads, _, width = query.shape
    own_causal = torch.ones(slot_length, slot_length, dtype=torch.bool).tril()
    prefix_causal = torch.ones(prefix_length, prefix_length, dtype=torch.bool).tril()

    def parts(states: Tensor) -> tuple[Tensor, Tensor]:
        slots = states[:, :, prefix_length:].reshape(batch, heads, -1, slot_length, width)
        return states[:, :, :prefix_length], slots

    (prefix_q, slot_q), (prefix_k, slot_k), (prefix_v, slot_v) = parts(query * scaling), parts(key), parts(value)
    prefix_scores = (prefix_q @ prefix_k.transpose(-1, -2)).masked_fill(~prefix_causal, float("-inf"))
    prefix_out = prefix_scores.float().softmax(-1).to(value.dtype) @ prefix_v

    flat_q = slot_q.reshape(batch, heads, -1, width)
    to_prefix = (flat_q @ prefix_k.transpose(-1, -2)).view(*slot_q.shape[:4], prefix_length)
    to_own = (slot_q @ slot_k.transpose(-1, -2)).masked_fill(~own_causal, float("-inf"))
    weights = torch.cat([to_prefix, to_own], dim=-1).float().softmax(-1).to(value.dtype)
    from_prefix = weights[..., :prefix_length].reshape(batch, heads, -1, prefix_length) @ prefix_v
    from_own = weights[..., prefix_length:] @ slot_v
    slot_out = from_prefix + from_own.reshape(batch, heads, -1, width)
    return torch.cat([prefix_out, slot_out], dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register(SHARED_PREFIX, shared_prefix_attention)
