"""What can be asked about a scene of the generated world: one function per kind of question.

Each returns a `Draft`: the question in its plain spelling, the model answer, and the target, which is the words that
decide whether an answer is right.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple, TypeVar

import numpy as np

from gpt4roi_nb.data.scenes import unseen_wordings, wordings
from gpt4roi_nb.data.scenes.scene import CATEGORIES, COLOURS, MATERIALS, SIZES, Scene, SceneObject

KINDS: tuple[str, ...] = (
    "category",
    "colour",
    "material",
    "size",
    "phrase",
    "same",
    "larger",
    "left_right",
    "front_behind",
    "count",
    "which",
)
ONE_REGION: tuple[str, ...] = KINDS[:5]
TWO_REGIONS: tuple[str, ...] = KINDS[5:9]
NO_REGION: tuple[str, ...] = KINDS[9:]

VALUES: dict[str, tuple[str, ...]] = {
    "category": CATEGORIES,
    "colour": COLOURS,
    "material": MATERIALS,
    "size": SIZES,
}
SAME_OF_ONE = {"category": "SAME_KIND", "material": "SAME_MADE"}
STUFF = {"wooden": "wood"}  # the noun, where it differs from the adjective

# Clear margins, below which a person might hesitate.
SIDE_MARGIN = 0.06  # between box centres, as a share of the image's side
DEPTH_MARGIN = 0.9  # between table positions, in table units (a large cube is 1.8 wide)

YES_NO_SHARE = 0.15  # of attribute questions that propose a value ("is it red?")
LIST_SHARE = 0.4  # of "which" questions that ask for the whole list
DIFFERENT_SHARE = 0.1  # of "same" questions that ask for a difference
SAME_OF_ONE_SHARE = 0.3  # of "same" questions in a wording that fits one attribute only
COUNT_ALL_SHARE = 0.35  # of "count" questions about all objects
COUNT_PRESENT_SHARE = 0.75  # of the other "count" questions that ask about something present: else most answers are 0


class Draft(NamedTuple):
    """One question before its spelling is varied: wording, model answer, and the deciding words."""

    text: str
    answer: str
    target: str


Option = TypeVar("Option")


def pick(rng: np.random.Generator, options: Sequence[Option]) -> Option:
    """Draw one of the options, each as likely."""
    return options[int(rng.integers(len(options)))]


def tables_of(held_out: bool) -> ModuleType:
    """Return the wordings of training, or the held-out ones: a module with one table per form of question."""
    return unseen_wordings if held_out else wordings


def value_of(thing: SceneObject, attribute: str) -> str:
    """Return an object's value of one of the attributes in `VALUES`."""
    return str(getattr(thing, attribute))


def an(words: str) -> str:
    """Put "a" or "an" before words."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def article_for(attribute: str, value: str) -> str:
    """Return a value as an answer gives it: "a cone", but "red"."""
    return an(value) if attribute == "category" else value


def stuff(value: str) -> str:
    """Return the noun of a material, and any other value as it is."""
    return STUFF.get(value, value)


def listed(words: Sequence[str]) -> str:
    """Join words as in "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def plural(value: str) -> str:
    """Return the plural of a category."""
    return value + "s"


# ---------------------------------------------------------------------------------------------- one region


def value_words(attribute: str, value: str) -> str:
    """As `article_for`, but with the noun of a material: "wood" for "wooden"."""
    return stuff(value) if attribute == "material" else article_for(attribute, value)


def plain_answer(thing: SceneObject, kind: str) -> tuple[str, str]:
    """Return (answer, target) of the plain question of a one-region kind, which proposes no value."""
    if kind == "phrase":
        return f"a {thing.phrase}", thing.phrase
    value = value_of(thing, kind)
    return value_words(kind, value), value


def one_region(
    thing: SceneObject, kind: str, rng: np.random.Generator, mention: str, words: ModuleType = wordings
) -> Draft:
    """Ask about one object: its category, colour, material, size or whole phrase."""
    if kind != "phrase" and rng.random() < YES_NO_SHARE:
        value = value_of(thing, kind)
        asked = value if rng.random() < 0.5 else pick(rng, [other for other in VALUES[kind] if other != value])
        verdict = "yes" if asked == value else "no"
        wording = pick(rng, getattr(words, f"{kind.upper()}_CHECK"))
        text = wording.format(a=mention, value=asked, stuff=stuff(asked))
        return Draft(text, f"{verdict}, it is {article_for(kind, value)}", f"{verdict} {value}")
    answer, target = plain_answer(thing, kind)
    return Draft(pick(rng, getattr(words, kind.upper())).format(a=mention), answer, target)


# ---------------------------------------------------------------------------------------------- two regions


class Pair(NamedTuple):
    """Two objects in the order in which a question names them.

    mentions: how the text names them (`<region1>`); names: how an answer does (`region1`).
    """

    first: SceneObject
    second: SceneObject
    mentions: tuple[str, str]
    names: tuple[str, str]


def same_attribute(rng: np.random.Generator, first: SceneObject, second: SceneObject) -> str:
    """Draw an attribute to compare, so that yes and no come about equally often where the pair allows it."""
    equal = [name for name in VALUES if value_of(first, name) == value_of(second, name)]
    unequal = [name for name in VALUES if name not in equal]
    options = equal if (rng.random() < 0.5 and equal) or not unequal else unequal
    weights = np.array([2.0 if name == "colour" else 1.0 for name in options])  # what people ask about most
    return options[int(rng.choice(len(options), p=weights / weights.sum()))]


def both_are(attribute: str, value: str) -> str:
    """Say what two objects share: "both are red", "both are cones"."""
    return f"both are {plural(value) if attribute == 'category' else value}"


def same(pair: Pair, rng: np.random.Generator, it: bool, words: ModuleType = wordings) -> Draft:
    """Ask whether two objects have the same colour, category, material or size. it: call the first "it"."""
    attribute = same_attribute(rng, pair.first, pair.second)
    one, two = value_of(pair.first, attribute), value_of(pair.second, attribute)
    options: Sequence[str] = words.SAME
    agree = one == two
    if it:
        options = words.SAME_IT
    elif rng.random() < DIFFERENT_SHARE:
        options, agree = words.DIFFERENT, one != two
    elif attribute in SAME_OF_ONE and rng.random() < SAME_OF_ONE_SHARE:
        options = getattr(words, SAME_OF_ONE[attribute])
    text = pick(rng, options).format(a=pair.mentions[0], b=pair.mentions[1], noun=wordings.NOUNS[attribute])
    verdict = "yes" if agree else "no"
    if one == two:
        return Draft(text, f"{verdict}, {both_are(attribute, one)}", f"{verdict} {one}")
    one_is, two_is = article_for(attribute, one), article_for(attribute, two)
    answer = f"{verdict}, {pair.names[0]} is {one_is} and {pair.names[1]} is {two_is}"
    return Draft(text, answer, f"{verdict} {one} {two}")


def _ordered(
    pair: Pair,
    rng: np.random.Generator,
    first_has_it: bool,
    words: tuple[str, str],
    tables: Sequence[Sequence[str]],
) -> Draft:
    """Ask about an ordered pair.

    words: what the first region is if `first_has_it`, and what it is if not. tables: wordings for "one or the other?",
    "is it the one?", "is it the other?", "which is the one?", "which is the other?".
    """
    lengths = np.array([len(table) for table in tables])
    table = int(rng.choice(len(tables), p=lengths / lengths.sum()))
    text = pick(rng, tables[table]).format(a=pair.mentions[0], b=pair.mentions[1])
    if table == 0:
        answer = words[0] if first_has_it else words[1]
    elif table < 3:
        answer = "yes" if first_has_it == (table == 1) else "no"
    else:
        answer = pair.names[0] if first_has_it == (table == 3) else pair.names[1]
    return Draft(text, answer, answer.removeprefix("in "))


def centre_x(thing: SceneObject) -> float:
    """Return the x of the middle of an object's box, in pixels."""
    return (thing.box[0] + thing.box[2]) / 2


def left_to_right(things: Sequence[SceneObject]) -> list[int]:
    """Return the indices of objects, ordered by the centres of their boxes."""
    return sorted(range(len(things)), key=lambda k: centre_x(things[k]))


def comparable(scene: Scene, kind: str, first: int, second: int) -> bool:
    """Whether a question of a two-region kind about these two objects has one clear answer."""
    a, b = scene.objects[first], scene.objects[second]
    if kind == "larger":
        return a.size != b.size
    if kind == "left_right":
        return bool(abs(centre_x(a) - centre_x(b)) >= SIDE_MARGIN * scene.image.shape[1])
    if kind == "front_behind":
        return abs(a.position[1] - b.position[1]) >= DEPTH_MARGIN
    return True


def two_regions(
    pair: Pair, kind: str, rng: np.random.Generator, it: bool = False, words: ModuleType = wordings
) -> Draft:
    """Ask about two objects that are `comparable`."""
    first, second = pair.first, pair.second
    w = words
    tables: Sequence[Sequence[str]]
    if kind == "same":
        return same(pair, rng, it, words)
    if kind == "larger":
        tables = ((), w.LARGER_CHECK, w.SMALLER_CHECK, w.LARGER_WHICH, w.SMALLER_WHICH)
        return _ordered(pair, rng, first.size == "large", ("", ""), tables)
    if kind == "left_right":
        tables = (w.LEFT_RIGHT, w.LEFT_CHECK, w.RIGHT_CHECK, w.LEFT_WHICH, w.RIGHT_WHICH)
        return _ordered(pair, rng, centre_x(first) < centre_x(second), ("left", "right"), tables)
    tables = (w.FRONT_BEHIND, w.FRONT_CHECK, w.BEHIND_CHECK, w.FRONT_WHICH, w.BEHIND_WHICH)
    return _ordered(pair, rng, first.position[1] < second.position[1], ("in front", "behind"), tables)


# ---------------------------------------------------------------------------------------------- the whole image


def count(scene: Scene, rng: np.random.Generator, words: ModuleType = wordings) -> Draft:
    """Ask how many objects there are, in all or of one category, colour, material or size."""
    wording = pick(rng, words.COUNT)
    if rng.random() < COUNT_ALL_SHARE:
        number = str(len(scene.objects))
        return Draft(wording.format(things=pick(rng, wordings.THINGS)), number, number)
    attribute = pick(rng, tuple(VALUES))
    if rng.random() < COUNT_PRESENT_SHARE:
        value = value_of(pick(rng, scene.objects), attribute)
    else:
        value = pick(rng, VALUES[attribute])
    number = str(sum(value_of(thing, attribute) == value for thing in scene.objects))
    things = plural(value) if attribute == "category" else f"{value} {pick(rng, wordings.THINGS)}"
    return Draft(wording.format(things=things), number, number)


def short(thing: SceneObject) -> str:
    """Name an object by colour and category: "red cone"."""
    return f"{thing.colour} {thing.category}"


def all_objects(scene: Scene) -> tuple[str, str]:
    """Return (answer, target) that name every object by colour and category, the answer from left to right."""
    names = [short(scene.objects[k]) for k in left_to_right(scene.objects)]
    return listed([an(name) for name in names]), " ".join(sorted(names))


def which(scene: Scene, rng: np.random.Generator, words: ModuleType = wordings) -> Draft:
    """Ask which objects there are, from left to right, or whether a certain one is there."""
    if rng.random() < LIST_SHARE:
        return Draft(pick(rng, words.WHICH), *all_objects(scene))
    there = sorted({short(thing) for thing in scene.objects})
    near = {f"{one.colour} {two.category}" for one in scene.objects for two in scene.objects}
    absent = sorted(near - set(there))  # colours and shapes that are there, but not together
    if absent and rng.random() < 0.5:
        asked, verdict = pick(rng, absent), "no"
    else:
        asked, verdict = pick(rng, there), "yes"
    return Draft(pick(rng, words.THERE_IS).format(value=an(asked)), verdict, verdict)
