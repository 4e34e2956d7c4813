"""A rectangle drawn on the image, and named by its colour."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

from PIL import Image, ImageDraw

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.models.ways.conventions import UNVERIFIED, Size
from gpt4roi_nb.models.ways.pointing import NOUN, Pointing, Regions

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
SOURCE = "WisconsinAIVision/ViP-LLaVA, llava/visual_prompt_generator.py"
WIDTH = 3.0  # of a line in an image whose longest side is `ANCHOR`: ViP-LLaVA's "constant" style
ANCHOR = 336


@dataclass(frozen=True)
class Pen:
    """What boxes are drawn with.

    Attributes:
        colour: of the first region, one of `COLOURS`; the others follow in their order.
        width: of the line, in pixels where the longest side has 336.
        warns: whether `draw` warns of a box that its line covers.
    """

    colour: str = next(iter(COLOURS))
    width: float = WIDTH
    warns: bool = True

    def __post_init__(self) -> None:
        if self.colour not in COLOURS:
            raise ValueError(f"colour must be one of {', '.join(COLOURS)}, but is {self.colour!r}")
        if not 0 < self.width < math.inf:
            raise ValueError(f"width must be above 0 and finite, but is {self.width}")

    @property
    def colours(self) -> dict[str, tuple[int, int, int]]:
        """Name → RGB, for the regions in order."""
        names = list(COLOURS)
        first = names.index(self.colour)
        return {name: COLOURS[name] for name in (*names[first:], *names[:first])}

    @property
    def line(self) -> str:
        """The line in words, whatever the size of an image."""
        return f"{self.width:g} pixels where the longest side has {ANCHOR}, opaque"

    def pixels(self, size: Size) -> int:
        """Width of the line in an image of a size, (width, height)."""
        return max(int(self.width * max(size) / ANCHOR), 1)

    def covers(self, box: Box, size: Size) -> bool:
        """Whether the line paints over all that is in a box of an image of a size, (width, height)."""
        left, top, right, bottom = corners_of(box)
        return 2 * self.pixels(size) >= min(right - left, bottom - top) + 1


RED = Pen()


def corners_of(box: Box) -> tuple[int, int, int, int]:
    """The first and the last pixels of a box."""
    x1, y1, x2, y2 = box
    left, top = int(x1), int(y1)
    return left, top, max(round(x2) - 1, left), max(round(y2) - 1, top)


@dataclass(frozen=True)
class Wording:
    """How a drawn region is called.

    Attributes:
        words: with `{colour}` for the name of its colour.
        source: where they were read; "" for `SOURCE`, where the drawing is from.
    """

    words: str = f"{NOUN}within the {{colour}} rectangle"
    source: str = ""


VIP_LLAVA = Wording()


def draw(
    image: Image.Image, regions: Regions, *, pen: Pen = RED, wording: Wording = VIP_LLAVA, without: int | None = None
) -> Pointing:
    """Draw each region's box and name it by colour.

    The line runs along the box's edges, inside it, and grows with the image: `width` pixels where the longest side has
    336, as in ViP-LLaVA.

    Args:
        image: RGB, upright; not changed.
        regions: by number, pixel xyxy.
        pen: colours and width of the lines.
        wording: how a region is called.
        without: number of a region that is named as ever, but not drawn.

    Raises:
        ValueError: there are more regions than colours.

    Warns:
        UserWarning: the lines of a box, which are opaque, cover its shorter side, and with it the object.
    """
    check_count(len(regions))
    drawn = image.copy()
    canvas = ImageDraw.Draw(drawn)
    line = pen.pixels(image.size)
    named = dict(zip(regions, pen.colours.items(), strict=False))
    for number, box in regions.items():
        if number == without:
            continue
        x1, y1, x2, y2 = box
        if pen.warns and pen.covers(box, image.size):
            warnings.warn(
                f"the line of {line} pixels paints over what is in <region{number}>, a box of {x2 - x1:g} × "
                f'{y2 - y1:g} pixels; point with regions="crop" or "marks" instead',
                stacklevel=2,
            )
        # Four bars, each with both its corners: Pillow's own outline leaves a box that is narrower than two lines.
        left, top, right, bottom = corners_of(box)
        within = min(line, (min(right - left, bottom - top) + 2) // 2) - 1
        for bar in (
            (left, top, right, top + within),
            (left, bottom - within, right, bottom),
            (left, top, left + within, bottom),
            (right - within, top, right, bottom),
        ):
            canvas.rectangle(bar, fill=named[number][1])
    return Pointing(
        (drawn,),
        {number: wording.words.format(colour=name) for number, (name, _) in named.items()},
        {
            "way": "draw",
            "colours": ", ".join(name for name, _ in named.values()),
            "line": f"{line} pixels, opaque",
            "line_width": pen.line,
            "source": f"{SOURCE}; words: {wording.source}" if wording.source else SOURCE,
            "status": UNVERIFIED,
        },
    )


def check_count(regions: int) -> None:
    """Raise ValueError if there are more regions than colours."""
    if regions > len(COLOURS):
        raise ValueError(
            f"draw names regions by colour and has {len(COLOURS)} colours, but there are {regions} regions; ask about "
            'fewer at a time, or take regions="marks"'
        )
