"""COCO's compressed run lengths: a mask as a string, and the box of that mask without decoding a pixel.

The string holds a mask's runs down its columns; the first run is outside the mask. From the fourth on, a run is stored
as its difference to the run two before. A number is written in groups of five bits, lowest first, one character per
group, counted from "0" (48 in ASCII). A sixth bit says that another group follows; the highest bit of the last group is
the sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.problems import LARGEST, MISSING, WRONG_TYPE, ZERO_AREA, BadRecord, field, shown

BITS = 5
MORE, SIGN, VALUE = 0x20, 0x10, 0x1F
FIRST = ord("0")
MAX_GROUPS = 13  # of a run: 65 bits, more than any mask has pixels


class Mask(NamedTuple):
    """A checked mask.

    counts: its compressed run lengths. size: (height, width) in pixels. box: its tight box, pixel xyxy. area: in
    pixels.
    """

    counts: str
    size: tuple[int, int]
    box: Box
    area: int

    @property
    def fill(self) -> float:
        """The share of its box that the mask covers."""
        x1, y1, x2, y2 = self.box
        return self.area / ((x2 - x1) * (y2 - y1))


def compressed(runs: Sequence[int]) -> str:
    """Write runs, the first one outside the mask, as COCO's string.

    Example:
        >>> compressed([6, 1, 36, 4, 1])
        '61T13mN'
    """
    signs = []
    for place, run in enumerate(runs):
        rest = run - runs[place - 2] if place > 2 else run
        while True:
            group, rest = rest & VALUE, rest >> BITS
            if rest == (-1 if group & SIGN else 0):
                signs.append(chr(FIRST + group))
                break
            signs.append(chr(FIRST + (group | MORE)))
    return "".join(signs)


def decompressed(text: str) -> list[int]:
    """Read the runs of COCO's string. Raises BadRecord if it is not one.

    Example:
        >>> decompressed("61T13mN")
        [6, 1, 36, 4, 1]
    """
    runs: list[int] = []
    value = groups = 0
    for sign in text:
        group = ord(sign) - FIRST
        if not 0 <= group < 2 * MORE or groups == MAX_GROUPS:
            raise BadRecord(WRONG_TYPE, f"not compressed run lengths: {shown(text)}")
        value |= (group & VALUE) << BITS * groups
        groups += 1
        if group & MORE:
            continue
        if group & SIGN:
            value -= 1 << BITS * groups
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = groups = 0
    if groups:
        raise BadRecord(WRONG_TYPE, f"the run lengths end within a number: {shown(text)}")
    return runs


def mask_from_lengths(entry: Any) -> Mask:
    """Read and check a mask of an annotation file.

    Args:
        entry: `{"size": [height, width], "counts": string}`.

    Returns:
        The mask, with its box and area.

    Raises:
        BadRecord: the entry has another form, its runs do not add up to its size, or the mask is empty.

    Example:
        >>> mask_from_lengths({"size": [6, 8], "counts": "61T13mN"}).box  # a pixel, and four at the right edge
        (1.0, 0.0, 8.0, 5.0)
    """
    size, counts = field(entry, "size", list), field(entry, "counts", str)
    if len(size) != 2 or not all(type(side) is int and 1 <= side <= LARGEST for side in size):
        raise BadRecord(WRONG_TYPE, f"'size' must be [height, width] in pixels, but is {shown(size)}")
    height, width = size
    runs = decompressed(counts)
    if not runs:
        raise BadRecord(MISSING, "'counts' is empty")
    if min(runs) < 0 or sum(runs) != height * width:
        raise BadRecord(WRONG_TYPE, f"the runs of a mask of {height} × {width} pixels do not add up to its size")
    box, area = _extent(runs, height)
    if not area:
        raise BadRecord(ZERO_AREA, "the mask is empty")
    return Mask(counts, (height, width), box, area)


def _extent(runs: Sequence[int], height: int) -> tuple[Box, int]:
    """(box, area) of the mask that has these runs down columns of `height` pixels."""
    rows: list[int] = []
    columns: list[int] = []
    start = 0
    for place, run in enumerate(runs):
        if place % 2 and run:
            (left, top), (right, bottom) = divmod(start, height), divmod(start + run - 1, height)
            columns += (left, right)
            rows += (top, bottom) if left == right else (0, height - 1)  # a run over the end of a column
        start += run
    if not rows:
        return (0.0, 0.0, 0.0, 0.0), 0
    return (float(min(columns)), float(min(rows)), max(columns) + 1.0, max(rows) + 1.0), sum(runs[1::2])
