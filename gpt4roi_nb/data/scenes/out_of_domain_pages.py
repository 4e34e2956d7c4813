"""Images of writing. `page`, `chart` and `screen` draw (size, size, 3) float in [0, 1]."""

from __future__ import annotations

import string
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gpt4roi_nb.data.scenes.out_of_domain_textures import mapped, natural, smooth

Colour = tuple[int, int, int]


def paper(rng: np.random.Generator, size: int) -> Image.Image:
    """Draw paper, plain or shaded, light or dark; or a texture."""
    kind = rng.random()
    if kind < 0.5:
        level = rng.uniform(0.85, 1) if rng.random() < 0.7 else rng.uniform(0, 0.3)
        image = np.full((size, size, 3), level) * rng.uniform(0.9, 1, 3)
    elif kind < 0.75:
        image = np.broadcast_to(rng.uniform(0, 1, 3), (size, size, 3))
    else:
        image = mapped(rng, natural(rng, size) if rng.random() < 0.5 else smooth(rng, size, 2))
    return to_image(image)


def any_colour(rng: np.random.Generator) -> Colour:
    """Draw red, green and blue from 0 to 255."""
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def to_image(image: np.ndarray) -> Image.Image:
    """Turn (H, W, 3) float in [0, 1] into an image to draw on."""
    return Image.fromarray((image.clip(0, 1) * 255).astype(np.uint8))


def to_array(image: Image.Image) -> np.ndarray:
    """Turn an image into (H, W, 3) float32 in [0, 1]."""
    return np.asarray(image, np.float32) / 255


def _text(rng: np.random.Generator) -> str:
    letters = np.array(list(string.ascii_letters + string.digits + ".,;:!?-"))
    return "".join(rng.choice(letters, int(rng.integers(1, 11))))


def page(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw lines of writing, small or large, dark on light or light on dark."""
    image = paper(rng, size)
    draw = ImageDraw.Draw(image)
    height = max(6, round(size * 10 ** rng.uniform(-1.5, -0.5)))
    font, ink = ImageFont.load_default(height), any_colour(rng)
    left, right = sorted((rng.uniform(-0.1, 0.3) * size, rng.uniform(0.6, 1.2) * size))
    y = rng.uniform(-0.5, 1) * height
    while y < size:
        x = left
        while x < right:
            word = _text(rng)
            draw.text((x, y), word, fill=ink, font=font)
            x += font.getlength(word + " ")
            if rng.random() < 0.06:
                break
        y += height * rng.uniform(1.0, 1.8)
    return to_array(image)


def chart(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw bars, lines, points or a pie, with axes and writing."""
    image = Image.new("RGB", (size, size), (255, 255, 255) if rng.random() < 0.7 else any_colour(rng))
    draw = ImageDraw.Draw(image)
    font, margin, number = ImageFont.load_default(max(6, size // 28)), size * 0.12, int(rng.integers(3, 14))
    values, palette = rng.uniform(0.05, 1, number), [any_colour(rng) for _ in range(number)]
    inner = size - 2 * margin
    kind = int(rng.integers(4))
    if kind == 3:
        ends = 360 * np.cumsum(values / values.sum())
        for start, end, fill in zip([0, *ends], ends, palette, strict=False):
            draw.pieslice((margin, margin, size - margin, size - margin), start, end, fill=fill)
    else:
        for k in range(1, 6):
            y = margin + inner * k / 6
            draw.line((margin, y, size - margin, y), fill=(200, 200, 200))
            draw.text((2, y - 4), _text(rng)[:3], fill=(0, 0, 0), font=font)
        draw.line((margin, margin, margin, size - margin, size - margin, size - margin), fill=(0, 0, 0))
    for line in range(int(rng.integers(1, 4)) if kind < 3 else 0):
        values = rng.uniform(0.05, 1, number * (1 if kind == 0 else 4))
        xs = margin + inner * (np.arange(len(values)) + 0.5) / len(values)
        ys = size - margin - inner * values
        if kind == 0:
            for x, y in zip(xs, ys, strict=True):
                draw.rectangle((x - inner / number / 3, y, x + inner / number / 3, size - margin), fill=palette[line])
        elif kind == 1:
            draw.line(list(zip(xs.tolist(), ys.tolist(), strict=True)), fill=palette[line], width=max(1, size // 120))
        else:
            for x, y in zip(xs, ys, strict=True):
                draw.ellipse((x - size / 80, y - size / 80, x + size / 80, y + size / 80), fill=palette[line])
    draw.text((margin, 2), " ".join(_text(rng) for _ in range(3)), fill=(0, 0, 0), font=font)
    return to_array(image)


def screen(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw windows, buttons and bars with writing."""
    image = paper(rng, size)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(6, size // 24))
    for _ in range(int(rng.integers(2, 10))):
        x, y, width, height = rng.uniform(0, 0.9, 4) * size
        draw.rectangle((x, y, x + width, y + height), fill=any_colour(rng), outline=any_colour(rng))
        draw.rectangle((x, y, x + width, y + size / 16), fill=any_colour(rng))
        for row in range(int(rng.integers(0, 8))):
            draw.text(
                (x + 4, y + row * size / 18), " ".join(_text(rng) for _ in range(3)), fill=any_colour(rng), font=font
            )
    return to_array(image)


PAGES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    function.__name__: function for function in (page, chart, screen)
}
