"""The generated world: a table top with a few solid things, each with exact box and mask, the same for the same seed.

`make_scene(seed)` draws one scene, `scenes(seed, count)` a repeatable series of them, in parallel on request.
`python -m gpt4roi_nb.data.scenes OUT --images 20000 --seed 1` writes a series with annotation files: see `formats`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gpt4roi_nb.arguments import whole_number
from gpt4roi_nb.data.masks import bounds
from gpt4roi_nb.data.scenes.render import (
    ALBEDO,
    CANVAS,
    FINISHES,
    HORIZON,
    PIXELS_PER_UNIT,
    ROWS_PER_DEPTH,
    Background,
    Item,
    Light,
    label_map,
    render,
)
from gpt4roi_nb.data.scenes.shapes import ANGLES
from gpt4roi_nb.data.scenes.sprites import LAMP_BEARINGS, Sprite, trace_sprite
from gpt4roi_nb.data.scenes.workers import worker_processes

CATEGORIES: tuple[str, ...] = tuple(ANGLES)
COLOURS: tuple[str, ...] = tuple(ALBEDO)
MATERIALS: tuple[str, ...] = tuple(FINISHES)
SIZES: tuple[str, ...] = ("small", "large")

MAX_OBJECTS = 12  # more do not fit on the table without hiding each other
MIN_SIZE = 32  # pixels; below it, a small thing is only a few pixels wide

SCALES = {"small": 0.64, "large": 1.12}  # a ratio of 1.75
FOOTPRINT = 1.05  # radius, in the solid's units, that no other solid may enter
MIN_VISIBLE = 0.45  # share of an object's pixels that others must leave visible
MAX_BOX_IOU = 0.45  # two boxes that overlap more would look like one
MARGIN = 3  # pixels, at scale 1, between an object and the image's border
TRIES_PER_OBJECT = 60
SHARED_ATTRIBUTE = 0.25  # probability that an object takes its shape or its colour from an earlier one

TABLES = (
    (0.54, 0.48, 0.39),  # sand
    (0.38, 0.43, 0.50),  # slate
    (0.58, 0.54, 0.48),  # cream
    (0.32, 0.33, 0.35),  # graphite
    (0.42, 0.49, 0.44),  # sage
    (0.54, 0.45, 0.44),  # clay
)
WALLS = ((0.22, 0.27, 0.34), (0.40, 0.35, 0.30), (0.16, 0.18, 0.21), (0.26, 0.33, 0.31))
TEXTURES = 4


@dataclass(frozen=True)
class SceneObject:
    """One thing on the table.

    category, colour, material, size: words, such as "cone", "red", "metal", "small". box: int pixel xyxy of its visible
    part in the scene's image, x2 and y2 exclusive. position: table coordinates, x to the right from the middle, y away
    from the viewer from the image's lower edge (unit: half the width of a size-1 solid). rotation: radians,
    counter-clockwise seen from above.

    Example:
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> thing = make_scene(5).objects[0]
        >>> thing.phrase, thing.colour, thing.box
        ('small red wooden star', 'red', (183, 47, 241, 91))
    """

    category: str
    colour: str
    material: str
    size: str
    box: tuple[int, int, int, int]
    position: tuple[float, float]
    rotation: float

    @property
    def phrase(self) -> str:
        """The full name, as in "small red metal cone"."""
        return f"{self.size} {self.colour} {self.material} {self.category}"


@dataclass(frozen=True, eq=False)  # hashable by identity, so that results can be cached
class Scene:
    """An image and the objects in it.

    image: (H, W, 3) uint8 RGB. masks: (N, H, W) bool, the visible pixels of each object. objects: N of them.
    seed: `make_scene(seed, ...)` with the same size and n_objects draws this scene again.

    Example:
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> scene = make_scene(5)
        >>> scene.image.shape, scene.masks.shape, len(scene.objects)
        ((336, 336, 3), (6, 336, 336), 6)
    """

    image: np.ndarray
    masks: np.ndarray
    objects: tuple[SceneObject, ...]
    seed: int


def _sprite(item: Item) -> Sprite:
    return trace_sprite(item.shape, item.angle_index, item.scale * PIXELS_PER_UNIT)


def _random_item(rng: np.random.Generator, earlier: list[Item], kind: dict[str, str]) -> Item | None:
    """An item of the given kind at a free place, or None if the first place tried is taken."""
    shape, scale = kind["category"], SCALES[kind["size"]]
    angle_index = int(rng.integers(len(ANGLES[shape])))
    sprite = trace_sprite(shape, angle_index, scale * PIXELS_PER_UNIT)
    top, left, bottom, right = sprite.box
    reach = FOOTPRINT * scale * ROWS_PER_DEPTH
    col = int(rng.integers(MARGIN - left, CANVAS - MARGIN - right + 1))
    row = int(rng.integers(max(MARGIN - top, math.ceil(HORIZON + reach)), CANVAS - MARGIN - bottom + 1))
    for other in earlier:
        gap = math.hypot((col - other.col) / PIXELS_PER_UNIT, (row - other.row) / ROWS_PER_DEPTH)
        if gap < FOOTPRINT * (scale + other.scale):
            return None
    return Item(shape, angle_index, scale, kind["colour"], kind["material"], col, row)


def _iou(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def _acceptable(items: list[Item]) -> bool:
    """Whether every item is visible enough and no two boxes nearly coincide."""
    labels = label_map(items)
    boxes = []
    for index, item in enumerate(items):
        sprite = _sprite(item)
        top, left, bottom, right = sprite.box
        mask = labels[item.row + top : item.row + bottom, item.col + left : item.col + right] == index
        visible = np.count_nonzero(mask)
        if visible < MIN_VISIBLE * sprite.area:
            return False
        whole = (0, 0, right - left, bottom - top)
        x1, y1, x2, y2 = whole if visible == sprite.area else bounds(mask) or (0, 0, 0, 0)
        boxes.append((x1 + item.col + left, y1 + item.row + top, x2 + item.col + left, y2 + item.row + top))
    return all(_iou(a, b) <= MAX_BOX_IOU for index, a in enumerate(boxes) for b in boxes[:index])


def _kinds(rng: np.random.Generator, count: int) -> list[dict[str, str]]:
    """What the objects are: independent draws, except that some take their shape or colour from an earlier one."""
    kinds: list[dict[str, str]] = []
    for _ in range(count):
        kind = {
            "category": CATEGORIES[rng.integers(len(CATEGORIES))],
            "colour": COLOURS[rng.integers(len(COLOURS))],
            "material": MATERIALS[rng.integers(len(MATERIALS))],
            "size": SIZES[rng.integers(len(SIZES))],
        }
        if kinds and rng.random() < SHARED_ATTRIBUTE:
            shared = ("category", "colour")[rng.integers(2)]
            kind[shared] = kinds[rng.integers(len(kinds))][shared]
        kinds.append(kind)
    return kinds


def _layout(rng: np.random.Generator, count: int) -> tuple[list[Item], list[dict[str, str]]]:
    """Items that do not touch, lie inside the image, and are visible enough."""
    while True:
        kinds = _kinds(rng, count)
        items: list[Item] = []
        for kind in kinds:
            for _ in range(TRIES_PER_OBJECT):
                item = _random_item(rng, items, kind)
                if item is not None and _acceptable([*items, item]):
                    items.append(item)
                    break
            else:
                break
        if len(items) == count:
            return items, kinds


def _reduced(image: np.ndarray, masks: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and masks at a smaller side. A pixel belongs to the object that covers most of it, at least half."""
    small = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
    factor, rest = divmod(len(image), size)
    if rest:
        shares = np.stack(
            [
                np.asarray(Image.fromarray(mask.view(np.uint8) * 255).resize((size, size), Image.Resampling.BOX))
                for mask in masks
            ]
        )
        half = 128
    else:
        bits = masks.view(np.uint8)
        shares = np.sum([bits[:, i::factor, j::factor] for i in range(factor) for j in range(factor)], axis=0)
        half = factor * factor // 2
    owner = shares.argmax(0)
    return small, (owner == np.arange(len(masks))[:, None, None]) & (shares >= half)


def make_scene(seed: int, *, size: int = 336, n_objects: tuple[int, int] | int = (3, 7)) -> Scene:
    """Draw the scene of a seed.

    Args:
        seed: any integer from 0 up. The same seed, size and n_objects give the same bytes in any process; the layout
            does not depend on `size`.
        size: side of the square image in pixels, at least `MIN_SIZE`.
        n_objects: the number of objects, or (least, most) to draw it from, both included; at most `MAX_OBJECTS`.

    Returns:
        A Scene with image (size, size, 3) uint8. It is drawn at a multiple of `CANVAS` and reduced bicubically, so
        that a small image is what a processor makes of the large one.

    Raises:
        ValueError: an argument is out of range, or an object covers no pixel at this size.

    Example:
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> scene = make_scene(5, size=168, n_objects=2)
        >>> scene.image.shape, len(scene.objects)
        ((168, 168, 3), 2)
    """
    least, most = (n_objects, n_objects) if isinstance(n_objects, int) else n_objects
    if not 1 <= least <= most <= MAX_OBJECTS:
        raise ValueError(f"n_objects must lie between 1 and {MAX_OBJECTS}, least first; got {n_objects!r}")
    if size < MIN_SIZE:
        raise ValueError(f"size must be at least {MIN_SIZE} pixels, or things are too small to recognise; got {size}")
    if seed < 0:
        raise ValueError(f"seed must be an integer from 0 up; got {seed}")
    rng = np.random.default_rng(seed)
    items, kinds = _layout(rng, int(rng.integers(least, most + 1)))
    table, wall = (np.array(options)[rng.integers(len(options))] for options in (TABLES, WALLS))
    background = Background(
        tuple((table * rng.uniform(0.9, 1.1)).tolist()),
        tuple((wall * rng.uniform(0.85, 1.15)).tolist()),
        int(rng.integers(TEXTURES)),
    )
    warmth = rng.uniform(-0.05, 0.05)
    light = Light(int(rng.integers(len(LAMP_BEARINGS))), float(rng.uniform(0.9, 1.1)), (1 + warmth, 1.0, 1 - warmth))
    image, labels = render(items, light, background, math.ceil(size / CANVAS))
    masks = labels == np.arange(len(items), dtype=labels.dtype)[:, None, None]
    if size != len(image):
        image, masks = _reduced(image, masks, size)
    boxes = [box for box in map(bounds, masks) if box is not None]
    if len(boxes) < len(items):
        raise ValueError(f"at size {size} an object of scene {seed} covers no pixel; ask for a larger size")
    objects = tuple(
        SceneObject(
            **kind,
            box=box,
            position=((item.col - CANVAS / 2) / PIXELS_PER_UNIT, (CANVAS - item.row) / ROWS_PER_DEPTH),
            rotation=ANGLES[item.shape][item.angle_index],
        )
        for item, kind, box in zip(items, kinds, boxes, strict=True)
    )
    return Scene(image, masks, objects, seed)


def scene_seed(seed: int, index: int) -> int:
    """Return the seed of scene `index` (from 0) in the series `seed`.

    Example:
        >>> from gpt4roi_nb.data.scenes import make_scene, scene_seed, scenes
        >>> first, second = scenes(seed=1, count=2)
        >>> second.seed == scene_seed(1, 1)
        True
        >>> bool((make_scene(scene_seed(1, 1)).image == second.image).all())
        True
    """
    seed = whole_number(seed, "seed", least=0)
    return int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0])


def _make(job: tuple[int, int, tuple[int, int] | int]) -> Scene:
    seed, size, n_objects = job
    return make_scene(seed, size=size, n_objects=n_objects)


def scenes(
    seed: int,
    count: int,
    *,
    size: int = 336,
    n_objects: tuple[int, int] | int = (3, 7),
    workers: int = 0,
) -> Iterator[Scene]:
    """Draw `count` scenes of the series `seed`, in order.

    Args:
        seed: which series; see `scene_seed`.
        count: how many scenes.
        size, n_objects: as for `make_scene`.
        workers: number of worker processes; 0 draws in this one. The scenes are the same for any number.

    Returns:
        An iterator over the scenes.

    Raises:
        ValueError: as `make_scene` does.
        RuntimeError: a worker process ended before its work was done.

    Example:
        >>> from gpt4roi_nb.data.scenes import scenes
        >>> [len(scene.objects) for scene in scenes(seed=1, count=2, n_objects=(3, 3))]
        [3, 3]
    """
    workers = whole_number(workers, "workers", least=0)
    jobs = [(scene_seed(seed, index), size, n_objects) for index in range(count)]
    if not workers:
        yield from map(_make, jobs)
        return
    with worker_processes(workers) as pool:
        yield from pool.map(_make, jobs, chunksize=8)
