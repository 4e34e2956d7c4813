"""Numbered boxes drawn on the image, as in set-of-mark prompting."""

from __future__ import annotations

from PIL import Image

from gpt4roi_nb.draw import MIN_LINE, SIDE_PER_LINE, draw_regions, line_of, region_color
from gpt4roi_nb.models.ways.conventions import UNVERIFIED
from gpt4roi_nb.models.ways.pointing import Pointing, Regions


def marks(image: Image.Image, regions: Regions, *, without: int | None = None) -> Pointing:
    """Draw each region's box with its number beside it, as `draw_regions` does.

    Args:
        image: RGB, upright; not changed.
        regions: by number, pixel xyxy.
        without: number of a region that is named as ever, but not drawn.
    """
    shown = {number: box for number, box in regions.items() if number != without}
    drawn = draw_regions(image, list(shown.values()), list(shown)) if shown else image
    return Pointing(
        (drawn,),
        {number: f"the object marked {number}" for number in regions},
        {
            "way": "marks",
            "colours": ", ".join(map(region_color, regions)),
            "line": f"{line_of(image.size)} pixels with white edges, opaque; white numbers",
            "line_width": f"1/{SIDE_PER_LINE} of the mean side, at least {MIN_LINE} pixels, around the box",
            "source": "arXiv 2310.11441 (boxes and numbers of this package)",
            "status": UNVERIFIED,
        },
    )
