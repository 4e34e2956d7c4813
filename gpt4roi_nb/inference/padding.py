"""Rows of token ids of different lengths, read together, and how much of them is common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def pad(
    rows: Sequence[Sequence[int]], device: torch.device, *, side: Literal["left", "right"], value: int = 0
) -> tuple[Tensor, Tensor]:
    """Pad rows of token ids to the length T of the longest.

    Args:
        rows: B rows of ids.
        device: where the result goes.
        side: of the padding.
        value: the id that fills it.

    Returns:
        The ids, (B, T) int64, and a mask, (B, T) int64, 0 for padding.
    """
    ids = [torch.tensor(list(row), dtype=torch.long) for row in rows]
    mask = [torch.ones_like(row) for row in ids]
    return (
        pad_sequence(ids, batch_first=True, padding_value=value, padding_side=side).to(device),
        pad_sequence(mask, batch_first=True, padding_side=side).to(device),
    )


def common_length(rows: Sequence[Sequence[object]]) -> int:
    """Count the items that all rows, at least one, begin with."""
    columns = zip(*rows, strict=False)
    return next((place for place, items in enumerate(columns) if len(set(items)) > 1), min(map(len, rows)))


def mask_after(length: int, mask: Tensor) -> Tensor | None:
    """Put the ones of an opening of `length` tokens before a (B, T) mask of `pad`; return None without padding."""
    return None if mask.all() else torch.cat([mask.new_ones(len(mask), length), mask], dim=1)
