"""Referring expressions: words that pick exactly one object of a scene, checked against all the others."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, combinations

import numpy as np

from gpt4roi_nb.data.scenes.question_kinds import DEPTH_MARGIN, SIDE_MARGIN, comparable, pick, value_of
from gpt4roi_nb.data.scenes.scene import MAX_OBJECTS, Scene, SceneObject

ATTRIBUTES = ("size", "colour", "material", "category")  # in the order in which English names them
PLACES = ("left", "right", "front", "back")
RELATIONS = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "front": ("in front of", "closer than"),
    "back": ("behind", "further back than"),
}
PLACE_WORDS = {
    "left": ("left {}", "leftmost {}", "{} on the far left", "{} furthest left"),
    "right": ("right {}", "rightmost {}", "{} on the far right", "{} furthest right"),
    "front": ("front {}", "closest {}", "{} in front", "{} nearest to us"),
    "back": ("back {}", "furthest {}", "{} at the back", "{} furthest away"),
}
OPPOSITE = {"left": "right", "right": "left", "front": "back", "back": "front"}
_SUBSETS = tuple(chain.from_iterable(combinations(ATTRIBUTES, count) for count in range(1, 5)))


@dataclass(frozen=True)
class Expression:
    """Words that tell an object from the others.

    values: (attribute, value) pairs that it has. place: it is the furthest to that side of the objects with these
    values. relation: it stands on that side of the object that the other expression picks.
    """

    values: tuple[tuple[str, str], ...]
    place: str | None = None
    relation: "tuple[str, Expression] | None" = None

    def noun(self) -> str:
        """Return the words for its values alone: "red cone", "small metal thing"."""
        words = [value for _, value in self.values]
        return " ".join(words if self.values[-1:] and self.values[-1][0] == "category" else [*words, "thing"])

    def words(self, rng: np.random.Generator) -> str:
        """Return the whole expression in English, in one of several wordings, without a leading article."""
        text = self.noun()
        if self.place:
            text = pick(rng, PLACE_WORDS[self.place]).format(text)
        if self.relation:
            text += f" {pick(rng, RELATIONS[self.relation[0]])} the {self.relation[1].words(rng)}"
        return text

    def chosen(self, scene: Scene) -> list[int]:
        """Return the indices of the objects that it fits; none if a side is too close to call."""
        fits = _fitting(scene, self.values)
        if self.relation:
            side, other = self.relation
            others = other.chosen(scene)
            if len(others) != 1:
                return []
            fits = _on_side(scene, fits, side, others[0])
        return _furthest(scene, fits, self.place) if self.place else fits


def _fitting(scene: Scene, values: tuple[tuple[str, str], ...]) -> list[int]:
    """Indices of the objects that have all these values."""
    return [index for index, thing in enumerate(scene.objects) if all(getattr(thing, name) == v for name, v in values)]


def _on_side(scene: Scene, indices: list[int], side: str, landmark: int) -> list[int]:
    """Those of some objects that stand on that side of another; empty if any is too close to call."""
    kind = "left_right" if side in ("left", "right") else "front_behind"
    found = []
    for index in indices:
        if index == landmark:
            continue
        if not comparable(scene, kind, index, landmark):
            return []
        if stands(scene, index, side, landmark):
            found.append(index)
    return found


def _furthest(scene: Scene, indices: list[int], place: str) -> list[int]:
    """The one of some objects that is furthest to a side; empty if that is too close to call."""
    if len(indices) < 2:
        return indices
    reached = [reach(scene.objects[index], place) for index in indices]
    *_, second, first = sorted(reached)
    margin = SIDE_MARGIN * scene.image.shape[1] if place in ("left", "right") else DEPTH_MARGIN
    return [indices[reached.index(first)]] if first - second >= margin else []


def reach(thing: SceneObject, side: str) -> float:
    """Return how far an object is to a side: the middle of its box in pixels for left and right, else table units."""
    if side in ("left", "right"):
        middle = (thing.box[0] + thing.box[2]) / 2
        return middle if side == "right" else -middle
    return thing.position[1] if side == "back" else -thing.position[1]


def stands(scene: Scene, index: int, side: str, landmark: int) -> bool:
    """Whether an object stands on that side of another, as the viewer sees it."""
    return reach(scene.objects[index], side) > reach(scene.objects[landmark], side)


def _valued(thing: SceneObject, attributes: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((attribute, value_of(thing, attribute)) for attribute in attributes)


def by_looks(scene: Scene, index: int) -> list[Expression]:
    """Return all expressions that pick an object by attributes alone, shortest first."""
    return [*_by_looks(scene, index)]


@lru_cache(maxsize=MAX_OBJECTS)  # enough for one image
def _by_looks(scene: Scene, index: int) -> tuple[Expression, ...]:
    thing = scene.objects[index]
    shared = [
        {attribute for attribute in ATTRIBUTES if value_of(other, attribute) == value_of(thing, attribute)}
        for k, other in enumerate(scene.objects)
        if k != index
    ]
    telling = (attributes for attributes in _SUBSETS if not any(same.issuperset(attributes) for same in shared))
    return tuple(Expression(_valued(thing, attributes)) for attributes in telling)


def by_place(scene: Scene, index: int) -> list[Expression]:
    """Return expressions that pick an object by its side among two or more objects like it."""
    found = []
    for attributes in (("category",), ("colour",), ("colour", "category"), ("size",), ("material",)):
        values = _valued(scene.objects[index], attributes)
        alike = _fitting(scene, values)
        if len(alike) > 1:
            found += [Expression(values, place) for place in PLACES if _furthest(scene, alike, place) == [index]]
    return found


def by_neighbour(scene: Scene, index: int, rng: np.random.Generator) -> list[Expression]:
    """Return expressions that pick an object by its attributes and its side of another, which attributes pick."""
    found = []
    values = [_valued(scene.objects[index], named) for named in (("colour", "category"), ATTRIBUTES)]
    alike = [_fitting(scene, of_one) for of_one in values]
    for landmark in range(len(scene.objects)):
        names = by_looks(scene, landmark) if landmark != index else []
        if names:
            other = pick(rng, names[:4])
            open_sides = [side for side in RELATIONS if stands(scene, index, side, landmark)]
            for of_one, fits in zip(values, alike, strict=True):
                sides = [side for side in open_sides if _on_side(scene, fits, side, landmark) == [index]]
                found += [Expression(of_one, None, (side, other)) for side in sides]
    return found
