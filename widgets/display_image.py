"""An image for the browser: upright, of a limited size, as PNG or JPEG bytes."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

# Half a notebook's width shows no more, even on a screen with two pixels per point.
MAX_SIDE = 1280
# A tiny image is magnified: its pixels would be too coarse a grid to draw boxes on.
MIN_SIDE = 320
# Up to this size PNG files stay small; they show rendered images without JPEG's halos.
PNG_PIXELS = 512 * 512
JPEG_QUALITY = 90


@dataclass(frozen=True)
class DisplayImage:
    """The image that is shown.

    Attributes:
        data: a PNG or JPEG file.
        width, height: of the shown image.
        scale: pixels of the shown image per pixel of the original.
    """

    data: bytes
    width: int
    height: int
    scale: float


def display_image(image: Image.Image) -> DisplayImage:
    """Make the image to show for an upright RGB image, which is not changed."""
    longest = max(image.size)
    scale = 1.0
    if longest > MAX_SIDE:
        scale = MAX_SIDE / longest
    elif longest < MIN_SIDE:
        scale = float(-(-MIN_SIDE // longest))
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    if size != image.size:
        method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
        image = image.resize(size, method)
    return DisplayImage(encode(image), *size, scale)


def drawing_url(image: Image.Image, shown: DisplayImage) -> tuple[str, int]:
    """Make an SVG of the original's size, for the box widget, which counts in whole pixels of what it shows.

    Returns:
        A `data:` URL, and its pixels per pixel of the original: 1, or more for a tiny image.
    """
    scale = max(round(shown.scale), 1)
    size = f'width="{image.width * scale}" height="{image.height * scale}"'
    kind = "png" if shown.data.startswith(b"\x89PNG") else "jpeg"
    data = base64.b64encode(shown.data).decode()
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}><image {size} preserveAspectRatio="none" '
        f'href="data:image/{kind};base64,{data}"/></svg>'
    )
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode(), scale


def encode(image: Image.Image) -> bytes:
    """Encode a small image as a PNG file, a larger one as a JPEG file."""
    stream = io.BytesIO()
    if image.width * image.height <= PNG_PIXELS:
        image.save(stream, "PNG")
    else:
        image.save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()
