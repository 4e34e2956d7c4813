"""The whole image, and the region alone beside it."""

from __future__ import annotations

from PIL import Image

from gpt4roi_nb.models.conventions import UNVERIFIED
from gpt4roi_nb.models.ways.crop import MIN_SIDE, cut_out
from gpt4roi_nb.models.ways.pointing import Pointing, Regions


def full_crop(image: Image.Image, regions: Regions) -> Pointing:
    """Show the whole image first, then each region as an image of its own.

    Args:
        image: RGB, upright.
        regions: by number, pixel xyxy.
    """
    images = (image, *(cut_out(image, box) for box in regions.values()))
    return Pointing(
        images,
        {number: f"the object in image {index}" for index, number in enumerate(regions, 2)},
        {"way": "full+crop", "least_side": MIN_SIDE, "source": "arXiv 2504.16072, table 8", "status": UNVERIFIED},
    )
