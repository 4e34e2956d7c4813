"""The region with some of its surroundings, cut out of the image."""

from __future__ import annotations

import math

from PIL import Image

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.models.ways.conventions import UNVERIFIED
from gpt4roi_nb.models.ways.crop import MIN_SIDE, frame_of_cut, whole_frame
from gpt4roi_nb.models.ways.pointing import Pointing, Regions

MARGIN = 0.5  # of the box's side, on each side of it


def context(image: Image.Image, regions: Regions, *, margin: float = MARGIN) -> Pointing:
    """Show each region in the middle of an image of its own.

    The margin is the same on opposite sides, so that the region stays in the middle, and ends where the image does.
    The exception is a region at the edge of the image that has to grow to 28 pixels, as in `crop`.

    Args:
        image: RGB, upright.
        regions: by number, pixel xyxy. Without any the whole image is shown.
        margin: what is added on each side, as a share of the box's side.

    Raises:
        ValueError: the margin is negative or not finite.
    """
    check_margin(margin)
    cuts = tuple(frame_of_cut(_widened(box, image.size, margin), image.size) for box in regions.values())
    frames = cuts or (whole_frame(image),)
    where = "in the middle of the image" if len(frames) == 1 else "in the middle of image {}"
    return Pointing(
        tuple(image.crop(frame) for frame in frames),
        {number: f"the object {where.format(index)}" for index, number in enumerate(regions, 1)},
        {
            "way": "context",
            "margin": margin,
            "least_side": MIN_SIDE,
            "source": "arXiv 2504.16072, table 8",
            "status": UNVERIFIED,
        },
        frames=frames,
    )


def check_margin(margin: float) -> float:
    """Return a margin; raise ValueError if it is negative or not finite."""
    if not 0 <= margin < math.inf:
        raise ValueError(f"margin must be at least 0 and finite, but is {margin}")
    return margin


def _widened(box: Box, size: tuple[int, int], margin: float) -> Box:
    x1, y1, x2, y2 = box
    across = min(margin * (x2 - x1), math.floor(x1), size[0] - math.ceil(x2))
    down = min(margin * (y2 - y1), math.floor(y1), size[1] - math.ceil(y2))
    return x1 - across, y1 - down, x2 + across, y2 + down
