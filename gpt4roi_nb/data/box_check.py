"""Check one box of an annotation file and clip it to its image; a bad one raises BadRecord."""

from __future__ import annotations

import math
from typing import Any

from gpt4roi_nb.boxes import MIN_SIDE, TOLERANCE, Box
from gpt4roi_nb.data.problems import LARGEST, OUTSIDE, WRONG_TYPE, ZERO_AREA, BadRecord, shown


def box_from_xywh(values: Any, width: int = 0, height: int = 0) -> Box:
    """As `box_from_xyxy`, but from (x, y, width, height)."""
    return cut_xywh(four_numbers(values), width, height)


def cut_xywh(box: Box, width: int = 0, height: int = 0) -> Box:
    """As `box_from_xywh`, for a box that `four_numbers` has checked."""
    x, y, w, h = box
    return _checked((x, y, x + w, y + h), width, height)


def box_from_xyxy(values: Any, width: int = 0, height: int = 0) -> Box:
    """Check a box and clip it to its image.

    Args:
        values: four numbers, pixel xyxy in the original image.
        width, height: the image's size in pixels; 0 if unknown, and then only the left and upper edges clip.

    Returns:
        The clipped box, pixel xyxy.

    Raises:
        BadRecord: not four finite numbers, or a box that is less than a pixel wide or high inside the image.
    """
    return _checked(four_numbers(values), width, height)


def four_numbers(values: Any) -> Box:
    """Return four finite numbers that can be pixels. Raises BadRecord for anything else."""
    if not isinstance(values, (list, tuple)) or len(values) != 4:
        raise BadRecord(WRONG_TYPE, f"a box must be a list of four numbers, but is {shown(values)}")
    for value in values:
        if type(value) not in (int, float) or not -LARGEST <= value <= LARGEST:  # NaN fails both
            raise BadRecord(WRONG_TYPE, f"a box must be four finite numbers of pixels, but is {shown(values)}")
    return values[0], values[1], values[2], values[3]


def _checked(box: Box, width: int, height: int) -> Box:
    x1, y1, x2, y2 = box
    right, bottom = width or math.inf, height or math.inf
    if min(x2 - x1, y2 - y1) < MIN_SIDE - TOLERANCE:
        raise BadRecord(ZERO_AREA, f"{_shown(box)} is less than a pixel wide or high")
    if x2 <= 0 or y2 <= 0 or x1 >= right or y1 >= bottom:
        raise BadRecord(OUTSIDE, f"{_shown(box)} lies wholly outside {_size(width, height)}")
    cut = max(x1, 0.0), max(y1, 0.0), min(x2, right), min(y2, bottom)
    if min(cut[2] - cut[0], cut[3] - cut[1]) < MIN_SIDE - TOLERANCE:
        raise BadRecord(OUTSIDE, f"less than a pixel of {_shown(box)} lies inside {_size(width, height)}")
    return cut


def _shown(box: Box) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in box) + ")"


def _size(width: int, height: int) -> str:
    return f"the image of {width} × {height} pixels" if width and height else "the image"
