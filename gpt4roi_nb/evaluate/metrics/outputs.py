"""Turn region masks with class probabilities into semantic, panoptic and instance outputs, as Mask2Former does.

In all functions, masks are (N, H, W) bool and may overlap; probabilities are (N, C + 1), the last column void.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

OVERLAP = 0.8  # a mask with a smaller share of pixels of its own is dropped
TOP = 100  # (region, class) pairs per image
NONE = -1
_CELLS = 2**24  # (class, pixel) cells that are summed at a time


class Segment(NamedTuple):
    """A segment of a panoptic output. regions: indices of its masks, several for merged stuff."""

    id: int
    category: int
    regions: tuple[int, ...]


class Instances(NamedTuple):
    """Instances, best first: (K,) each of region index, class index and score."""

    regions: np.ndarray
    categories: np.ndarray
    scores: np.ndarray


def semantic(masks: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Choose, for each pixel, the class with the largest sum of probability × mask.

    Returns:
        (H, W) int16; -1 where there is no region, or only void ones. (The reference gives such pixels the first class.
        In the ground truth they are void and not counted, unless an image has more regions than are asked about.)
    """
    _check(masks, probabilities)
    kept = ~_is_void(probabilities)
    rows = probabilities[kept, :-1].astype(np.float32).T
    chosen = masks[kept]
    height, width = masks.shape[1:]
    labels = np.full((height, width), NONE, np.int16)
    step = max(1, _CELLS // max(1, width * probabilities.shape[1]))
    for top in range(0, height if len(chosen) else 0, step):
        band = chosen[:, top : top + step]
        sums = np.tensordot(rows, band.astype(np.float32), axes=1)  # (C, rows, W)
        labels[top : top + step] = np.where(band.any(0), sums.argmax(0), NONE)
    return labels


def panoptic(
    masks: np.ndarray, probabilities: np.ndarray, things: Sequence[bool], overlap: float = OVERLAP
) -> tuple[np.ndarray, list[Segment]]:
    """Assign pixels to segments.

    Each region takes its best class; void regions are dropped. A pixel goes to the region with the largest best
    probability, the first if equal. A region of which less than `overlap` remains is dropped. Stuff of one class forms
    one segment.

    Args:
        things: (C,) whether a class is countable.
        overlap: share of a mask, from 0 to 1.

    Returns:
        Segment ids (H, W) int32, 0 for none, and the segments.
    """
    _check(masks, probabilities)
    classes, scores = probabilities.argmax(1), probabilities.max(1)
    owner = np.full(masks.shape[1:], NONE, np.int32)
    best = np.zeros(masks.shape[1:], np.float64)
    kept = [k for k in range(len(masks)) if classes[k] < probabilities.shape[1] - 1]
    for k in kept:
        wins = masks[k] & (scores[k] > best)
        owner[wins], best[wins] = k, scores[k]
    ids = np.zeros(masks.shape[1:], np.int32)
    segments: list[Segment] = []
    merged: dict[int, int] = {}  # class of stuff → index of its segment
    for k in kept:
        own = owner == k
        area = int(masks[k].sum())
        if not own.any() or own.sum() / area < overlap:
            continue
        category = int(classes[k])
        if not things[category] and category in merged:
            place = merged[category]
            segments[place] = segments[place]._replace(regions=(*segments[place].regions, k))
        else:
            merged[category] = place = len(segments)
            segments.append(Segment(place + 1, category, (k,)))
        ids[own] = segments[place].id
    return ids, segments


def instances(probabilities: np.ndarray, things: Sequence[bool], top: int = TOP) -> Instances:
    """Choose the `top` likeliest (region, class) pairs of an image over all classes, and return the things among them.

    A region may appear with several classes, and does with nearly flat scores. Equal pairs keep their order. Void
    regions and classes of probability 0, as a mapping that chooses gives, form no pair.

    Args:
        things: (C,) whether a class is countable.
        top: number of pairs.
    """
    if not len(probabilities):
        return Instances(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    scores = probabilities[:, :-1]
    order = np.argsort(-scores, axis=None, kind="stable")[:top]
    regions, categories = np.unravel_index(order, scores.shape)
    chosen = scores.ravel()[order]
    kept = np.asarray(things, bool)[categories] & ~_is_void(probabilities)[regions] & (chosen > 0)
    return Instances(regions[kept], categories[kept], chosen[kept])


def _is_void(probabilities: np.ndarray) -> np.ndarray:
    return probabilities.argmax(1) == probabilities.shape[1] - 1


def _check(masks: np.ndarray, probabilities: np.ndarray) -> None:
    if masks.ndim != 3 or masks.dtype != bool:
        raise ValueError(f"masks must be (N, H, W) bool, but are {masks.shape} {masks.dtype}")
    if probabilities.ndim != 2 or len(probabilities) != len(masks):
        raise ValueError(
            f"probabilities must be (N, C + 1), one row per mask: there are {len(masks)} masks, but their shape is "
            f"{probabilities.shape}"
        )
