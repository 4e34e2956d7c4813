"""Colour maps that people with the common colour deficiencies can read, and in grey too: Matplotlib's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps

_HERE = Path(__file__).parent
SHARES = "viridis"  # from nothing to much
SIGNED = "cividis"  # from unlike to like
STEPS = 256


def color_table(name: str) -> bytes:
    """256 × RGB of one of Matplotlib's maps."""
    colors = colormaps[name](np.arange(STEPS))[:, :3]
    return (colors * 255).round().astype(np.uint8).tobytes()


def module(*files: str) -> str:
    """One ES module out of several files beside this one; anywidget knows modules of one file only."""
    return "\n".join((_HERE / name).read_text() for name in files)
