"""Images of things that this world does not have: drawings, landscapes, faces, plants, still lifes.

Each function draws (size, size, 3) float in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import ImageDraw, ImageFilter

from gpt4roi_nb.data.scenes.out_of_domain_pages import any_colour, paper, to_array, to_image
from gpt4roi_nb.data.scenes.out_of_domain_textures import colours, grid, mapped, natural, normal, smooth

Points = list[tuple[float, float]]


def _ring(rng: np.random.Generator, cx: float, cy: float, radius: float, rough: float) -> Points:
    """A closed outline around a point: round, angular or jagged."""
    count = int(rng.integers(3, 40))
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    radii = radius * (1 + rough * rng.uniform(-1, 1, count))
    flat = rng.uniform(0.4, 1.5)
    return [(cx + r * float(np.cos(a)), cy + flat * r * float(np.sin(a))) for a, r in zip(angles, radii, strict=True)]


def _curve(rng: np.random.Generator, size: int) -> Points:
    """A smooth line from one point to another."""
    ends = rng.uniform(-0.1, 1.1, (4, 2)) * size
    t = np.linspace(0, 1, 40)[:, None]
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    return [(float(x), float(y)) for x, y in sum(w * end for w, end in zip(weights, ends, strict=True))]


def line_drawing(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw curves and outlines with a pen or brush."""
    image = paper(rng, size)
    draw = ImageDraw.Draw(image)
    ink, width = any_colour(rng), max(1, round(size * rng.uniform(0.002, 0.02)))
    for _ in range(int(rng.integers(3, 60))):
        if rng.random() < 0.3:
            ink = any_colour(rng)
        if rng.random() < 0.6:
            draw.line(_curve(rng, size), fill=ink, width=width)
        else:
            x, y, radius = rng.uniform(0, 1, 3) * size * (1, 1, 0.3)
            outline = _ring(rng, x, y, radius, 0.3)
            draw.line([*outline, outline[0]], fill=ink, width=width)
    return to_array(image)


def flat_shapes(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a few flat shapes of one colour each: icons, logos, silhouettes, flags."""
    image = paper(rng, size)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 14))):
        x, y, radius = rng.uniform(0.1, 0.9, 3) * size * (1, 1, 0.5)
        fill, edge = any_colour(rng), any_colour(rng) if rng.random() < 0.4 else None
        kind, box = int(rng.integers(4)), (x - radius, y - radius, x + radius, y + radius)
        if kind == 0:
            draw.polygon(_ring(rng, x, y, radius, rng.uniform(0, 0.6)), fill=fill, outline=edge)
        elif kind == 1:
            draw.ellipse(box, fill=fill, outline=edge, width=max(1, size // 60))
        elif kind == 2:
            draw.rectangle(box, fill=fill, outline=edge, width=max(1, size // 60))
        else:
            start, end = sorted(rng.uniform(0, 360, 2).tolist())
            draw.pieslice(box, start, end, fill=fill, outline=edge)
    return to_array(image)


def landscape(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a sky, and hills, water or fields below it, sometimes with houses."""
    rows = np.arange(size)[:, None] / size
    image = mapped(rng, np.broadcast_to(rows, (size, size)), 3) * (0.8 + 0.3 * natural(rng, size, 2))[..., None]
    level = rng.uniform(0.2, 0.6)
    for _ in range(int(rng.integers(1, 6))):
        edge = level + rng.uniform(0.02, 0.25) * (natural(rng, size, rng.uniform(1.2, 2.4))[0] - 0.5)
        if rng.random() < 0.3:  # roofs
            steps = np.repeat(rng.uniform(-0.1, 0.1, size // 8 + 1), int(rng.integers(8, 24)))[:size]
            edge = level + np.resize(steps, size)
        ground = rng.uniform(0, 0.9, 3) * (0.5 + 0.7 * natural(rng, size))[..., None]
        image = np.where((rows > edge[None])[..., None], ground, image)
        level += rng.uniform(0.05, 0.25)
    return image


def city(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw boxes with windows that hide one another: houses, shelves, machines."""
    image = to_image(mapped(rng, np.broadcast_to(np.linspace(0, 1, size)[:, None], (size, size)), 2))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 16))):
        x, y = rng.uniform(-0.1, 0.9, 2) * size
        width, height = rng.uniform(0.1, 0.6, 2) * size
        draw.rectangle((x, y, x + width, size if rng.random() < 0.7 else y + height), fill=any_colour(rng))
        glass, step = any_colour(rng), max(4.0, size * rng.uniform(0.03, 0.1))
        for left in np.arange(x + step / 2, x + width - step / 2, step):
            for top in np.arange(y + step / 2, min(size, y + height), step):
                draw.rectangle((left, top, left + step / 2, top + step / 2), fill=glass)
    return to_array(image) * (0.8 + 0.25 * natural(rng, size))[..., None]


def face(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a person or an animal from the chest up before a blurred background, in random shapes and colours."""
    ground = to_image(mapped(rng, smooth(rng, size, int(rng.integers(1, 6)))))
    draw = ImageDraw.Draw(ground)
    cx, cy, r = size * rng.uniform(0.35, 0.65), size * rng.uniform(0.35, 0.55), size * rng.uniform(0.15, 0.33)
    skin, hair, cloth = any_colour(rng), any_colour(rng), any_colour(rng)
    draw.ellipse((cx - 2.2 * r, cy + 1.1 * r, cx + 2.2 * r, cy + 5 * r), fill=cloth)
    draw.polygon(_ring(rng, cx, cy - 0.3 * r, 1.25 * r, 0.15), fill=hair)
    for side in (-1, 1):
        ear = (cx + side * 0.9 * r, cy - rng.uniform(0, 1.2) * r)
        draw.polygon(_ring(rng, *ear, 0.4 * r, 0.3), fill=hair if rng.random() < 0.5 else skin)
    draw.ellipse((cx - 0.8 * r, cy - r, cx + 0.8 * r, cy + 1.1 * r), fill=skin)
    for side in (-1, 1):
        x, y, w = cx + side * 0.35 * r, cy - 0.15 * r, 0.18 * r
        draw.ellipse((x - w, y - 0.6 * w, x + w, y + 0.6 * w), fill=(250, 250, 250))
        draw.ellipse((x - 0.5 * w, y - 0.5 * w, x + 0.5 * w, y + 0.5 * w), fill=any_colour(rng))
    draw.ellipse((cx - 0.35 * r, cy + 0.5 * r, cx + 0.35 * r, cy + 0.7 * r), fill=any_colour(rng))
    soft = ground.filter(ImageFilter.GaussianBlur(size * float(rng.uniform(0.002, 0.02))))
    light = 0.6 + 0.5 * smooth(rng, size, 2) + 0.2 * (natural(rng, size) - 0.5)
    return to_array(soft) * light[..., None]


def plant(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw lines that branch: a tree, veins, cracks or roots."""
    image = paper(rng, size)
    draw = ImageDraw.Draw(image)
    ink, leaf, spread = any_colour(rng), any_colour(rng), rng.uniform(0.2, 0.8)
    branches = [(rng.uniform(0.2, 0.8) * size, size * 1.0, -np.pi / 2 + rng.normal(0, 0.2), size * 0.22)]
    while branches:
        x, y, angle, length = branches.pop()
        to = (x + length * np.cos(angle), y + length * np.sin(angle))
        draw.line((x, y, *to), fill=ink, width=max(1, round(length / 8)))
        if length < size * 0.04:
            radius = size * 0.015
            draw.ellipse((to[0] - radius, to[1] - radius, to[0] + radius, to[1] + radius), fill=leaf)
            continue
        for _ in range(int(rng.integers(1, 4))):
            branches.append((*to, angle + rng.normal(0, spread), length * rng.uniform(0.55, 0.8)))
    return to_array(image)


def still_life(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw shaded, textured, overlapping lumps, as a camera might see fruit, stones, dishes or coins."""
    image = mapped(rng, smooth(rng, size, 2)) * (0.6 + 0.5 * natural(rng, size))[..., None]
    x, y = grid(size)
    light = rng.normal(size=2)
    biggest = rng.uniform(0.08, 0.8)
    for _ in range(int(rng.integers(1, 30))):
        (cx, cy), radius, angle = rng.uniform(-1, 1, 2), biggest * rng.uniform(0.4, 1), rng.uniform(0, np.pi)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = ((y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)) / rng.uniform(0.4, 1)
        power = rng.choice((1.0, 2.0, 2.0, 4.0))
        inside = (np.abs(u) ** power + np.abs(v) ** power) < radius**power
        shade = 0.6 + 0.35 * (light[0] * u + light[1] * v) / radius / max(float(np.abs(light).sum()), 1e-6)
        skin = (
            mapped(rng, natural(rng, size))
            if rng.random() < 0.5
            else np.broadcast_to(rng.uniform(0, 1, 3), image.shape)
        )
        image = np.where(inside[..., None], skin * shade[..., None], image)
    return image


def scan(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw one bright body on black, with structure in it: a planet, an eye, a section through a body."""
    x, y = grid(size)
    radius, (cx, cy) = rng.uniform(0.4, 0.95), rng.uniform(-0.2, 0.2, 2)
    ways = np.hypot((x - cx) / rng.uniform(0.7, 1), y - cy)
    body = mapped(rng, normal(natural(rng, size, rng.uniform(1.2, 2)) + rng.uniform(0, 1) * ways))
    for _ in range(int(rng.integers(0, 8))):
        (a, b), r = rng.uniform(-0.5, 0.5, 2), rng.uniform(0.05, 0.3)
        body = np.where((np.hypot(x - a, (y - b) / rng.uniform(0.5, 1)) < r)[..., None], rng.uniform(0, 1, 3), body)
    return body * (1 / (1 + np.exp(np.clip((ways - radius) * rng.uniform(10, 80), -30, 30))))[..., None]


def streaks(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw brush strokes all over the image: fur, grass, hay, a painting."""
    image = paper(rng, size)
    draw = ImageDraw.Draw(image)
    palette = [tuple(int(255 * part) for part in one) for one in colours(rng, 6)]
    angle, spread = rng.uniform(0, np.pi), rng.uniform(0.05, 1.5)
    length, width = size * rng.uniform(0.03, 0.2), max(1, round(size * rng.uniform(0.003, 0.03)))
    for _ in range(int(rng.integers(150, 900))):
        x, y, turn = *(rng.uniform(0, 1, 2) * size), angle + rng.normal(0, spread)
        end = (x + length * np.cos(turn), y + length * np.sin(turn))
        draw.line((x, y, *end), fill=palette[int(rng.integers(len(palette)))], width=width)
    return to_array(image)


DRAWINGS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    function.__name__: function
    for function in (
        line_drawing,
        flat_shapes,
        landscape,
        city,
        face,
        plant,
        still_life,
        scan,
        streaks,
    )
}
