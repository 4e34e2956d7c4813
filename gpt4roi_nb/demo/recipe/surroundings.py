"""What an image shows beyond its regions, for throw-away heads: which things there are, and in which order; what is the
largest or the furthest left; what stands around an object and between two; and what a box shows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt4roi_nb.data.scenes.image_kinds import EXTREMES, extremes
from gpt4roi_nb.data.scenes.relation_kinds import SIDES, lies_between, nearest_to, on_side
from gpt4roi_nb.data.scenes.scene import CATEGORIES, COLOURS, Scene
from gpt4roi_nb.demo.recipe.language import ProbeHeads
from gpt4roi_nb.demo.recipe.ordered import LEVEL, MAX_NUMBERED, up_to_ties
from gpt4roi_nb.demo.recipe.rows import SHOWN, Rows
from gpt4roi_nb.demo.recipe.symbols import NUMBERS, PLACES, attribute_loss, centre_patch
from gpt4roi_nb.prompt import IGNORE

WAYS = (*SIDES, "nearest to")  # how a thing can stand relative to another
WORDS = len(COLOURS) + len(CATEGORIES)  # that can name a thing, such as "red cone"
THINGS = len(COLOURS) * len(CATEGORIES)
# Weights of the heads' losses.
WEIGHTS = {
    "things": 3.0,
    "extremes": 1.0,
    "around": 4.0,
    "between": 2.0,
    "slots": 0.5,
    "slot places": 1.0,
    "items": 0.5,
    "item places": 1.0,
    "shown": 2.0,
    "fits": 3.0,
}


def thing_words(scene: Scene, index: int) -> tuple[int, int]:
    """Indices of an object's colour and category."""
    thing = scene.objects[index]
    return COLOURS.index(thing.colour), CATEGORIES.index(thing.category)


def extreme_words(scenes: Sequence[Scene]) -> Tensor:
    """(B, extremes, 2) int64: colour and category of the object that is each of `EXTREMES`; IGNORE where none clearly
    is."""
    found = torch.full((len(scenes), len(EXTREMES), 2), IGNORE)
    for row, scene in enumerate(scenes):
        clear = extremes(scene) if scene.objects else {}
        for k, name in enumerate(EXTREMES):
            if name in clear:
                found[row, k] = torch.tensor(thing_words(scene, clear[name]))
    return found


def named(scene: Scene, indices: Sequence[int]) -> list[float]:
    """`WORDS` numbers: 1 at each colour and each category that these objects have."""
    found = [0.0] * WORDS
    for index in indices:
        colour, category = thing_words(scene, index)
        found[colour] = found[len(COLOURS) + category] = 1.0
    return found


def around_words(scene: Scene, index: int) -> list[list[float] | None]:
    """`named` of what stands each of `WAYS` from an object; None where that is a close call."""
    nearest = nearest_to(scene, index)
    found = [on_side(scene, index, side) for side in SIDES]
    return [None if one is None else named(scene, one) for one in (*found, None if nearest is None else [nearest])]


def thing_tallies(scenes: Sequence[Scene], grid: int) -> Tensor:
    """(B, grid², THINGS) float32: how many objects of each colour and category have their centre in a patch or one
    before it."""
    found = torch.zeros(len(scenes), grid * grid, THINGS)
    for row, scene in enumerate(scenes):
        for k, thing in enumerate(scene.objects):
            place = centre_patch(thing, scene.image.shape[1], grid)
            colour, category = thing_words(scene, k)
            found[row, place, colour * len(CATEGORIES) + category] += 1
    return found.cumsum(1)


class ImageHeads(ProbeHeads):
    """`ProbeHeads`, and more that read what an image shows.

    They read:

    - at each image token, how many things of each colour and category there are so far;
    - at the last image token, which thing is each extreme;
    - where a region is named, what stands on each side of it and nearest to it;
    - where it is named after another one, what stands between the two;
    - at each of the `MAX_NUMBERED` tokens of fixed text after the image, one object, from left to right: these are the
      model's own list;
    - where an answer begins to name a thing, the object that is meant;
    - where a region is named, whether it shows an object, part of one, two or none;
    - where an option ends that offers a region, whether that has all values that the question names.

    Without them lists are hardly learnt.
    """

    SLOTS = 4  # layers before the last, as in `ProbeHeads`
    ITEMS = 2

    def __init__(self, width: int) -> None:
        super().__init__(width)

        def head(outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

        self.things, self.extremes = head(THINGS), head(len(EXTREMES) * WORDS)
        self.around, self.between = head(len(WAYS) * WORDS), head(WORDS)
        self.slots = head(sum(NUMBERS) + len(NUMBERS) + PLACES)
        self.items = head(sum(NUMBERS) + PLACES)
        self.shown, self.fits = head(len(SHOWN)), head(1)

    def losses(self, hidden: Sequence[Tensor], rows: Rows) -> dict[str, Tensor]:
        """As `ProbeHeads.losses`, and those of the further heads."""
        found = {}
        state, count = hidden[max(0, len(hidden) - 1 - self.TALLIES)], rows.tallies.shape[1]
        tokens = state[:, rows.image_start : rows.image_start + count]
        tallies = thing_tallies(rows.scenes, round(count**0.5))
        found["things"] = F.mse_loss(self.things(tokens).float(), tallies)
        extreme = extreme_words(rows.scenes)
        if (extreme != IGNORE).any():
            logits = self.extremes(tokens[:, -1]).float().view(-1, len(EXTREMES), WORDS)
            parts = logits.split([len(COLOURS), len(CATEGORIES)], dim=2)
            found["extremes"] = torch.stack(
                [
                    F.cross_entropy(part.flatten(0, 1), extreme[..., k].flatten(), ignore_index=IGNORE)
                    for k, part in enumerate(parts)
                ]
            ).sum()
        if rows.prefix_length < rows.image_start + count + MAX_NUMBERED:
            raise ValueError(f"fewer than {MAX_NUMBERED} tokens stand between the image and the question")
        slots = hidden[max(0, len(hidden) - 1 - self.SLOTS)][:, rows.image_start + count :][:, :MAX_NUMBERED]
        read, where = self.slots(slots).float().split([sum(NUMBERS) + len(NUMBERS), PLACES], dim=2)
        attributes, placed = ordered_objects(rows, read.detach())
        found["slots"] = attribute_loss(read.flatten(0, 1), attributes.flatten(0, 1), none=1)
        there = attributes[..., 0] < NUMBERS[0]
        found["slot places"] = F.mse_loss(where[there], placed[there])
        if len(rows.item_at):
            at = rows.item_at
            before = hidden[max(0, len(hidden) - 1 - self.ITEMS)][at[:, 0], at[:, 1]]
            read, where = self.items(before).float().split([sum(NUMBERS), PLACES], dim=1)
            found["items"] = attribute_loss(read, rows.attributes[rows.item_objects])
            found["item places"] = F.mse_loss(where, rows.places[rows.item_objects])
        if len(rows.shown_at):
            at = rows.shown_at
            before = hidden[max(0, len(hidden) - 1 - self.NAMES)][at[:, 0], at[:, 1]]
            found["shown"] = F.cross_entropy(self.shown(before).float(), rows.shown)
        if len(rows.fits_at):
            logits = self.fits(state[rows.fits_at[:, 0], rows.fits_at[:, 1]]).float()[:, 0]
            found["fits"] = F.binary_cross_entropy_with_logits(logits, rows.fits.float())
        around = _around(rows)
        if around is not None:
            at, true, clear = around
            logits = self.around(state[at[:, 0], at[:, 1]]).float().view(-1, len(WAYS), WORDS)
            each = F.binary_cross_entropy_with_logits(logits, true, reduction="none").mean(2)
            found["around"] = (each * clear).sum() / clear.sum().clamp(min=1)
        between = _between(rows)
        if between is not None:
            at, true = between
            found["between"] = F.binary_cross_entropy_with_logits(self.between(state[at[:, 0], at[:, 1]]).float(), true)
        return {**super().losses(hidden, rows), **{name: WEIGHTS[name] * loss for name, loss in found.items()}}


def ordered_objects(rows: Rows, read: Tensor) -> tuple[Tensor, Tensor]:
    """(B, numbers, 4) int64: attributes of each image's objects ordered `up_to_ties`, one past the last for none; and
    their places (B, numbers, PLACES).

    read: (B, numbers, sum of NUMBERS and one more for each), logits of the attributes.
    """
    attributes = torch.tensor(NUMBERS).repeat(len(rows.scenes), MAX_NUMBERED, 1)
    placed = torch.zeros(len(rows.scenes), MAX_NUMBERED, PLACES)
    parts = read.split([number + 1 for number in NUMBERS], dim=2)
    for row, (scene, first) in enumerate(zip(rows.scenes, _first_objects(rows), strict=True)):
        own = rows.attributes[first : first + len(scene.objects)]
        likely = [part[row].log_softmax(1)[:, own[:, k]] for k, part in enumerate(parts)]
        level = LEVEL * scene.image.shape[1]
        order = [first + k for k in up_to_ties(scene.objects, -torch.stack(likely).sum(0), level)]
        attributes[row, : len(order)], placed[row, : len(order)] = rows.attributes[order], rows.places[order]
    return attributes, placed


def _first_objects(rows: Rows) -> list[int]:
    """How many objects the images before each one have."""
    counts = [len(scene.objects) for scene in rows.scenes]
    return [sum(counts[:row]) for row in range(len(counts))]


def _around(rows: Rows) -> tuple[Tensor, Tensor, Tensor] | None:
    """Where regions are named (n, 2), the truth (n, ways, WORDS), and what of it is clear (n, ways); None for n = 0."""
    if not len(rows.name_at):
        return None
    first = _first_objects(rows)
    known: dict[int, list[list[float] | None]] = {}
    for row, thing in zip(rows.name_at[:, 0].tolist(), rows.name_objects.tolist(), strict=True):
        if thing not in known:
            known[thing] = around_words(rows.scenes[row], thing - first[row])
    blank = [0.0] * WORDS
    found = [known[thing] for thing in rows.name_objects.tolist()]
    true = torch.tensor([[blank if one is None else one for one in each] for each in found])
    return rows.name_at, true, torch.tensor([[float(one is not None) for one in each] for each in found])


def _between(rows: Rows) -> tuple[Tensor, Tensor] | None:
    """Where one region is named after another (n, 2), and `named` of what stands clearly between (n, WORDS)."""
    first = _first_objects(rows)
    known: dict[tuple[int, ...], list[int] | None] = {}
    at, true = [], []
    for (row, column), pair in zip(rows.pair_at.tolist(), rows.pair_objects.tolist(), strict=True):
        key, scene = (min(pair), max(pair)), rows.scenes[row]
        if key not in known:
            known[key] = lies_between(scene, key[0] - first[row], key[1] - first[row])
        found = known[key]
        if found is not None:
            at.append((row, column))
            true.append(named(scene, found))
    return (torch.tensor(at), torch.tensor(true)) if at else None
