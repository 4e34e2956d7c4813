"""The seven solids of the generated world, as signed distance functions.

Each function takes points `(3, M)` float32 in the solid's own frame (unit: half the width of a size-1 solid; z up,
the table at z = 0) and returns `(M,)` float32: negative inside, positive outside, and never more than the true
distance, so that a ray can safely advance by it.
"""

from collections.abc import Callable

import numpy as np

Points = np.ndarray
Distance = np.ndarray
Solid = Callable[[Points], Distance]

# Every solid lies inside this sphere; rays start and end on it.
BOUND_CENTRE_Z = 0.85
BOUND_RADIUS = 1.5

STAR_POINTS = 5


def _smooth_max(a: Distance, b: Distance, radius: float) -> Distance:
    """The larger of two distances, its crease rounded by about `radius`, so that edges catch the light."""
    return np.maximum(a, b) + np.square(np.maximum(radius - np.abs(a - b), 0.0)) / (4.0 * radius)


def _upright_cylinder(points: Points, radius: float, bottom: float, top: float, rounding: float) -> Distance:
    side = np.sqrt(points[0] ** 2 + points[1] ** 2) - radius
    ends = np.abs(points[2] - (bottom + top) / 2) - (top - bottom) / 2
    return _smooth_max(side, ends, rounding)


def cube(points: Points) -> Distance:
    """Return the distance to a cube with rounded edges."""
    half, rounding = 0.8, 0.09
    x, y = np.abs(points[0]) - (half - rounding), np.abs(points[1]) - (half - rounding)
    z = np.abs(points[2] - half) - (half - rounding)
    outside = np.sqrt(np.maximum(x, 0) ** 2 + np.maximum(y, 0) ** 2 + np.maximum(z, 0) ** 2)
    return outside + np.minimum(np.maximum(np.maximum(x, y), z), 0) - rounding


def ball(points: Points) -> Distance:
    """Return the distance to a ball."""
    radius = 0.95
    return np.sqrt(points[0] ** 2 + points[1] ** 2 + (points[2] - radius) ** 2) - radius


def cylinder(points: Points) -> Distance:
    """Return the distance to an upright cylinder."""
    return _upright_cylinder(points, radius=0.74, bottom=0.0, top=1.65, rounding=0.12)


def cone(points: Points) -> Distance:
    """Return the distance to an upright cone."""
    radius, height = 1.0, 2.0
    slant = np.hypot(radius, height)
    side = ((np.sqrt(points[0] ** 2 + points[1] ** 2 + 0.004) - radius) * height + points[2] * radius) / slant
    return _smooth_max(side, -points[2], 0.12)


def ring(points: Points) -> Distance:
    """Return the distance to a ring that lies flat."""
    radius, tube = 0.72, 0.3
    return np.sqrt((np.sqrt(points[0] ** 2 + points[1] ** 2) - radius) ** 2 + (points[2] - tube) ** 2) - tube


def star(points: Points) -> Distance:
    """Return the distance to a five-pointed star that lies flat, cut like a gem: each point shows two facets."""
    outer, inner, height, facet_slope = 1.25, 0.62, 0.62, 0.42
    sector = 2 * np.pi / STAR_POINTS
    distance = np.sqrt(points[0] ** 2 + points[1] ** 2)
    angle = np.mod(np.arctan2(points[1], points[0]) + sector / 2, sector) - sector / 2
    x = distance * np.cos(angle)
    y = np.sqrt((distance * np.sin(angle)) ** 2 + 0.0025)  # a rounded fold: blunt tips and ridges
    notch_x, notch_y = inner * np.cos(sector / 2), inner * np.sin(sector / 2)
    normal = np.array([notch_y, outer - notch_x]) / np.hypot(notch_y, outer - notch_x)
    edge = (x - outer) * normal[0] + y * normal[1]
    facet = (edge + facet_slope * (points[2] - 0.28)) / np.hypot(1.0, facet_slope)
    rim = np.maximum(edge, -points[2])
    return _smooth_max(_smooth_max(facet, rim, 0.06), points[2] - height, 0.06)


def mug(points: Points) -> Distance:
    """Return the distance to a hollow mug with a handle."""
    wall = _upright_cylinder(points, radius=0.74, bottom=0.0, top=1.5, rounding=0.1)
    hollow = _upright_cylinder(points, radius=0.6, bottom=0.2, top=2.4, rounding=0.1)
    bow = np.sqrt((points[0] - 0.76) ** 2 + (points[2] - 0.76) ** 2) - 0.42
    handle = np.sqrt(bow**2 + points[1] ** 2) - 0.125
    return _smooth_max(np.minimum(wall, handle), -hollow, 0.07)


SOLIDS: dict[str, Solid] = {
    "cube": cube,
    "ball": ball,
    "cylinder": cylinder,
    "cone": cone,
    "ring": ring,
    "star": star,
    "mug": mug,
}

# Angles in radians (counter-clockwise seen from above) at which a solid is drawn. Solids of revolution need only one.
# The mug's handle always points sideways, since a mug with its handle hidden looks like a cylinder.
_MUG_SIDE = np.radians([-50.0, -34.0, -18.0, -2.0, 14.0, 30.0])
ANGLES: dict[str, tuple[float, ...]] = {
    "cube": tuple(np.radians(np.arange(0, 90, 11.25)).tolist()),
    "ball": (0.0,),
    "cylinder": (0.0,),
    "cone": (0.0,),
    "ring": (0.0,),
    "star": tuple(np.radians(np.arange(0, 72, 12.0)).tolist()),
    "mug": tuple(_MUG_SIDE.tolist() + (np.pi - _MUG_SIDE).tolist()),
}
