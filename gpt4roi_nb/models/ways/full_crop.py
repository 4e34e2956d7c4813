"""The whole image, and the region alone beside it."""

from __future__ import annotations

from PIL import Image

from gpt4roi_nb.models.ways.conventions import UNVERIFIED
from gpt4roi_nb.models.ways.crop import MIN_SIDE, frame_of_cut, whole_frame
from gpt4roi_nb.models.ways.pointing import Pointing, Regions


def full_crop(image: Image.Image, regions: Regions) -> Pointing:
    """Show the whole image first, then each region as an image of its own.

    Args:
        image: RGB, upright.
        regions: by number, pixel xyxy.
    """
    cuts = tuple(frame_of_cut(box, image.size) for box in regions.values())
    return Pointing(
        (image, *(image.crop(cut) for cut in cuts)),
        {number: f"the object in image {index}" for index, number in enumerate(regions, 2)},
        {"way": "full+crop", "least_side": MIN_SIDE, "source": "arXiv 2504.16072, table 8", "status": UNVERIFIED},
        frames=(whole_frame(image), *cuts),
    )
