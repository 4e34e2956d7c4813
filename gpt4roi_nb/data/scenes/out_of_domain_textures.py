"""Images without objects: noise, gradients, textures, patterns. `TEXTURES` draw (size, size, 3) float in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image


def colours(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw (count, 3) float: any colours, or one hue in several brightnesses."""
    if rng.random() < 0.5:
        return rng.uniform(0, 1, (count, 3))
    return np.clip(
        rng.uniform(0.2, 1, 3) * np.linspace(0.15, 1.3, count)[:, None] + rng.normal(0, 0.05, (count, 3)), 0, 1
    )


def mapped(rng: np.random.Generator, values: np.ndarray, stops: int | None = None) -> np.ndarray:
    """Colour values (S, S) in [0, 1] by a random scale of `stops` colours → (S, S, 3)."""
    scale = colours(rng, stops or int(rng.integers(2, 6)))
    places = np.linspace(0, 1, len(scale))
    return np.stack([np.interp(values, places, scale[:, k]) for k in range(3)], axis=-1)


def normal(values: np.ndarray) -> np.ndarray:
    """Stretch values to [0, 1]."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / max(high - low, 1e-9)


def smooth(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Draw (size, size) float in [0, 1] that changes slowly, with about `cells` hills along a side."""
    small = Image.fromarray(rng.uniform(0, 1, (cells + 2, cells + 2)).astype(np.float32))
    return normal(np.asarray(small.resize((size, size), Image.Resampling.BICUBIC)))


def natural(rng: np.random.Generator, size: int, power: float | None = None) -> np.ndarray:
    """Draw (size, size) float in [0, 1] with a natural spectrum: the higher a frequency, the weaker it is."""
    y, x = np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij")
    stretch = rng.uniform(0.4, 1) if rng.random() < 0.4 else 1.0  # fur, grass, water
    frequency = np.sqrt((y * stretch) ** 2 + x**2) + 1 / size
    spectrum = np.fft.rfft2(rng.normal(size=(size, size))) * frequency ** -(power or rng.uniform(0.8, 2.2))
    return normal(np.fft.irfft2(spectrum, (size, size)))


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of each pixel, (size, size) float in [-1, 1]."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    return x, y


def noise(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw independent values, grey or coloured, in pixels or blocks; or specks on a plain background."""
    side = max(2, size // int(rng.integers(1, 24)))
    shape = (side, side, 3 if rng.random() < 0.6 else 1)
    kind = int(rng.integers(3))
    values = rng.uniform(0, 1, shape) if kind == 0 else rng.normal(0.5, 0.25, shape)
    if kind == 2:
        values = np.where(rng.random(shape) < rng.uniform(0.02, 0.3), values, rng.uniform(0, 1, 3))
    values = np.broadcast_to(values, (side, side, 3)).clip(0, 1)
    index = np.arange(size) * side // size
    return values[index][:, index]


def clouds(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a natural-looking texture on one scale of colours."""
    return mapped(rng, natural(rng, size))


def coloured_clouds(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a natural-looking texture whose colour channels are independent."""
    return np.stack([natural(rng, size) for _ in range(3)], axis=-1)


def gradient(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a plain colour, or one that changes along a line or around a point."""
    x, y = grid(size)
    angle, (cx, cy) = rng.uniform(0, 2 * np.pi), rng.uniform(-1, 1, 2)
    kinds = (x * np.cos(angle) + y * np.sin(angle), np.hypot(x - cx, y - cy), np.arctan2(y - cy, x - cx), 0 * x)
    return mapped(rng, normal(kinds[int(rng.integers(4))]))


def waves(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw stripes, rings, plaids or moirés, bent or straight."""
    x, y = grid(size)
    total = np.zeros((size, size))
    bend = rng.uniform(0, 0.4) * smooth(rng, size, 3)
    for _ in range(int(rng.integers(1, 4))):
        angle, count = rng.uniform(0, np.pi), rng.uniform(2, 30)
        along = np.hypot(x - rng.uniform(-1, 1), y) if rng.random() < 0.25 else x * np.cos(angle) + y * np.sin(angle)
        total += np.sin(np.pi * count * (along + bend))
    values = normal(total)
    return mapped(rng, (values > 0.5).astype(float) if rng.random() < 0.4 else values)


def checks(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a chessboard, bricks or tiles, with or without lines between them."""
    across, down = rng.integers(2, 20, 2)
    shift = rng.choice((0.0, 0.5))
    rows, columns = np.mgrid[0:size, 0:size] / size
    v = rows * down
    u = columns * across + shift * (np.floor(v) % 2)
    cell = (np.floor(u) * 7 + np.floor(v) * 13).astype(int)
    palette = colours(rng, int(rng.integers(2, 7)))
    image = palette[((np.floor(u) + np.floor(v)).astype(int) if rng.random() < 0.5 else cell) % len(palette)]
    if rng.random() < 0.5:
        joint = (u % 1 < 0.08) | (v % 1 < 0.08)
        image = np.where(joint[..., None], colours(rng, 1)[0], image)
    return image * (0.7 + 0.3 * natural(rng, size))[..., None]


def cells(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a mosaic of the regions nearest to scattered points: stones, scales, leather, cells under a microscope."""
    from scipy.spatial import KDTree

    count = int(rng.integers(8, 90))
    points = rng.uniform(-1.1, 1.1, (count, 2))
    x, y = grid(size)
    ways, nearest = KDTree(points).query(np.stack([x, y], axis=-1), k=2)
    border = normal(ways[..., 1] - ways[..., 0])
    image = colours(rng, count)[nearest[..., 0]] if rng.random() < 0.6 else mapped(rng, normal(ways[..., 0]))
    return image * np.clip(border * rng.uniform(2, 12), rng.uniform(0, 1), 1)[..., None]


def contours(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a map: bands of height, with or without lines between them."""
    height = natural(rng, size, rng.uniform(1.6, 2.6)) * rng.integers(4, 16)
    image = mapped(rng, normal(np.floor(height)))
    lines = (height % 1 < 0.1) & (rng.random() < 0.6)
    return np.where(lines[..., None], rng.uniform(0, 0.4), image)


def fractal(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a Julia set."""
    x, y = grid(size)
    z = (x + 1j * y) * rng.uniform(0.6, 1.6)
    c = 0.7885 * np.exp(1j * rng.uniform(0, 2 * np.pi))
    steps = np.zeros((size, size))
    for _ in range(40):
        inside = np.abs(z) < 2
        z = np.where(inside, z**2 + c, z)
        steps += inside
    return mapped(rng, normal(np.log1p(steps)))


def sky(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw stars of several sizes and a few nebulae on black."""
    image = 0.25 * mapped(rng, natural(rng, size, 1.8)) * rng.uniform(0, 1)
    x, y = grid(size)
    for _ in range(int(rng.integers(20, 120))):
        cx, cy = rng.uniform(-1, 1, 2)
        width = 10 ** rng.uniform(-2.4, -1.1)
        flat = rng.uniform(0.3, 1) if width > 0.03 else 1
        light = np.exp(-((x - cx) ** 2 + ((y - cy) / flat) ** 2) / width**2)
        image = image + rng.uniform(0.3, 1.2) * light[..., None] * rng.uniform(0.6, 1, 3)
    return image.clip(0, 1)


def blobs(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw lights out of focus: soft or sharp-edged round spots of any colour on a soft background."""
    image = mapped(rng, smooth(rng, size, 3))
    x, y = grid(size)
    hardness = rng.uniform(2, 30)
    for _ in range(int(rng.integers(3, 40))):
        cx, cy = rng.uniform(-1.1, 1.1, 2)
        radius = 10 ** rng.uniform(-1.6, -0.3)
        share = rng.uniform(0.2, 0.9) / (
            1 + np.exp(np.clip(hardness * (np.hypot(x - cx, y - cy) / radius - 1), -30, 30))
        )
        image = image * (1 - share[..., None]) + share[..., None] * rng.uniform(0, 1, 3)
    return image


TEXTURES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    function.__name__: function
    for function in (noise, clouds, coloured_clouds, gradient, waves, checks, cells, contours, fractal, sky, blobs)
}
