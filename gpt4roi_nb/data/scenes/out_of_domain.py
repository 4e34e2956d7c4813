"""Images that are not of this world, drawn by rules, so that a model can learn what it does not know.

`out_of_domain_image` draws one of any family: noise, textures, patterns, drawings, charts, pages, landscapes, faces,
collages … The families are in `out_of_domain_textures`, `out_of_domain_pages` and `out_of_domain_drawings`. Nothing is
copied from a collection of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from PIL import Image, ImageFilter

from gpt4roi_nb.data.scenes.out_of_domain_drawings import DRAWINGS
from gpt4roi_nb.data.scenes.out_of_domain_pages import PAGES
from gpt4roi_nb.data.scenes.out_of_domain_textures import TEXTURES, smooth

LEAST_SIZE = 32  # pixels
Family = Callable[[np.random.Generator, int], np.ndarray]
COLLAGE_SHARE = 0.07
GREY_SHARE, TINT_SHARE, BLUR_SHARE, GRAIN_SHARE, SHADE_SHARE = 0.25, 0.25, 0.2, 0.3, 0.3
FAMILIES: dict[str, Family] = {**TEXTURES, **PAGES, **DRAWINGS}


def out_of_domain_image(rng: np.random.Generator, size: int = 336) -> np.ndarray:
    """Draw an image that is not of this world.

    Args:
        rng: decides everything.
        size: side in pixels, at least `LEAST_SIZE`.

    Returns:
        The image, (size, size, 3) uint8 RGB.

    Raises:
        ValueError: the size is too small.

    Example:
        >>> out_of_domain_image(np.random.default_rng(0), 64).shape
        (64, 64, 3)
    """
    if size < LEAST_SIZE:
        raise ValueError(f"size must be at least {LEAST_SIZE} pixels; got {size}")
    image = _collage(rng, size) if rng.random() < COLLAGE_SHARE else _one(rng, size)
    return finish(rng, image)


def out_of_domain_images(seed: int, count: int, *, size: int = 336) -> Iterator[np.ndarray]:
    """Yield `count` images of the series `seed`, in order, each as `out_of_domain_image` draws it."""
    for index in range(count):
        yield out_of_domain_image(np.random.default_rng((seed, index)), size)


def _one(rng: np.random.Generator, size: int) -> np.ndarray:
    names = list(FAMILIES)
    return FAMILIES[names[int(rng.integers(len(names)))]](rng, size)


def _collage(rng: np.random.Generator, size: int) -> np.ndarray:
    """Several images side by side, with or without a margin."""
    rows, columns = (int(number) for number in rng.integers(1, 4, 2))
    margin = int(rng.integers(0, 1 + size // 40))
    image = np.full((size, size, 3), rng.uniform(0, 1, 3).astype(np.float32))
    ys, xs = (np.linspace(0, size, number + 1).round().astype(int) for number in (rows, columns))
    for top, bottom in pairwise(ys):
        for left, right in pairwise(xs):
            piece = _one(rng, size)[: bottom - top, : right - left]
            image[top + margin : bottom, left + margin : right] = piece[margin:, margin:]
    return image


def finish(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Do to an image by chance what cameras, scanners and time do: grey, tint, contrast, shading, blur, grain, flips.

    image: (S, S, 3) float in [0, 1] → (S, S, 3) uint8.
    """
    size = len(image)
    if rng.random() < GREY_SHARE:
        image = np.repeat(image.mean(2, keepdims=True), 3, axis=2)
    if rng.random() < TINT_SHARE:
        image = image * rng.uniform(0.6, 1.15, 3)
    if rng.random() < SHADE_SHARE:
        image = image * (0.6 + 0.5 * smooth(rng, size, 2))[..., None]
    image = (image - 0.5) * rng.uniform(0.5, 1.2) + rng.uniform(0.4, 0.6)
    if rng.random() < GRAIN_SHARE:
        image = image + rng.normal(0, rng.uniform(0.01, 0.08), (size, size, 1 if rng.random() < 0.5 else 3))
    pixels = (image.clip(0, 1) * 255).round().astype(np.uint8)
    if rng.random() < BLUR_SHARE:
        radius = float(rng.uniform(0.003, 0.015)) * size
        pixels = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))
    for axis in (0, 1):
        if rng.random() < 0.25:
            pixels = np.flip(pixels, axis)
    return np.ascontiguousarray(pixels)
