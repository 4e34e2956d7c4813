"""A rectangle drawn on the image, and named by its colour."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from PIL import Image, ImageDraw

from gpt4roi_nb.models.conventions import UNVERIFIED
from gpt4roi_nb.models.ways.pointing import Pointing, Regions

# Names and values of ViP-LLaVA, visual_prompt_generator.py (color_pool), in its order.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (255, 0, 0),
    "lime": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "fuchsia": (255, 0, 255),
    "aqua": (0, 255, 255),
    "orange": (255, 165, 0),
    "purple": (128, 0, 128),
    "gold": (255, 215, 0),
}
WIDTH = 3.0  # of a line in an image whose longest side is `ANCHOR`: ViP-LLaVA's "constant" style
ANCHOR = 336


def draw(
    image: Image.Image,
    regions: Regions,
    *,
    colours: Mapping[str, tuple[int, int, int]] | None = None,
    width: float = WIDTH,
) -> Pointing:
    """Draw each region's box and name it by colour.

    The line runs along the box's edges, inside it, and grows with the image: `width` pixels where the longest side has
    336, as in ViP-LLaVA.

    Args:
        image: RGB, upright; not changed.
        regions: by number, pixel xyxy.
        colours: name → RGB, for the regions in order; None takes ViP-LLaVA's nine.
        width: of the line.

    Raises:
        ValueError: there are more regions than colours.

    Warns:
        UserWarning: the lines of a box, which are opaque, cover its shorter side, and with it the object.
    """
    colours = COLOURS if colours is None else colours
    check_count(len(regions), len(colours))
    drawn = image.copy()
    canvas = ImageDraw.Draw(drawn)
    line = max(int(width * max(image.size) / ANCHOR), 1)
    named = dict(zip(regions, colours.items(), strict=False))
    for number, (x1, y1, x2, y2) in regions.items():
        left, top = int(x1), int(y1)
        # Pillow's corners are inclusive: the line ends on the box's last pixel.
        corners = (left, top, max(round(x2) - 1, left), max(round(y2) - 1, top))
        if 2 * line >= min(corners[2] - left, corners[3] - top) + 1:
            warnings.warn(
                f"the line of {line} pixels paints over what is in <region{number}>, a box of {x2 - x1:g} × "
                f'{y2 - y1:g} pixels; point with regions="crop" or "marks" instead',
                stacklevel=2,
            )
        canvas.rectangle(corners, outline=named[number][1], width=line)
    return Pointing(
        (drawn,),
        {number: f"the object within the {name} rectangle" for number, (name, _) in named.items()},
        {
            "way": "draw",
            "colours": ", ".join(name for name, _ in named.values()),
            "line": f"{line} pixels, opaque",
            "source": "WisconsinAIVision/ViP-LLaVA, llava/visual_prompt_generator.py",
            "status": UNVERIFIED,
        },
    )


def check_count(regions: int, colours: int = len(COLOURS)) -> None:
    """Raise ValueError if there are more regions than colours."""
    if regions > colours:
        raise ValueError(
            f"draw names regions by colour and has {colours} colours, but there are {regions} regions; ask about fewer "
            'at a time, or take regions="marks"'
        )
