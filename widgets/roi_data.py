"""What a region is made of, as small multiples for the browser: no widget, no browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gpt4roi_nb.capture import RoIFeatures
from gpt4roi_nb.widgets.wire import float32_bytes

# How maps are coloured, and in words.
COLORINGS = {
    "norm": "length of the feature vector",
    "component 1": "first main component",
    "component 2": "second main component",
    "component 3": "third main component",
    "three components": "three main components as red, green and blue",
    "similarity": "similarity to the region",
}
COMPONENTS = 3
# Of a component, a cosine: both signs mean something, so that 0 has no place of its own in a norm's scale.
COSINES = (-1.0, 1.0)
UNIT = (0.0, 1.0)


def image_rows(features: RoIFeatures, region: int, coloring: str) -> list[dict[str, Any]]:
    """Maps in the frame of the picture: tower levels, after the first convolution, after each round of mixing.

    region: row of `features.boxes`, for "similarity". A row is {"name", "what": its coloring in words, "low", "high",
    "maps": [{"label", "of", "level", "columns", "values": float32 bytes (S, S), or (S, S, 3) of three components}]}.
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
    """The same in the frame of the box: RoIAlign's grids, and those through the head's convolutions.

    RoIAlign's grids have the colours of the last fused maps, whose values they are; "similarity" shows norms instead.
    """
    coloring = "norm" if coloring == "similarity" else coloring
    one = region if region >= 0 else len(features.boxes) + region
    pooled = _colored(features, "pooled", coloring, fitted="fused_maps")
    heads = _colored(features, "head_outputs", coloring, fitted="head_outputs")
    return [
        _row("RoIAlign of the fused maps", "pooled", coloring, [each[one] for each in pooled]),
        _row("through the level’s convolution", "head_outputs", coloring, [each[one] for each in heads]),
    ]


def similarity_to_place(features: RoIFeatures, of: int, level: int, row: int, column: int) -> Tensor:
    """(S, S) float cosines between one place of a map and all places of it, less what all places share.

    of: which stage, by its place among `image_rows`. level, row, column: the place.
    """
    _, _, maps = _stages(features)[of]
    centred = maps[level] - maps[level].mean(dim=(1, 2), keepdim=True)
    units = torch.nn.functional.normalize(centred, dim=0)
    return torch.einsum("chw,c->hw", units, units[:, row, column])


def bars(features: RoIFeatures, region: int) -> list[dict[str, Any]]:
    """What each level, the position and the constants give to a region token: shares that sum to 1."""
    return [{"name": name, "share": round(float(share[region]), 5)} for name, share in features.shares().items()]


def stage_features(features: RoIFeatures, maps: list[Tensor]) -> RoIFeatures:
    """The same features with these maps in the place of the fused ones, so that one stage is asked like another."""
    return replace(features, fused_maps=maps)


def _stages(features: RoIFeatures) -> list[tuple[str, str, list[Tensor]]]:
    """(name, key, one (C, S_l, S_l) a level): in the order in which they are computed."""
    stages = [("hidden states of the tower", "levels", features.levels)]
    stages.append(("resized, through the first convolution", "input_convs", features.input_convs))
    rounds = features.fusion_rounds or [features.fused_maps]
    last = len(rounds)
    for number, maps in enumerate(rounds, start=1):
        name = "fused maps" if last == 1 else f"mixed among levels, round {number} of {last}"
        stages.append((name, f"round {number}", maps))
    return stages


def _colored(features: RoIFeatures, of: str, coloring: str, fitted: str = "fused_maps") -> list[Tensor]:
    """One (…, S, S) or (…, S, S, 3) a level of the features named `of`, by components of those named `fitted`."""
    if coloring == "norm":
        return [each.norm(dim=-3) for each in getattr(features, of)]
    if fitted == "head_outputs":
        # They live in a space of their own, that no map shares.
        features, fitted, of = replace(features, pooled=features.head_outputs), "pooled", "pooled"
    pca = features.pca(fitted, min(COMPONENTS, features.pooled[0].shape[1]))
    maps = replace(pca, of=of).maps_of(features)
    if coloring == "three components":
        return [torch.movedim(each, -3, -1) for each in maps]
    component = int(coloring.removeprefix("component ")) - 1
    return [each[..., component, :, :] for each in maps]


def _row(name: str, of: str, coloring: str, shown: Sequence[Tensor]) -> dict[str, Any]:
    """Levels of one row share a scale, so that they compare."""
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
