"""Colour maps that people with the common colour deficiencies can read, and in grey too: Matplotlib's own."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps

SHARES = "viridis"  # from nothing to much
SIGNED = "cividis"  # from unlike to like
STEPS = 256


def color_table(name: str) -> bytes:
    """256 × RGB of one of Matplotlib's maps."""
    colors = colormaps[name](np.arange(STEPS))[:, :3]
    return (colors * 255).round().astype(np.uint8).tobytes()
