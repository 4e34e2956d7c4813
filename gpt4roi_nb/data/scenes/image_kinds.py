"""Questions about a whole scene, beyond those of `question_kinds`: one function per kind of question."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpt4roi_nb.data.scenes import image_wordings as words
from gpt4roi_nb.data.scenes.held_out import Wordings
from gpt4roi_nb.data.scenes.question_kinds import (
    DEPTH_MARGIN,
    SIDE_MARGIN,
    VALUES,
    Draft,
    all_objects,
    an,
    centre_x,
    listed,
    pick,
    plural,
    short,
    stuff,
    value_of,
)
from gpt4roi_nb.data.scenes.scene import Scene, SceneObject

AREA_RATIO = 1.25  # of the largest box to the next, and of the second smallest to the smallest


def area(thing: SceneObject) -> int:
    """Return the area of an object's box, in pixels."""
    x1, y1, x2, y2 = thing.box
    return (x2 - x1) * (y2 - y1)


def describe(scene: Scene, rng: np.random.Generator, held_out: bool) -> Draft:
    """Ask for a description, which names each object from left to right: "a red ball and a blue star on a table"."""
    answer, target = all_objects(scene)
    return Draft(pick(rng, words.DESCRIBE.of(held_out)), f"{answer} on a table", target)


def _first(scene: Scene, key: Callable[[SceneObject], float], clear: Callable[[float, float], bool]) -> int | None:
    """The object with the least key; None if the next key is not clearly greater."""
    order = sorted(range(len(scene.objects)), key=lambda index: key(scene.objects[index]))
    if len(order) > 1 and not clear(key(scene.objects[order[0]]), key(scene.objects[order[1]])):
        return None
    return order[0]


def extremes(scene: Scene) -> dict[str, int]:
    """Return the object at each extreme that is clear: "largest" and "smallest" by the area of the visible box,
    "nearest", "furthest", "leftmost" and "rightmost"."""
    side = SIDE_MARGIN * scene.image.shape[1]
    found = {
        "largest": _first(scene, lambda one: -area(one), lambda a, b: a <= AREA_RATIO * b),
        "smallest": _first(scene, area, lambda a, b: b >= AREA_RATIO * a),
        "nearest": _first(scene, lambda one: one.position[1], lambda a, b: b - a >= DEPTH_MARGIN),
        "furthest": _first(scene, lambda one: -one.position[1], lambda a, b: b - a >= DEPTH_MARGIN),
        "leftmost": _first(scene, centre_x, lambda a, b: b - a >= side),
        "rightmost": _first(scene, lambda one: -centre_x(one), lambda a, b: b - a >= side),
    }
    return {name: index for name, index in found.items() if index is not None}


EXTREMES: dict[str, Wordings] = {
    "largest": words.LARGEST,
    "smallest": words.SMALLEST,
    "nearest": words.NEAREST,
    "furthest": words.FURTHEST,
    "leftmost": words.LEFTMOST,
    "rightmost": words.RIGHTMOST,
}


def extreme(scene: Scene, rng: np.random.Generator, held_out: bool) -> Draft | None:
    """Ask which object is the largest, the nearest, …: "a red cone". Returns None if none is clear."""
    found = extremes(scene)
    if not found:
        return None
    name = pick(rng, sorted(found))
    thing = scene.objects[found[name]]
    return Draft(pick(rng, EXTREMES[name].of(held_out)), an(short(thing)), thing.phrase)


def _described(thing: SceneObject, form: str) -> str:
    """One form in which `present` describes an object."""
    return {
        "colour category": short(thing),
        "category": thing.category,
        "colour": f"{thing.colour} object",
        "material": f"{thing.material} {thing.category}",
        "size": f"{thing.size} {thing.category}",
    }[form]


def present(scene: Scene, rng: np.random.Generator, held_out: bool) -> Draft:
    """Ask whether a certain object is there. One that is not combines words of those that are, where possible."""
    form = str(rng.choice(("colour category", "category", "colour", "material", "size"), p=(0.4, 0.2, 0.2, 0.1, 0.1)))
    there = sorted({_described(thing, form) for thing in scene.objects})
    if form in ("category", "colour"):
        ending = " object" if form == "colour" else ""
        near = [f"{value}{ending}" for value in VALUES[form]]
    else:
        near = [" ".join((a.split()[0], b.split()[1])) for a in there for b in there]
    absent = sorted(set(near) - set(there))
    verdict = "no" if absent and rng.random() < 0.5 else "yes"
    asked = pick(rng, absent if verdict == "no" else there)
    return Draft(pick(rng, words.PRESENT.of(held_out)).format(value=an(asked)), verdict, verdict)


VARIETIES: dict[str, Wordings] = {"colour": words.COLOURS, "category": words.SHAPES, "material": words.MATERIALS}


def variety(scene: Scene, rng: np.random.Generator, held_out: bool) -> Draft:
    """Ask which colours, shapes or materials there are: "red, blue and green", in the order of `VALUES`."""
    attribute = pick(rng, tuple(VARIETIES))
    there = [value for value in VALUES[attribute] if any(value_of(one, attribute) == value for one in scene.objects)]
    names = [plural(value) if attribute == "category" else stuff(value) for value in there]
    return Draft(pick(rng, VARIETIES[attribute].of(held_out)), listed(names), " ".join(there))
