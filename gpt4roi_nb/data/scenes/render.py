"""The renderer of the generated world: solids on a table under one soft lamp, drawn with NumPy.

`render` colours, lights and composes what `sprites.py` has traced, in linear light, from back to front, and takes the
visible masks from the composition.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from gpt4roi_nb.data.scenes.sprites import ELEVATION, VIEW, Sprite, lamp_direction, trace_shadow, trace_sprite

CANVAS = 336  # side of the image at scale 1, in pixels
PIXELS_PER_UNIT = 42  # at scale 1
ROWS_PER_DEPTH = PIXELS_PER_UNIT * math.sin(ELEVATION)  # rows per unit of y, at scale 1
HORIZON = 40  # row, at scale 1, of the far edge of the table

AMBIENT = 0.45  # share of the light on the table that comes from all directions

# Albedos in linear light. The image's values are square roots of linear ones (gamma 2).
ALBEDO: dict[str, tuple[float, float, float]] = {
    "red": (0.72, 0.03, 0.03),
    "green": (0.05, 0.40, 0.07),
    "blue": (0.03, 0.10, 0.75),
    "yellow": (0.90, 0.70, 0.03),
    "purple": (0.32, 0.05, 0.55),
    "orange": (0.95, 0.26, 0.02),
    "cyan": (0.04, 0.58, 0.66),
    "white": (0.78, 0.78, 0.78),
}


MIRROR_PARALLAX = np.float32(0.5)  # how near the mirrored surroundings are: 0 is infinitely far
MIRROR_CENTRE = np.array([0.0, 0.0, 0.8], np.float32)  # about the middle of every solid
GRAIN_PER_UNIT = 4.0  # year rings per unit: wide enough to be seen on a small thing in an image of 168 pixels
WOOD = np.array([0.55, 0.30, 0.12], np.float32)  # linear albedo of the bare wood


@dataclass(frozen=True)
class Light:
    """The lamp of a scene: index into `LAMP_BEARINGS`, strength (about 1) and linear RGB tint."""

    lamp: int
    strength: float
    tint: tuple[float, float, float]

    @property
    def direction(self) -> np.ndarray:
        """Unit vector (3,) towards the lamp."""
        return lamp_direction(self.lamp)


@dataclass(frozen=True)
class Item:
    """What the renderer needs to know about one object: `col` and `row` are the pixel of its foot at scale 1."""

    shape: str
    angle_index: int
    scale: float
    colour: str
    material: str
    col: int
    row: int


@dataclass(frozen=True)
class Background:
    """Table and wall: linear RGB albedos, and the index of the table's texture."""

    table: tuple[float, float, float]
    wall: tuple[float, float, float]
    texture: int


@cache
def _table_texture(texture: int, scale: int) -> np.ndarray:
    """(H, W) float32 around 1: faint unevenness of the table."""
    side = CANVAS * scale
    rng = np.random.default_rng((20, texture))
    total = np.ones((side, side), np.float32)
    for cells, depth in ((6, 0.05), (24, 0.02), (CANVAS // 2, 0.02)):
        noise = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
        total += depth * np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC))
    return total


@cache
def _lamp_pool(lamp: int, scale: int) -> np.ndarray:
    """(H, W) float32 around 1: the lamp's light falls off away from its side of the table."""
    side = CANVAS * scale
    across = np.linspace(-1, 1, side, dtype=np.float32)
    direction = lamp_direction(lamp)
    x, y = across[None, :] - 0.35 * direction[0], across[:, None] + 0.35 * direction[1]
    return (1.12 - 0.28 * (x * x + y * y)).astype(np.float32)


def _smoothstep(low: float, high: float, value: np.ndarray) -> np.ndarray:
    t = np.clip((value - low) * (1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def _dot(vector: np.ndarray, field: np.ndarray) -> np.ndarray:
    """(M,) products of a vector (3,) with each of (3, M); without BLAS, whose rounding depends on its threads."""
    return vector[0] * field[0] + vector[1] * field[1] + vector[2] * field[2]


class _Mirror(NamedTuple):
    """What a polished sprite mirrors under any lamp: directions (3, M), and (M,) of the rest, all float32."""

    mirrored: np.ndarray
    seen: np.ndarray
    reach: np.ndarray
    brightness: np.ndarray
    rim: np.ndarray


@cache
def _mirror(sprite: Sprite) -> _Mirror:
    facing = -_dot(VIEW, sprite.normals)
    mirrored = VIEW[:, None] + 2 * facing * sprite.normals
    # The surroundings are near, so what a flat face mirrors changes from one of its ends to the other.
    seen = mirrored + MIRROR_PARALLAX * (sprite.places - MIRROR_CENTRE[:, None])
    sky = 0.04 + 1.0 * _smoothstep(0.0, 1.05, seen[2])
    ground = 0.04 + 0.62 * _smoothstep(0.05, -0.95, seen[2])
    reach = np.sqrt(seen[0] ** 2 + seen[1] ** 2 + 0.02)
    rim = np.square(np.square(1 - np.clip(facing, 0, 1)))
    return _Mirror(mirrored, seen, reach, np.maximum(sky, ground), 0.3 * rim)


def _metal(sprite: Sprite, albedo: np.ndarray, light: Light) -> np.ndarray:
    """Polished metal: mirrors bright and dark surroundings, tinted by the albedo, with a white glint of the lamp."""
    mirrored, seen, reach, brightness, rim = _mirror(sprite)
    flat = light.direction[:2] / np.hypot(*light.direction[:2])
    across = (flat[0] * seen[0] + flat[1] * seen[1]) / reach
    panels = 0.35 + 1.25 * _smoothstep(0.35, 0.95, across) + 0.55 * _smoothstep(0.55, 0.95, -across)
    world = brightness * np.where(seen[2] > 0, 0.5 + 0.5 * panels, panels)
    glint = _smoothstep(0.86, 0.95, _dot(light.direction, mirrored))
    gloss = albedo * 0.95 + 0.10 * np.sqrt(albedo) + 0.02
    shade = world * sprite.openness
    colour = gloss[:, None] * (1.25 * shade) + (rim + 0.22 * np.square(np.maximum(shade - 0.55, 0))) * shade
    return colour + 1.6 * light.strength * glint * np.square(sprite.openness)


def _rubber(sprite: Sprite, albedo: np.ndarray, light: Light) -> np.ndarray:
    """Matte rubber: light wraps softly around the form, without a highlight."""
    return albedo[:, None] * _diffuse(sprite, light, wrap=0.25)


@cache
def _year_rings(sprite: Sprite) -> np.ndarray:
    """(M,) float32 in [0, 1]: how dark the wood of a tilted log is."""
    x, y, z = sprite.points
    wobble = 0.05 * np.sin(3.1 * x + 1.7 * z) + 0.03 * np.sin(5.3 * y - 2.3 * x)
    radius = np.sqrt((0.9 * x + 0.45 * z + 1.3) ** 2 + (0.9 * y - 0.35 * z + 0.9) ** 2) + wobble
    phase = radius * GRAIN_PER_UNIT
    year = phase - np.floor(phase)
    return _smoothstep(0.15, 0.80, year) * (1 - _smoothstep(0.86, 1.0, year))  # wood darkens, then the next year begins


def _wooden(sprite: Sprite, albedo: np.ndarray, light: Light) -> np.ndarray:
    """Stained wood: year rings, light and dark, under a faint satin sheen."""
    early, late = 1.05 * albedo + 0.03 * WOOD, 0.26 * albedo + 0.03 * WOOD
    grained = early[:, None] + (late - early)[:, None] * _year_rings(sprite)
    return grained * _diffuse(sprite, light, wrap=0.1)


def _diffuse(sprite: Sprite, light: Light, wrap: float) -> np.ndarray:
    """(M,) light that a matte surface reflects: from the lamp, the sky, and a little from the table below."""
    lamp = np.maximum((_dot(light.direction, sprite.normals) + wrap) * (1 / (1 + wrap)), 0)
    sky = 0.24 + 0.16 * sprite.normals[2]
    return light.strength * 0.95 * lamp * np.sqrt(sprite.openness) + sky * sprite.openness


FINISHES = {"metal": _metal, "rubber": _rubber, "wooden": _wooden}


def _draw_background(items: Sequence[Item], light: Light, background: Background, scale: int) -> np.ndarray:
    """(3, H, W) float32 linear: wall, table, and every shadow on the table."""
    side = CANVAS * scale
    lamplight, ambient = np.ones((side, side), np.float32), np.ones((side, side), np.float32)
    for item in items:
        lit, open_sky = trace_shadow(item.shape, item.angle_index, light.lamp, item.scale * PIXELS_PER_UNIT * scale)
        top, left = item.row * scale - lit.shape[0] // 2, item.col * scale - lit.shape[1] // 2
        rows = slice(max(top, 0), min(top + lit.shape[0], side))
        cols = slice(max(left, 0), min(left + lit.shape[1], side))
        part = (slice(rows.start - top, rows.stop - top), slice(cols.start - left, cols.stop - left))
        np.minimum(lamplight[rows, cols], lit[part], out=lamplight[rows, cols])
        ambient[rows, cols] *= open_sky[part]
    ambient *= AMBIENT
    lamplight *= (1 - AMBIENT) * light.strength
    ambient += lamplight
    ambient *= _lamp_pool(light.lamp, scale)
    ambient *= _table_texture(background.texture, scale)
    canvas = ambient * (np.array(background.table, np.float32) * np.array(light.tint, np.float32))[:, None, None]
    edge = HORIZON * scale
    fade = np.linspace(0.55, 0.85, edge, dtype=np.float32)[:, None]
    canvas[:, :edge] = fade * np.array(background.wall, np.float32)[:, None, None]
    canvas[:, edge : edge + scale] *= 1.25  # the table's far edge catches the light
    return canvas


@cache
def _offsets(shape: str, angle_index: int, item_scale: float, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """A sprite's pixels in the flat image, relative to its foot: (M,) int of all, and of those covered by half."""
    sprite = trace_sprite(shape, angle_index, item_scale * PIXELS_PER_UNIT * scale)
    flat = sprite.rows.astype(np.intp) * (CANVAS * scale) + sprite.cols
    return flat, flat[sprite.alpha >= 0.5]


def render(
    items: Sequence[Item], light: Light, background: Background, scale: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene of side `CANVAS * scale`.

    Args:
        items: the objects; they must lie inside the image.
        light: the lamp.
        background: table and wall.
        scale: whole multiple of `CANVAS`.

    Returns:
        The image, (H, W, 3) uint8 RGB, and labels, (H, W) int8: the index of the item seen at each pixel, -1 for none.
    """
    side = CANVAS * scale
    # One plane per colour: NumPy is fast along rows.
    canvas = _draw_background(items, light, background, scale).reshape(3, -1)
    tint = np.array(light.tint, np.float32)[:, None]
    for index in back_to_front(items):
        item = items[index]
        sprite = trace_sprite(item.shape, item.angle_index, item.scale * PIXELS_PER_UNIT * scale)
        where = _offsets(item.shape, item.angle_index, item.scale, scale)[0] + (item.row * side + item.col) * scale
        albedo = np.array(ALBEDO[item.colour], np.float32)
        colour = FINISHES[item.material](sprite, albedo, light) * tint
        under = np.take(canvas, where, axis=1)
        colour -= under
        colour *= sprite.alpha
        colour += under
        for plane, values in zip(canvas, colour, strict=True):
            plane[where] = values
    np.sqrt(np.clip(canvas, 0, 1, out=canvas), out=canvas)
    canvas *= 255
    canvas += 0.5  # to round, since the cast below truncates
    image = np.empty((side * side, 3), np.uint8)
    for plane, values in zip(image.T, canvas.astype(np.uint8), strict=True):
        plane[:] = values
    return image.reshape(side, side, 3), label_map(items, scale)


def back_to_front(items: Sequence[Item]) -> list[int]:
    """Return the indices of the items in the order in which they are painted."""
    return sorted(range(len(items)), key=lambda index: (items[index].row, index))


def label_map(items: Sequence[Item], scale: int = 1) -> np.ndarray:
    """Return the index of the item that covers at least half of each visible pixel, -1 for none: (H, W) int8."""
    side = CANVAS * scale
    labels = np.full(side * side, -1, np.int8)
    for index in back_to_front(items):
        item = items[index]
        firm = _offsets(item.shape, item.angle_index, item.scale, scale)[1]
        labels[firm + (item.row * side + item.col) * scale] = index
    return labels.reshape(side, side)
