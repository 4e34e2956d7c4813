"""Matplotlib's colour maps that people with the common colour deficiencies can read, and that also work in grey."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps

SHARES = "viridis"  # from nothing to much
SIGNED = "cividis"  # from dissimilar to similar
STEPS = 256


def color_table(name: str) -> bytes:
    """256 × RGB of one of Matplotlib's maps."""
    colors = colormaps[name](np.arange(STEPS))[:, :3]
    return (colors * 255).round().astype(np.uint8).tobytes()
