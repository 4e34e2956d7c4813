"""What a saved notebook shows of an `AttentionInspector`: a token's map over the image, its numbers and its tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from gpt4roi_nb.session.export import image_address
from gpt4roi_nb.session.references import readable
from gpt4roi_nb.widgets.attention_data import AttentionData, Floats, Maps
from gpt4roi_nb.widgets.colormaps import SHARES, color_table
from gpt4roi_nb.widgets.static_page import StaticPage, percent

OPACITY = 0.65  # as the page begins with
KINDS = {"relevancy": "Gradient-weighted relevancy", "rollout": "Attention rolled out through all layers"}


def add_map(
    page: StaticPage,
    data: AttentionData,
    token: int,
    maps: Maps,
    *,
    kind: str,
    hide_sinks: bool,
    tests: Sequence[dict[str, Any]],
) -> None:
    """Add a token's map, its shares and the chosen tests to a page.

    Args:
        page: to add to.
        data: of the answer.
        token: its index.
        maps: of this token alone.
        kind: what the map shows, in words.
        hide_sinks: leave sinks out, as in the view.
        tests: of `AttentionView.ablations`, those of this answer and of the chosen kind.
    """
    attention = data.attention
    hidden = [sink["cell"] for sink in data.sinks if sink["cell"] >= 0] if hide_sinks else []
    cells = maps.maps[0].copy()
    cells.flat[hidden] = 0
    shares = maps.mass[0] - maps.on_sinks[0] if hide_sinks else maps.mass[0]
    words = f"{kind}, of “{attention.tokens[token].strip() or '␣'}” (token {token + 1} of {len(attention.tokens)})."
    page.say(f"Answer: {''.join(attention.tokens).strip()}")
    boxes = [box for _, box in sorted(attention.regions.items())]
    page.image(image_address(attention.image, boxes, lambda image: paint(image, cells, hidden)), words)
    page.say(f"{words} Colours: from 0 to {percent(float(cells.max()))} per cell, this map's own scale.")
    for test in tests:
        verdict = test["problem"] or (test["verdicts"][token] if test["verdicts"] else "")
        said = f" The model would say: {test['said']}" if test["said"] else ""
        page.say(f"Test ({test['how'].replace('_', ' ')}): {verdict}.{said}" if verdict else "")
    page.table((readable(name), percent(float(share))) for name, share in zip(data.spans, shares, strict=True))


def paint(image: Image.Image, cells: Floats, hidden: Sequence[int] = ()) -> Image.Image:
    """Return the image in grey with a map over it. cells: (grid, grid), from the image's top left. hidden: of them."""
    top = float(cells.max()) or 1.0
    colors = np.frombuffer(color_table(SHARES), np.uint8).reshape(-1, 3)
    steps = np.clip(np.round(255 * cells / top), 0, 255).astype(np.uint8)
    alpha = np.full(cells.shape, round(255 * OPACITY), np.uint8)
    alpha.flat[list(hidden)] = 0
    over, mask = (Image.fromarray(part).resize(image.size, Image.Resampling.NEAREST) for part in (colors[steps], alpha))
    return Image.composite(over, ImageOps.grayscale(image).convert("RGB"), mask)
