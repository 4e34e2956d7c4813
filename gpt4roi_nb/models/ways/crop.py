"""The region alone, cut out of the image."""

from __future__ import annotations

import math

from PIL import Image

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.images import MAX_ASPECT_RATIO
from gpt4roi_nb.models.ways.conventions import UNVERIFIED, Size
from gpt4roi_nb.models.ways.pointing import Pointing, Regions

Frame = tuple[int, int, int, int]  # left, top, right, bottom, in pixels of the original image
MIN_SIDE = 28  # pixels: two patches of most towers, the least that a processor can use


def crop(image: Image.Image, regions: Regions) -> Pointing:
    """Show each region as an image of its own, and nothing else.

    A side shorter than 28 pixels, or than a twentieth of the other side, grows to that length, into the surroundings.

    Args:
        image: RGB, upright.
        regions: by number, pixel xyxy. Without any the whole image is shown.
    """
    frames = tuple(frame_of_cut(box, image.size) for box in regions.values()) or (whole_frame(image),)
    return Pointing(
        tuple(image.crop(frame) for frame in frames),
        {number: name_of(index, len(frames)) for index, number in enumerate(regions, 1)},
        {"way": "crop", "least_side": MIN_SIDE, "source": "arXiv 2504.16072, table 8", "status": UNVERIFIED},
        frames=frames,
    )


def name_of(index: int, count: int) -> str:
    """What the object in image `index`, from 1, of `count` is called."""
    return "the object in the image" if count == 1 else f"the object in image {index}"


def whole_frame(image: Image.Image) -> Frame:
    """The frame of all of an image."""
    return 0, 0, image.width, image.height


def frame_of_cut(box: Box, size: Size) -> Frame:
    """What is cut out of an image of a size, (width, height): the pixels that a box touches, more if these are few."""
    x1, y1, x2, y2 = box
    least = max(MIN_SIDE, math.ceil(max(x2 - x1, y2 - y1) / MAX_ASPECT_RATIO))
    left, right = _grown(math.floor(x1), math.ceil(x2), least, size[0])
    top, bottom = _grown(math.floor(y1), math.ceil(y2), least, size[1])
    return left, top, right, bottom


def _grown(first: int, last: int, least: int, side: int) -> tuple[int, int]:
    """A stretch of at least `least` pixels, as far as a side has them, around another."""
    missing = max(least - (last - first), 0)
    first = min(max(first - missing // 2, 0), max(side - max(least, last - first), 0))
    return first, min(max(last, first + least), side)
