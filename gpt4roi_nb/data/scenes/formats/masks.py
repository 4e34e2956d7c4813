"""Masks as annotation files hold them: COCO's polygons and run lengths, both exact."""

from itertools import chain

import numpy as np

Polygon = list[float]


def run_lengths(mask: np.ndarray, box: tuple[int, int, int, int] | None = None) -> dict[str, list[int]]:
    """Encode a mask (H, W) bool as `{"counts": […], "size": [H, W]}`: runs down the columns, the first one outside it.

    box: int pixel xyxy; pixels outside of it do not count.
    """
    height, width = mask.shape
    left, top, right, bottom = box or (0, 0, width, height)
    columns = np.zeros((right - left, height), bool)
    columns[:, top:bottom] = mask[top:bottom, left:right].T
    flat = np.concatenate(([False], columns.ravel(), [False]))
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + left * height
    ends = np.concatenate((changes[changes < mask.size], [mask.size]))  # the end of the mask is not a change
    counts = ends.copy()
    counts[1:] -= ends[:-1]
    return {"counts": counts.tolist(), "size": [height, width]}


# Directions along pixel edges in clockwise order: right 0, down 1, left 2, up 3.
# The directions in which the outline leaves a corner where it turns, with the mask to its right, by which of the four
# pixels around the corner are set (upper left 1, upper right 2, lower left 4, lower right 8). Where two pixels touch
# only at a corner, it passes twice and turns right each time: they count as separate.
_LEAVING = {1: (2,), 2: (3,), 4: (1,), 8: (0,), 7: (1,), 11: (2,), 13: (0,), 14: (3,), 6: (1, 3), 9: (0, 2)}
_IS_TURN = np.isin(np.arange(16), [*_LEAVING])


Loop = list[tuple[float, float]]  # corners (x, y), the first two on a horizontal edge


def _loops(mask: np.ndarray, left: int, top: int) -> list[Loop]:
    """The mask's borders along pixel edges: outer ones clockwise, those of holes counter-clockwise.

    left, top: the pixel at which the mask begins.
    """
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), np.uint8)
    padded[1:-1, 1:-1] = mask
    pairs = padded[:-1] + 4 * padded[1:]
    around = (pairs[:, :-1] + 2 * pairs[:, 1:]).ravel()
    turns = np.flatnonzero(_IS_TURN[around])
    rows, cols = np.divmod(turns, width + 1)
    codes = around[turns].tolist()
    corners = list(zip((cols + float(left)).tolist(), (rows + float(top)).tolist(), strict=True))
    # An edge ends at the next corner of its row or column, which these two orders give.
    down = np.lexsort((rows, cols))
    place = np.empty_like(down)
    place[down] = np.arange(down.size)
    column, places = down.tolist(), place.tolist()
    done = bytearray(4 * len(codes))  # by corner and direction in which the outline leaves it
    loops = []
    for start, code in enumerate(codes):
        if _LEAVING[code][0] != 0:
            continue  # a loop begins with an edge along the upper side of a pixel
        for leaving in _LEAVING[code]:
            if done[4 * start + leaving]:
                continue
            corner, direction, loop = start, leaving, []
            while not done[4 * corner + direction]:
                done[4 * corner + direction] = 1
                loop.append(corners[corner])
                if direction == 0:
                    corner += 1
                elif direction == 2:
                    corner -= 1
                else:
                    corner = column[places[corner] + (1 if direction == 1 else -1)]
                leaves = _LEAVING[codes[corner]]
                direction = leaves[0] if len(leaves) == 1 else (direction + 1) % 4
            loops.append(loop)
    return loops


def _is_outer(loop: Loop) -> bool:
    """Whether a loop is an outer border, by the sign of its area, to which vertical edges add nothing."""
    return sum((x - next_x) * y for (x, y), (next_x, _) in zip(loop[::2], loop[1::2], strict=True)) > 0


def _holds(loop: Loop, x: float, y: float) -> bool:
    """Whether a point between the grid lines lies inside a loop."""
    ends = np.array(loop + loop[:1])
    low, high = np.minimum(ends[:-1, 1], ends[1:, 1]), np.maximum(ends[:-1, 1], ends[1:, 1])
    return bool(np.count_nonzero((low < y) & (y < high) & (ends[:-1, 0] > x)) % 2)


def polygons(mask: np.ndarray, box: tuple[int, int, int, int] | None = None) -> list[Polygon]:
    """Encode a mask (H, W) bool as flat polygons [x, y, x, y, …] along pixel edges, one per connected part.

    A part with a hole is one polygon too: a slit of no width leads from its border to the hole's and back, since COCO's
    polygons have no other way to express a hole.

    box: int pixel xyxy; pixels outside of it do not count.
    """
    left, top, right, bottom = box or (0, 0, *mask.shape[::-1])
    loops = _loops(mask[top:bottom, left:right], left, top)
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
    return [[*chain.from_iterable(loop)] for loop in joined]
