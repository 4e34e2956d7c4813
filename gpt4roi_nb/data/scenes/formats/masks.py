"""Masks as annotation files hold them: boxes, ids in PNGs, and COCO's polygons and run lengths, both exact."""

from typing import Any

import numpy as np

Polygon = list[float]

# Steps along pixel edges in clockwise order: right, down, left, up.
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def bounds(mask: np.ndarray) -> list[int]:
    """The tight box [x, y, width, height] in pixels of a mask (H, W) bool that is not empty."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(cols[0]), int(rows[0])
    return [x, y, int(cols[-1]) + 1 - x, int(rows[-1]) + 1 - y]


def rgb_ids(ids: np.ndarray) -> np.ndarray:
    """Segment ids (H, W) int32 as a panoptic PNG holds them, (H, W, 3) uint8: id = R + 256·G + 65536·B."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)


def segment_info(number: int, category: int, mask: np.ndarray, is_crowd: bool = False) -> dict[str, Any]:
    """An entry of the `segments_info` of a panoptic file, for a mask (H, W) bool."""
    return {
        "id": number,
        "category_id": category,
        "area": int(mask.sum()),
        "bbox": bounds(mask),
        "iscrowd": int(is_crowd),
    }


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """A mask (H, W) bool as `{"counts": […], "size": [H, W]}`: runs down the columns, the first one outside it."""
    flat = np.concatenate(([False], mask.ravel(order="F")))
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(changes, prepend=0, append=mask.size)
    return {"counts": counts.tolist(), "size": list(mask.shape)}


def _edges(mask: np.ndarray) -> dict[tuple[int, int], list[int]]:
    """Corner (x, y) to the directions of the pixel edges that leave it, with the mask to their right."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    starts = ((0, 0), (1, 0), (1, 1), (0, 1))  # the edges above, right, below and left of a pixel begin there
    leaving: dict[tuple[int, int], list[int]] = {}
    for direction, (other, (dx, dy)) in enumerate(zip(neighbours, starts, strict=True)):
        rows, cols = np.nonzero(inside & ~other)
        for corner in zip((cols + dx).tolist(), (rows + dy).tolist(), strict=True):
            leaving.setdefault(corner, []).append(direction)
    return leaving


def _loops(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """The mask's borders as corners (x, y) along pixel edges: outer ones clockwise, those of holes the other way."""
    leaving = _edges(mask)
    loops = []
    while leaving:
        start = next(iter(leaving))
        direction = leaving[start][0]
        corner, loop, came = start, [], -1
        while True:
            options = leaving[corner]
            # Where two pixels touch by a corner, turn right: they count as apart.
            direction = options[0] if len(options) == 1 or came < 0 else (came + 1) % 4
            options.remove(direction)
            if not options:
                del leaving[corner]
            if direction != came:
                loop.append(corner)
            corner, came = (corner[0] + STEPS[direction][0], corner[1] + STEPS[direction][1]), direction
            if corner == start and (start not in leaving or (came + 1) % 4 not in leaving[start]):
                break
        loops.append(loop)
    return loops


def _is_outer(loop: list[tuple[int, int]]) -> bool:
    x, y = np.array(loop).T
    return bool(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) > 0)


def _holds(loop: list[tuple[int, int]], x: float, y: float) -> bool:
    """Whether a point between the grid lines lies inside a loop."""
    ends = np.array(loop + loop[:1])
    low, high = np.minimum(ends[:-1, 1], ends[1:, 1]), np.maximum(ends[:-1, 1], ends[1:, 1])
    return bool(np.count_nonzero((low < y) & (y < high) & (ends[:-1, 0] > x)) % 2)


def polygons(mask: np.ndarray) -> list[Polygon]:
    """A mask (H, W) bool as flat polygons [x, y, x, y, …] along pixel edges, one for each connected part.

    A part with a hole is one polygon too: a slit without width leads from its border to the hole's and back, since
    COCO's polygons have no other way to say it.
    """
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return []
    top, left = int(rows[0]), int(cols[0])
    loops = _loops(mask[top : rows[-1] + 1, left : cols[-1] + 1])
    outer = [loop for loop in loops if _is_outer(loop)]
    joined = [list(loop) for loop in outer]
    for hole in (loop for loop in loops if not _is_outer(loop)):
        (x, y), (next_x, next_y) = hole[0], hole[1]
        # the middle of the pixel to the right of the hole's first edge, which belongs to the part around the hole
        step = (np.sign(next_x - x), np.sign(next_y - y))
        inside = x + step[0] / 2 - step[1] / 2, y + step[1] / 2 + step[0] / 2
        around = next(k for k, loop in enumerate(outer) if _holds(loop, *inside))
        anchor = outer[around][0]
        corner = (x, anchor[1])
        joined[around] += [anchor, corner, *hole, hole[0], corner, anchor]
    return [[float(v) for x, y in loop for v in (x + left, y + top)] for loop in joined]
