"""Questions about where objects stand relative to one another, and what they share: one function per kind.

Along an axis, two objects are clearly apart or clearly level; where they are neither, nothing is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gpt4roi_nb.data.scenes import region_wordings as words
from gpt4roi_nb.data.scenes.held_out import Wordings
from gpt4roi_nb.data.scenes.question_kinds import (
    Draft,
    Pair,
    an,
    centre_x,
    listed,
    pick,
    plural,
    short,
    value_of,
)
from gpt4roi_nb.data.scenes.scene import Scene, SceneObject

# (level at most, apart at least): between box centres as a share of the image's side, and between table positions.
SIDEWAYS = (0.03, 0.08)
IN_DEPTH = (0.4, 1.1)
MOST_LISTED = 2  # objects in one answer
NEAREST_RATIO = 1.25  # of the second nearest neighbour's distance to the nearest's
# An object is between two others up to ACROSS[0] (table units) from the line that joins them and from ALONG[0] of its
# length from either end; it is not from ACROSS[1] on, or up to ALONG[1] from an end.
ACROSS = (0.9, 1.5)
ALONG = (0.15, 0.0)

ORDER = ("size", "colour", "material", "category")  # in which English names them
NOTHING = "nothing"


def axis(gap: float, limits: tuple[float, float]) -> int | None:
    """Return the sign of a clear gap, 0 for clearly level, and None in between."""
    level, apart = limits
    return 0 if abs(gap) <= level else None if abs(gap) < apart else int(math.copysign(1, gap))


def offsets(scene: Scene, thing: SceneObject, other: SceneObject) -> tuple[int | None, int | None]:
    """Return `axis` of how far `thing` is to the right of `other`, and of how far behind it."""
    sideways = (centre_x(thing) - centre_x(other)) / scene.image.shape[1]
    return axis(sideways, SIDEWAYS), axis(thing.position[1] - other.position[1], IN_DEPTH)


def related(scene: Scene, first: int, second: int) -> bool:
    """Whether `relation` has one clear answer about these objects."""
    found = offsets(scene, scene.objects[first], scene.objects[second])
    return None not in found and found != (0, 0)


def relation(scene: Scene, pair: Pair, rng: np.random.Generator, held_out: bool) -> Draft:
    """Ask where one of two `related` objects stands: "to the left of region2 and behind it"."""
    right, back = offsets(scene, pair.first, pair.second)
    sideways = {-1: "to the left of", 1: "to the right of"}.get(right or 0)
    depth = {-1: "in front of", 1: "behind"}.get(back or 0)
    name = pair.names[1]
    if sideways and depth:
        answer = f"{sideways} {name} and {depth} it"
    else:
        answer = f"{sideways or depth} {name}"
    target = [{-1: "left", 1: "right"}.get(right or 0), {-1: "front", 1: "behind"}.get(back or 0)]
    text = pick(rng, words.RELATION.of(held_out)).format(a=pair.mentions[0], b=pair.mentions[1])
    return Draft(text, answer, " ".join([*filter(None, target), name]))


SIDES: dict[str, tuple[Wordings, int, int]] = {  # wordings, which of `offsets`, its sign
    "left": (words.LEFT_OF, 0, -1),
    "right": (words.RIGHT_OF, 0, 1),
    "behind": (words.BEHIND, 1, 1),
    "front": (words.IN_FRONT_OF, 1, -1),
}


def on_side(scene: Scene, index: int, side: str) -> list[int] | None:
    """Return the objects on one side of another, from left to right; None if any is neither clearly there nor not."""
    _, which, sign = SIDES[side]
    found = []
    for k, thing in enumerate(scene.objects):
        if k != index:
            gap = offsets(scene, thing, scene.objects[index])[which]
            if gap is None:
                return None
            if gap == sign:
                found.append(k)
    return sorted(found, key=lambda k: centre_x(scene.objects[k]))


def _distance(one: SceneObject, other: SceneObject) -> float:
    return math.dist(one.position, other.position)


def nearest_to(scene: Scene, index: int) -> int | None:
    """Return the object that is clearly nearest to another on the table; None if none is."""
    here = scene.objects[index]
    others = sorted(
        (k for k in range(len(scene.objects)) if k != index), key=lambda k: _distance(here, scene.objects[k])
    )
    if not others:
        return None
    ways = [_distance(here, scene.objects[k]) for k in others[:2]]
    return others[0] if len(ways) == 1 or ways[1] >= NEAREST_RATIO * ways[0] else None


def answer_of(scene: Scene, found: Sequence[int]) -> tuple[str, str]:
    """Return (answer, target) that name these objects; "nothing" for none."""
    if not found:
        return NOTHING, NOTHING
    names = [short(scene.objects[k]) for k in found]
    return listed([an(name) for name in names]), " ".join(sorted(names))


def around(scene: Scene, index: int, mention: str, rng: np.random.Generator, held_out: bool) -> Draft | None:
    """Ask what is left of, right of, behind, in front of, or nearest to an object. Returns None if nothing is clear."""
    options: list[tuple[Wordings, list[int]]] = []
    for side, (table, _, _) in SIDES.items():
        found = on_side(scene, index, side)
        if found is not None and len(found) <= MOST_LISTED:
            options.append((table, found))
    nearest = nearest_to(scene, index)
    if nearest is not None:
        options.append((words.NEAREST_TO, [nearest]))
    if not options:
        return None
    table, found = pick(rng, options)
    return Draft(pick(rng, table.of(held_out)).format(a=mention), *answer_of(scene, found))


def lies_between(scene: Scene, first: int, second: int) -> list[int] | None:
    """Return the objects between two others on the table, from left to right; None if any is a close call."""
    start, end = (scene.objects[k].position for k in (first, second))
    line = (end[0] - start[0], end[1] - start[1])
    length = math.hypot(*line)
    found = []
    for k, thing in enumerate(scene.objects):
        if k in (first, second):
            continue
        way = (thing.position[0] - start[0], thing.position[1] - start[1])
        along = (way[0] * line[0] + way[1] * line[1]) / length**2
        across = abs(line[0] * way[1] - line[1] * way[0]) / length
        within = min(along, 1 - along)
        if within >= ALONG[0] and across <= ACROSS[0]:
            found.append(k)
        elif within > ALONG[1] and across < ACROSS[1]:
            return None
    return sorted(found, key=lambda k: centre_x(scene.objects[k]))


def between(
    scene: Scene, pair: Pair, indices: tuple[int, int], rng: np.random.Generator, held_out: bool
) -> Draft | None:
    """Ask what stands between two objects: "a red cone", or "nothing". Returns None if it is a close call."""
    found = lies_between(scene, *indices)
    if found is None or len(found) > MOST_LISTED:
        return None
    text = pick(rng, words.BETWEEN.of(held_out)).format(a=pair.mentions[0], b=pair.mentions[1])
    return Draft(text, *answer_of(scene, found))


def _common(values: dict[str, str]) -> str:
    if "category" in values:
        return f"both are {' '.join([*list(values.values())[:-1], plural(values['category'])])}"
    return f"both are {listed(list(values.values()))}"


def shared(pair: Pair, rng: np.random.Generator, held_out: bool) -> Draft:
    """Ask what two objects have in common ("both are small and red") or how they differ ("in colour and shape")."""
    values = {
        name: value_of(pair.first, name) for name in ORDER if value_of(pair.first, name) == value_of(pair.second, name)
    }
    mentions = {"a": pair.mentions[0], "b": pair.mentions[1]}
    if rng.random() < 0.5:
        answer = _common(values) if values else NOTHING
        return Draft(
            pick(rng, words.IN_COMMON.of(held_out)).format(**mentions), answer, " ".join(values.values()) or NOTHING
        )
    nouns = ["shape" if name == "category" else name for name in ORDER if name not in values]
    answer = f"in {listed(nouns)}" if nouns else "they do not differ"
    return Draft(pick(rng, words.DIFFER.of(held_out)).format(**mentions), answer, " ".join(["differ", *nouns]))
