"""What a region is made of, as data for the browser's small multiples: no widget, no browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gpt4roi_nb.capture import RoIFeatures
from gpt4roi_nb.widgets.wire import float32_bytes

# How maps can be coloured: name → description.
COLORINGS = {
    "norm": "length of the feature vector",
    "component 1": "first principal component",
    "component 2": "second principal component",
    "component 3": "third principal component",
    "three components": "three principal components as red, green and blue",
    "similarity": "similarity to the region",
}
COMPONENTS = 3
# For components and cosines both signs matter, so 0 is not an end of their scale, as it is for norms.
COSINES = (-1.0, 1.0)
UNIT = (0.0, 1.0)


def image_rows(features: RoIFeatures, region: int, coloring: str) -> list[dict[str, Any]]:
    """Make the rows of maps in the frame of the image: tower levels, after the first convolution, after each round.

    Args:
        features: of the image and its boxes.
        region: index into `features.boxes`, for "similarity".
        coloring: a key of `COLORINGS`.

    Returns:
        Rows {"name", "what": a description of its coloring, "low", "high", "maps": [{"label", "of", "level", "columns",
        "values": float32 bytes (S, S), or (S, S, 3) for three components}]}.
    """
    rows = []
    for name, of, maps in _stages(features):
        if coloring == "similarity":
            shown = [stage_features(features, maps).similarity_map(region, level=level) for level in range(len(maps))]
        else:
            shown = _colored(stage_features(features, maps), "fused_maps", coloring)
        rows.append(_row(name, of, coloring, shown))
    return rows


def box_rows(features: RoIFeatures, region: int, coloring: str) -> list[dict[str, Any]]:
    """Make the rows in the frame of the box, as `image_rows`: RoIAlign's grids, and the head's convolutions of them.

    RoIAlign's grids have the colours of the last fused maps, from which they are sampled; for "similarity" they show
    norms.
    """
    coloring = "norm" if coloring == "similarity" else coloring
    one = region if region >= 0 else len(features.boxes) + region
    pooled = _colored(features, "pooled", coloring, fitted="fused_maps")
    heads = _colored(features, "head_outputs", coloring, fitted="head_outputs")
    return [
        _row("RoIAlign of the fused maps", "pooled", coloring, [each[one] for each in pooled]),
        _row("after the level’s convolution", "head_outputs", coloring, [each[one] for each in heads]),
    ]


def similarity_to_place(features: RoIFeatures, of: int, level: int, row: int, column: int) -> Tensor:
    """Compute cosines between one place of a map and all its places, after subtracting the mean of all places.

    Args:
        features: of the image.
        of: the stage, by its index among `image_rows`.
        level, row, column: the place.

    Returns:
        (S, S) float.
    """
    _, _, maps = _stages(features)[of]
    centred = maps[level] - maps[level].mean(dim=(1, 2), keepdim=True)
    units = torch.nn.functional.normalize(centred, dim=0)
    return torch.einsum("chw,c->hw", units, units[:, row, column])


def bars(features: RoIFeatures, region: int) -> list[dict[str, Any]]:
    """The contributions of each level, the position and the constants to a region token: shares that sum to 1."""
    return [{"name": name, "share": round(float(share[region]), 5)} for name, share in features.shares().items()]


def stage_features(features: RoIFeatures, maps: list[Tensor]) -> RoIFeatures:
    """Replace the fused maps by these, so that every stage can be queried in the same way."""
    return replace(features, fused_maps=maps)


def _stages(features: RoIFeatures) -> list[tuple[str, str, list[Tensor]]]:
    """(name, key, maps: one (C, S_l, S_l) per level), in the order in which they are computed."""
    stages = [("hidden states of the tower", "levels", features.levels)]
    stages.append(("resized, after the first convolution", "input_convs", features.input_convs))
    rounds = features.fusion_rounds or [features.fused_maps]
    last = len(rounds)
    for number, maps in enumerate(rounds, start=1):
        name = "fused maps" if last == 1 else f"mixed across levels, round {number} of {last}"
        stages.append((name, f"round {number}", maps))
    return stages


def _colored(features: RoIFeatures, of: str, coloring: str, fitted: str = "fused_maps") -> list[Tensor]:
    """One (…, S, S) or (…, S, S, 3) per level of the features named `of`, by components fitted to those in `fitted`."""
    if coloring == "norm":
        return [each.norm(dim=-3) for each in getattr(features, of)]
    if fitted == "head_outputs":
        # They are in a space of their own, which no map shares.
        features, fitted, of = replace(features, pooled=features.head_outputs), "pooled", "pooled"
    pca = features.pca(fitted, min(COMPONENTS, features.pooled[0].shape[1]))
    maps = replace(pca, of=of).maps_of(features)
    if coloring == "three components":
        return [torch.movedim(each, -3, -1) for each in maps]
    component = int(coloring.removeprefix("component ")) - 1
    return [each[..., component, :, :] for each in maps]


def _row(name: str, of: str, coloring: str, shown: Sequence[Tensor]) -> dict[str, Any]:
    """Make a row, whose levels share a scale, so that they can be compared."""
    low, high = {"norm": (0.0, max(float(each.max()) for each in shown)), "similarity": COSINES}.get(coloring, UNIT)
    return {
        "name": name,
        "what": COLORINGS[coloring],
        "coloring": coloring,
        "low": low,
        "high": high,
        "maps": [
            {
                "label": f"level {level}",
                "of": of,
                "level": level,
                "columns": each.shape[1],
                "values": float32_bytes(each.numpy()),
            }
            for level, each in enumerate(shown)
        ],
    }
