"""Masks as arrays: their tight boxes, and segment ids as the colours of a panoptic PNG."""

from __future__ import annotations

import numpy as np


def bounds(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """Return the tight box of a mask (H, W) bool, pixel xyxy; None if it is empty.

    Example:
        >>> bounds(np.array([[False, False, False], [False, True, True]]))
        (1, 1, 3, 2)
        >>> bounds(np.zeros((2, 3), bool)) is None
        True
    """
    rows = np.flatnonzero(mask.any(1))
    if not rows.size:
        return None
    cols = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(0))
    return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1


def rgb_ids(ids: np.ndarray) -> np.ndarray:
    """Encode segment ids (…) int32 as in a panoptic PNG, (…, 3) uint8: id = R + 256·G + 65536·B."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
