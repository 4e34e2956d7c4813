"""Boxes without a whole object in them: bare table, wall, part of an object, two objects; and the answers to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.scenes.question_kinds import an, centre_x, pick, short
from gpt4roi_nb.data.scenes.render import CANVAS, HORIZON
from gpt4roi_nb.data.scenes.scene import Scene

TRIES = 40  # boxes drawn before a scene counts as having no room for one
SIDES = (0.09, 0.34)  # of a box on the bare table, as shares of the image's side
LEAST_SIDE = 6  # pixels
GAP = 0.015  # between an empty box and an object's box, as a share of the image's side
PART_SHARE = (0.35, 0.5)  # of an object's box that a part of it takes
LARGEST_UNION = 0.5  # width and height of a box around two objects, as a share of the image's side
EMPTY = "nothing stands there"


class Place(NamedTuple):
    """A box that is not an object's, pixel xyxy, with answer and target for what it shows."""

    box: Box
    answer: str
    target: str


def overlap(one: Box, other: Box, gap: float = 0) -> bool:
    """Whether two boxes overlap, or are less than `gap` pixels apart."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    return across > -gap and min(one[3], other[3]) - max(one[1], other[1]) > -gap


def horizon(scene: Scene) -> float:
    """Return the row of the table's far edge, in pixels."""
    return HORIZON * scene.image.shape[0] / CANVAS


def _box(left: float, top: float, width: float, height: float) -> Box:
    return round(left), round(top), round(left + width), round(top + height)


def _free(scene: Scene, box: Box) -> bool:
    gap = GAP * scene.image.shape[1]
    return all(b - a >= LEAST_SIDE for a, b in (box[::2], box[1::2])) and not any(
        overlap(box, thing.box, gap) for thing in scene.objects
    )


def _drawn(scene: Scene, draw: Callable[[float, float], Box], rng: np.random.Generator) -> Box | None:
    """The first drawn box that shows no object; `draw` takes width and height as shares of the image's side."""
    for _ in range(TRIES):
        box = draw(*rng.uniform(*SIDES, 2))
        if _free(scene, box):
            return box
    return None


def on_table(scene: Scene, rng: np.random.Generator) -> Place | None:
    """Draw a box on the bare table, sometimes in a corner. Returns None if there is no room."""
    side, edge = scene.image.shape[1], horizon(scene) + 2

    def draw(width: float, height: float) -> Box:
        width, height = width * side, height * side
        x, y = rng.random(2) if rng.random() < 0.7 else rng.integers(0, 2, 2)
        return _box(x * (side - width), edge + y * (side - edge - height), width, height)

    box = _drawn(scene, draw, rng)
    return None if box is None else Place(box, f"the table; {EMPTY}", "table")


def on_wall(scene: Scene, rng: np.random.Generator) -> Place | None:
    """Draw a box on the wall. Returns None if there is no room."""
    side, edge = scene.image.shape[1], horizon(scene) - 1

    def draw(width: float, height: float) -> Box:
        width, height = width * side, min(edge, max(0.5 * edge, height * side))
        return _box(rng.random() * (side - width), rng.random() * (edge - height), width, height)

    box = _drawn(scene, draw, rng)
    return None if box is None else Place(box, f"the wall; {EMPTY}", "wall")


def across_edge(scene: Scene, rng: np.random.Generator) -> Place | None:
    """Draw a box that shows about as much wall as table. Returns None if there is no room."""
    side, edge = scene.image.shape[1], horizon(scene)

    def draw(width: float, height: float) -> Box:
        width, half = width * side, min(edge, max(0.5 * edge, height * side / 2))
        return _box(rng.random() * (side - width), edge - half, width, 2 * half)

    box = _drawn(scene, draw, rng)
    return None if box is None else Place(box, f"the wall and the table; {EMPTY}", "wall table")


def part_of_object(scene: Scene, rng: np.random.Generator) -> Place | None:
    """Draw up to half of an object's box, cut along one axis, without another object. Returns None if there is none."""
    for index in rng.permutation(len(scene.objects)).tolist():
        thing = scene.objects[index]
        x1, y1, x2, y2 = thing.box
        width, height = x2 - x1, y2 - y1
        if rng.random() < 0.5:  # halves alone: the corner of a cone's box shows the table
            width = round(width * rng.uniform(*PART_SHARE))
        else:
            height = round(height * rng.uniform(*PART_SHARE))
        left, top = (x1, x2 - width)[int(rng.integers(2))], (y1, y2 - height)[int(rng.integers(2))]
        box = (left, top, left + width, top + height)
        if min(width, height) >= LEAST_SIDE and not any(
            overlap(box, other.box) for k, other in enumerate(scene.objects) if k != index
        ):
            return Place(box, f"part of {an(thing.category)}", f"part {thing.phrase}")
    return None


def two_objects(scene: Scene, rng: np.random.Generator) -> Place | None:
    """Draw a box around two objects that stand apart, without a third one. Returns None if there is none."""
    number, most = len(scene.objects), LARGEST_UNION * scene.image.shape[1]
    pairs = []
    for i in range(number):
        for j in range(i):
            boxes = scene.objects[i].box, scene.objects[j].box
            union = (
                min(boxes[0][0], boxes[1][0]),
                min(boxes[0][1], boxes[1][1]),
                max(boxes[0][2], boxes[1][2]),
                max(boxes[0][3], boxes[1][3]),
            )
            small = max(union[2] - union[0], union[3] - union[1]) <= most
            third = any(overlap(union, scene.objects[k].box) for k in range(number) if k not in (i, j))
            if small and not third and not overlap(*boxes):
                pairs.append((union, sorted((scene.objects[i], scene.objects[j]), key=centre_x)))
    if not pairs:
        return None
    box, things = pick(rng, pairs)
    names = [short(thing) for thing in things]
    return Place(box, f"two things: {an(names[0])} and {an(names[1])}", f"two {' '.join(sorted(names))}")


PLACES: dict[str, Callable[[Scene, np.random.Generator], Place | None]] = {
    "table": on_table,
    "wall": on_wall,
    "edge": across_edge,
    "part": part_of_object,
    "two": two_objects,
}
SHARES = (0.35, 0.15, 0.1, 0.2, 0.2)  # of the questions, in the order of `PLACES`


def place(scene: Scene, rng: np.random.Generator) -> Place | None:
    """Draw a box that is not an object's. Returns None if the scene has no room for the kind drawn."""
    return PLACES[str(rng.choice(list(PLACES), p=SHARES))](scene, rng)
