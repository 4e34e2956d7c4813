"""Draw numbered boxes onto an image, in the colours that the chat gives its regions."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from gpt4roi_nb.boxes import check_boxes
from gpt4roi_nb.images import ImageLike, load_image

# Ten hues, each with a contrast of at least 4.5:1 to white, so that white text on them is readable, and 3:1 to
# JupyterLab's dark background (#111111). With the region's number, which is always beside the colour, people with the
# common colour deficiencies can tell them apart.
REGION_COLORS: tuple[str, ...] = (
    "#c94d0a",
    "#1a77ca",
    "#28863a",
    "#c2255c",
    "#9c36b5",
    "#0c8094",
    "#a86500",
    "#506cdb",
    "#d6336c",
    "#687d00",
)

# Sizes follow from the image, so that a region looks alike at any size: a line is 1/180 of the geometric mean of the
# sides, but at least 2 pixels. The white edges on both sides of it, which set it off from any background, are a third.
SIDE_PER_LINE = 180
MIN_LINE = 2
EDGE_PER_LINE = 1 / 3
# A number is 6.5 line widths high (at least 13 pixels); a stroke makes it bolder than Pillow's only font.
FONT_PER_LINE = 6.5
STROKE_PER_FONT = 1 / 36
PADDING_PER_FONT = 0.32
# Share of a chip that may cover its box before another place is tried.
SPARED_OVERLAP = 1 / 3
# Pillow's rounded shapes have jagged edges, so a chip is drawn this many times as large, then reduced.
SUPERSAMPLING = 4


class _Rectangle(NamedTuple):
    """A rectangle of whole pixels; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    def overlap(self, other: "_Rectangle") -> int:
        """Area in common, in pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0) * max(height, 0)


def draw_regions(image: ImageLike, boxes: ArrayLike, numbers: Sequence[int] | None = None) -> Image.Image:
    """Return a copy of an image with each box outlined and its number on a chip beside it.

    The line runs around the box, not over it, except along the image's edges. Small boxes lie above large ones, and
    chips do not overlap where there is room.

    Args:
        image: as `load_image` takes it, any size; converted to RGB.
        boxes: (N, 4) pixel xyxy in `image`, as `check_boxes` takes them.
        numbers: N region numbers, 1 or above, which also choose the colours; None numbers the boxes 1 to N.

    Returns:
        RGB image of the same size.

    Raises:
        ValueError: for a bad box, a number below 1, or if the counts of numbers and boxes differ.

    Examples:
        >>> import numpy as np
        >>> from gpt4roi_nb import draw_regions
        >>> drawn = draw_regions(np.zeros((120, 160, 3), np.uint8), [(20, 20, 60, 60), (90, 40, 140, 100)])
        >>> drawn.size, drawn.mode
        ((160, 120), 'RGB')
    """
    image = load_image(image)
    checked = check_boxes(boxes, *image.size)
    numbers = list(range(1, len(checked) + 1) if numbers is None else numbers)
    if len(numbers) != len(checked):
        raise ValueError(f"expected one number per box, but got {len(numbers)} numbers for {len(checked)} boxes")
    if any(number < 1 for number in numbers):
        raise ValueError(f"expected region numbers of 1 or above, but got {numbers}")

    drawn = image.convert("RGB") if image.mode != "RGB" else image.copy()
    line = line_of(image.size)
    frames = [_frame(box, image.size, line) for box in checked.tolist()]
    regions = sorted(zip(frames, numbers, strict=True), key=lambda region: region[0].overlap(region[0]), reverse=True)
    for frame, number in regions:
        _draw_frame(drawn, frame, region_color(number), line)
    taken: list[_Rectangle] = []
    for frame, number in reversed(regions):  # the smallest boxes have the fewest places to choose from
        chip = _chip(str(number), region_color(number), line)
        place = _place_for(chip.size, frame, image.size, taken)
        drawn.paste(chip, (place.left, place.top), mask=chip)
        taken.append(place)
    return drawn


def line_of(size: tuple[int, int]) -> int:
    """Return the width of a box's line, in pixels, in an image of a size, (width, height)."""
    return max(MIN_LINE, round(math.sqrt(size[0] * size[1]) / SIDE_PER_LINE))


def _edge(line: int) -> int:
    return max(1, round(line * EDGE_PER_LINE))


def _frame(box: Sequence[float], size: tuple[int, int], line: int) -> _Rectangle:
    """Return the outer border of the line and its edges around a box, inside the image."""
    out = line + 2 * _edge(line)
    left, top, right, bottom = (round(value) for value in box)
    return _Rectangle(
        max(left - out, 0),
        max(top - out, 0),
        min(max(right, left + 1) + out, size[0]),
        min(max(bottom, top + 1) + out, size[1]),
    )


def _draw_frame(image: Image.Image, frame: _Rectangle, color: str, line: int) -> None:
    canvas = ImageDraw.Draw(image)
    edge = _edge(line)
    inset = 0
    for width, paint in ((edge, "white"), (line, color), (edge, "white")):
        left, top = frame.left + inset, frame.top + inset
        right, bottom = frame.right - inset - 1, frame.bottom - inset - 1  # Pillow's corners are inclusive
        if right < left or bottom < top:
            return
        canvas.rectangle((left, top, right, bottom), outline=paint, width=width)
        inset += width


def _chip(text: str, color: str, line: int) -> Image.Image:
    """Draw white text on a rounded chip with a white edge, as RGBA."""
    font_size = FONT_PER_LINE * line * SUPERSAMPLING
    font = ImageFont.load_default(font_size)
    stroke = round(font_size * STROKE_PER_FONT)
    edge = _edge(line) * SUPERSAMPLING
    padding = round(font_size * PADDING_PER_FONT) + edge
    # All digits are equally high, so chips of all numbers are too; "0" measures it.
    _, digit_top, _, digit_bottom = font.getbbox("0", stroke_width=stroke)
    text_left, _, text_right, _ = font.getbbox(text, stroke_width=stroke)
    height = round(digit_bottom - digit_top) + 2 * padding
    width = max(round(text_right - text_left) + 2 * padding, height)
    chip = Image.new("RGBA", (width, height), (255, 255, 255, 0))
    canvas = ImageDraw.Draw(chip)
    radius = height // 3
    canvas.rounded_rectangle((0, 0, width - 1, height - 1), radius, fill="white")
    canvas.rounded_rectangle((edge, edge, width - 1 - edge, height - 1 - edge), radius - edge, fill=color)
    origin = ((width - text_left - text_right) / 2, (height - digit_top - digit_bottom) / 2)
    canvas.text(origin, text, fill="white", font=font, stroke_width=stroke, stroke_fill="white")
    return chip.resize((max(width // SUPERSAMPLING, 1), max(height // SUPERSAMPLING, 1)), Image.Resampling.BOX)


def _place_for(
    chip: tuple[int, int], frame: _Rectangle, size: tuple[int, int], taken: Sequence[_Rectangle]
) -> _Rectangle:
    """Find where a chip covers least of the box and the other chips: above or below a corner, beside it, or inside."""
    width, height = chip
    left, top, right, bottom = frame
    corners = [
        (left, top - height), (right - width, top - height),
        (left, bottom), (right - width, bottom),
        (left - width, top), (right, top),
        (left, top), (right - width, top), (left, bottom - height), (right - width, bottom - height),
    ]  # fmt: skip
    places = []
    for x, y in corners:
        x, y = max(min(x, size[0] - width), 0), max(min(y, size[1] - height), 0)
        places.append(_Rectangle(x, y, x + width, y + height))
    # A hidden number is worse than a covered part of a box, and covering a little of a box is as good as nothing. Among
    # equal places, the first wins.
    spared = round(width * height * SPARED_OVERLAP)
    return min(
        places,
        key=lambda place: (sum(place.overlap(other) for other in taken), max(place.overlap(frame) - spared, 0)),
    )


def region_color(number: int) -> str:
    """Return the hex colour of region `number` (1-based); colours repeat after ten regions."""
    return REGION_COLORS[(number - 1) % len(REGION_COLORS)]
