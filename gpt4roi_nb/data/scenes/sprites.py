"""Trace each solid once: what it looks like from the camera, and the shadow that it casts on the table.

A parallel camera looks down at an angle, so a solid looks the same wherever it stands, and `render.py` only has to
colour and place what is traced here. World frame: x to the right, y away from the viewer, z up; the table is z = 0.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from gpt4roi_nb.data.scenes.shapes import ANGLES, BOUND_CENTRE_Z, BOUND_RADIUS, SOLIDS, Solid

ELEVATION = math.radians(40.0)  # of the camera above the table

VIEW = np.array([0.0, math.cos(ELEVATION), -math.sin(ELEVATION)], np.float32)  # direction of sight
UP = np.array([0.0, math.sin(ELEVATION), math.cos(ELEVATION)], np.float32)  # the image's upward direction

SUPERSAMPLES = 3  # rays per pixel, along each axis
MAX_STEPS = 64
HIT_DISTANCE = 0.004
SURE = 0.002  # margin on distances, so that rounding never matters

# Where the lamp may stand: bearing from the viewer's direction, in degrees (negative: left), at one height.
LAMP_BEARINGS = (-85.0, -60.0, -35.0, 35.0, 60.0, 85.0)
LAMP_HEIGHT = math.radians(48.0)
SHADOW_STEPS = 26
SHADOW_SOFTNESS = 5.0  # smaller is softer
SHADOW_START = 0.25  # distance along the ray at which a shadow begins to soften
SHADOW_REACH = 3.0  # half-width, in the solid's units, of the table patch that a solid can darken
SHADOW_GRID = 96  # columns of that patch when traced; it is enlarged smoothly


@dataclass(frozen=True, eq=False)  # hashable by identity, so that results can be cached
class Sprite:
    """One solid at one angle and scale: its covered pixels as flat arrays of M entries.

    rows, cols: int32, relative to the pixel at which the solid's centre stands on the table. alpha: float32, coverage
    in (0, 1]. normals: (3, M) float32. points: (3, M) float32 in the solid's own frame. places: the same points turned
    into the world's frame, relative to the solid's foot. openness: float32, share of the surroundings that the surface
    sees. box: (top, left, bottom, right), relative, ends exclusive, of the pixels that are at least half covered. area:
    the number of those.
    """

    rows: np.ndarray
    cols: np.ndarray
    alpha: np.ndarray
    normals: np.ndarray
    points: np.ndarray
    places: np.ndarray
    openness: np.ndarray
    box: tuple[int, int, int, int]
    area: int


class Traces(NamedTuple):
    """What was traced: sprites by shape, angle index and pixels per unit; shadow grids by shape, angle index, lamp."""

    sprites: dict[tuple[str, int, float], Sprite]
    shadows: dict[tuple[str, int, int], tuple[np.ndarray, np.ndarray]]


_kept = Traces({}, {})  # of this process


def traces(shape: str, angle_index: int, pixels: Iterable[float]) -> Traces:
    """Trace one solid at one angle completely, for other processes to `keep`. pixels: scales, in pixels per unit."""
    sprites = {(shape, angle_index, size): trace_sprite(shape, angle_index, size) for size in pixels}
    lamps = range(len(LAMP_BEARINGS))
    return Traces(sprites, {(shape, angle_index, lamp): _shadow_grid(shape, angle_index, lamp) for lamp in lamps})


def keep(traced: Traces) -> None:
    """Use what another process has traced."""
    _kept.sprites.update(traced.sprites)
    _kept.shadows.update(traced.shadows)


def lamp_direction(lamp: int) -> np.ndarray:
    """Return the unit vector (3,) float32 towards lamp number `lamp`."""
    bearing = math.radians(LAMP_BEARINGS[lamp])
    flat = math.cos(LAMP_HEIGHT)
    return np.array([math.sin(bearing) * flat, -math.cos(bearing) * flat, math.sin(LAMP_HEIGHT)], np.float32)


def _rotated(points: np.ndarray, angle: float) -> np.ndarray:
    """Points (3, M) turned by `angle` about z."""
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return np.stack([cos * points[0] - sin * points[1], sin * points[0] + cos * points[1], points[2]])


def _bounded(origins: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(indices of the rays that meet the bounding sphere, where they enter it, where they leave it)."""
    offset = origins - np.array([[0.0], [0.0], [BOUND_CENTRE_Z]], np.float32)
    along = (offset * direction[:, None]).sum(0)
    inside = along**2 - (offset**2).sum(0) + BOUND_RADIUS**2
    active = np.flatnonzero(inside > 0)
    reach = np.sqrt(inside[active])
    return active, (-along[active] - reach).astype(np.float32), -along[active] + reach


def _passes_near(solid: Solid, origins: np.ndarray, direction: np.ndarray, distance: float) -> np.ndarray:
    """(M,) bool: False for rays that are certain to stay farther than `distance` from a solid in its bounding sphere.

    A solid's value changes by no more than the length of a step, so a ray can step until the value could be `distance`.
    """
    active, travelled, end = _bounded(origins, direction)
    near = np.zeros(origins.shape[1], bool)
    for _ in range(MAX_STEPS):
        room = solid(origins[:, active] + travelled * direction[:, None]) - distance
        close = room < SURE
        near[active[close]] = True
        keep = ~close & (travelled < end)
        active, end = active[keep], end[keep]
        travelled = travelled[keep] + room[keep]
        if not active.size:
            break
    near[active] = True
    return near


def _march(solid: Solid, origins: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Follow parallel rays to a solid: (hit (M,) bool, points (3, M) float32 where they end)."""
    active, travelled, end = _bounded(origins, direction)
    hit = np.zeros(origins.shape[1], bool)
    points = np.zeros_like(origins)
    origins = origins[:, active]
    for _ in range(MAX_STEPS):
        here = origins + travelled * direction[:, None]
        distance = solid(here)
        found = distance < HIT_DISTANCE
        arrived = np.flatnonzero(found)
        hit[active[arrived]] = True
        points[:, active[arrived]] = np.take(here, arrived, axis=1)
        going = np.flatnonzero(~found & (travelled < end))
        travelled = travelled + distance  # which may be float64
        if going.size < active.size:
            active, end, travelled = active[going], end[going], travelled[going]
            origins = np.take(origins, going, axis=1)
        if not active.size:
            break
    return hit, points


def _gradient(solid: Solid, points: np.ndarray) -> np.ndarray:
    """Unit surface normals (3, M) float32 from four samples of the distance around each point."""
    corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)
    normal = np.zeros_like(points)
    for corner in corners:
        normal += corner[:, None] * solid(points + corner[:, None] * 0.006)
    return normal / np.maximum(np.sqrt((normal**2).sum(0)), 1e-6)


def _openness(solid: Solid, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(M,) float32 in [0, 1]: how little the solid and the table crowd each surface point."""
    crowding = np.zeros(points.shape[1], np.float32)
    for step, weight in ((0.12, 1.6), (0.3, 0.9), (0.6, 0.45)):
        probe = points + normals * step
        nearest = np.minimum(solid(probe), probe[2])
        crowding += weight * np.maximum(step - nearest, 0)
    return np.clip(1 - crowding, 0.15, 1)


def _origins(heights: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """(3, rows · columns) float32: a grid of points in the plane perpendicular to the direction of sight."""
    v, u = (grid.ravel() for grid in np.meshgrid(heights, cols, indexing="ij"))
    origins = UP[:, None] * v
    origins[0] = u
    return origins


def trace_sprite(shape: str, angle_index: int, pixels: float) -> Sprite:
    """Trace one solid, once. pixels: the number of pixels per unit of the solid."""
    key = (shape, angle_index, pixels)
    if key not in _kept.sprites:
        _kept.sprites[key] = _sprite(*key)
    return _kept.sprites[key]


def _sprite(shape: str, angle_index: int, pixels: float) -> Sprite:
    solid = SOLIDS[shape]
    angle = ANGLES[shape][angle_index]
    side = math.ceil(1.35 * pixels)
    above, below = math.ceil((2.0 * UP[2] + 0.75) * pixels), math.ceil(0.95 * pixels)
    fine = SUPERSAMPLES
    cols: np.ndarray = (np.arange(-side * fine, side * fine, dtype=np.float32) + 0.5) / (fine * pixels)
    heights: np.ndarray = -(np.arange(-above * fine, below * fine, dtype=np.float32) + 0.5) / (fine * pixels)
    view = _rotated(VIEW[:, None], -angle)[:, 0]
    # Most rays miss. The middle ray of a pixel tells whether any of the pixel's rays can hit.
    middle = _rotated(_origins(heights[fine // 2 :: fine], cols[fine // 2 :: fine]), -angle)
    beside = math.hypot(fine // 2, fine // 2) / (fine * pixels)
    near = _passes_near(solid, middle, view, beside + HIT_DISTANCE).reshape(above + below, 2 * side)
    within = [slice(k[0], k[-1] + 1) for k in (np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0)))]
    near, (top, left) = near[*within], (part.start for part in within)
    heights, cols = heights.reshape(-1, fine)[within[0]].ravel(), cols.reshape(-1, fine)[within[1]].ravel()
    rays = np.flatnonzero(np.repeat(np.repeat(near, fine, 0), fine, 1))
    hit, points = _march(solid, _rotated(_origins(heights, cols)[:, rays], -angle), view)
    own = points[:, hit]
    normals = _gradient(solid, own)
    channels = np.zeros((8, near.size * fine * fine), np.float32)
    where = rays[hit]
    channels[0, where] = 1
    channels[1:4, where] = _rotated(normals, angle)
    channels[4:7, where] = own
    channels[7, where] = _openness(solid, own, normals)
    rows, columns = near.shape
    channels = channels.reshape(8, rows, fine, columns, fine).mean((2, 4)).reshape(8, -1)
    covered = np.flatnonzero(channels[0] > 0)
    alpha = channels[0, covered]
    rest = channels[1:, covered] / alpha
    row, col = (covered // columns + top - above).astype(np.int32), (covered % columns + left - side).astype(np.int32)
    firm = alpha >= 0.5
    box = (int(row[firm].min()), int(col[firm].min()), int(row[firm].max()) + 1, int(col[firm].max()) + 1)
    unit = rest[:3] / np.maximum(np.sqrt((rest[:3] ** 2).sum(0)), 1e-6)
    return Sprite(row, col, alpha, unit, rest[3:6], _rotated(rest[3:6], angle), rest[6], box, int(firm.sum()))


def _shaded(ground: np.ndarray, ray: np.ndarray) -> np.ndarray:
    """Indices of the points (3, M) that a solid can darken, by the distance of their rays from the bounding sphere.

    A point is darkened if, at a length t of its ray, the distance is less than `(t + SHADOW_START) / SHADOW_SOFTNESS`.
    """
    offset = ground - np.array([[0.0], [0.0], [BOUND_CENTRE_Z]], np.float32)
    nearest = -(offset * ray).sum(0)  # length of the ray up to its point nearest to the sphere's centre
    beside = np.sqrt(np.maximum((offset**2).sum(0) - nearest**2, 0))
    # Where distance and threshold differ least: the slope of the distance is that of the threshold.
    slope = 1 / SHADOW_SOFTNESS
    way = np.maximum(nearest + beside * slope / math.sqrt(1 - slope**2), 0)
    distance = np.sqrt(beside**2 + (way - nearest) ** 2) - BOUND_RADIUS
    return np.flatnonzero(distance < (way + SHADOW_START) * slope + SURE)


def _shadow_grid(shape: str, angle_index: int, lamp: int) -> tuple[np.ndarray, np.ndarray]:
    """(lamplight, ambient light), each (rows, SHADOW_GRID) float32 in [0, 1], on the table around one solid."""
    solid, angle = SOLIDS[shape], ANGLES[shape][angle_index]
    columns, rows = SHADOW_GRID, round(SHADOW_GRID * UP[1])
    x = ((np.arange(columns, dtype=np.float32) + 0.5) / columns * 2 - 1) * SHADOW_REACH
    y = -((np.arange(rows, dtype=np.float32) + 0.5) / rows * 2 - 1) * SHADOW_REACH
    ground = np.stack([*np.meshgrid(x, y), np.zeros((rows, columns), np.float32)]).reshape(3, -1)
    ground = _rotated(ground, -angle)
    ray = _rotated(lamp_direction(lamp)[:, None], -angle)
    near = solid(ground)
    ambient = 1 - 0.75 * np.square(np.clip(1 - near / 0.7, 0, 1))
    lit = np.ones_like(near)
    active = _shaded(ground, ray)
    start = ground[:, active]
    travelled = np.full(active.size, 0.03, np.float32)
    for _ in range(SHADOW_STEPS):
        distance = solid(start + ray * travelled)
        lit[active] = np.minimum(lit[active], 0.5 + 0.5 * SHADOW_SOFTNESS * distance / (travelled + SHADOW_START))
        travelled += np.clip(distance, 0.05, 0.4)
    lit = np.clip(lit, 0, 1)
    lit = lit * lit * (3 - 2 * lit)
    return lit.reshape(rows, columns), ambient.reshape(rows, columns)


@cache
def trace_shadow(shape: str, angle_index: int, lamp: int, pixels: float) -> tuple[np.ndarray, np.ndarray]:
    """Return shares of (lamplight, ambient light), each (2a, 2b) float32, on the table patch around a solid's foot."""
    key = (shape, angle_index, lamp)
    if key not in _kept.shadows:
        _kept.shadows[key] = _shadow_grid(*key)
    half_cols = round(SHADOW_REACH * pixels)
    half_rows = round(SHADOW_REACH * pixels * UP[1])
    lamplight, ambient = (
        np.asarray(Image.fromarray(grid).resize((2 * half_cols, 2 * half_rows), Image.Resampling.BICUBIC))
        for grid in _kept.shadows[key]
    )
    return np.clip(lamplight, 0, 1), np.clip(ambient, 0, 1)
