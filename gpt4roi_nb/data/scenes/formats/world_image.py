"""One image of the world, with what the annotation files say about it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.masks import bounds
from gpt4roi_nb.data.scenes.formats.masks import Polygon, polygons
from gpt4roi_nb.data.scenes.render import CANVAS, HORIZON
from gpt4roi_nb.data.scenes.scene import CATEGORIES, MAX_OBJECTS, Scene, SceneObject

VAL_EVERY = 10  # images 1, 11, 21, … are for validation
CROWD = 3  # this many things of one category are annotated as one crowd in formats that have crowds
SPLITS = ("train", "val")
STUFF = {"wall": 254, "table": 255}  # their values in `WorldImage.regions`


class Segment(NamedTuple):
    """What has one entry in a segmentation file: an object, a crowd of one category, or wall or table.

    box: int pixel xyxy, tight. area: in pixels. members: indices of objects. values: of its pixels in
    `WorldImage.regions`.
    """

    category: str
    box: Box
    area: int
    members: tuple[int, ...]
    values: tuple[int, ...]

    @property
    def is_crowd(self) -> bool:
        """Whether it has several objects."""
        return len(self.members) > 1

    def info(self, number: int, category: int) -> dict[str, Any]:
        """Return its entry in a panoptic file's `segments_info`. number, category: ids of the segment and category."""
        return {
            "id": number,
            "category_id": category,
            "area": self.area,
            "bbox": sides(self.box),
            "iscrowd": int(self.is_crowd),
        }


def union(boxes: list[Box]) -> Box:
    """Return the box around boxes, pixel xyxy."""
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)


def sides(box: Box) -> list[float]:
    """Convert a pixel xyxy box to COCO's form; whole numbers stay whole."""
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]


def xywh(box: Box) -> list[float]:
    """Convert a pixel xyxy box to COCO's form, as floats."""
    return [float(side) for side in sides(box)]


@dataclass(frozen=True)
class WorldImage:
    """A scene and its number in the world.

    number: from 1. Every id in the annotation files follows from it, so images can be written in any order.
    """

    number: int
    scene: Scene

    @property
    def split(self) -> str:
        """The name of its split, "train" or "val"."""
        return "val" if self.number % VAL_EVERY == 1 else "train"

    @property
    def stem(self) -> str:
        """The name of its file, without the suffix."""
        return f"{self.number:012d}"

    @property
    def height(self) -> int:
        """Of the image, in pixels."""
        return int(self.scene.image.shape[0])

    @property
    def width(self) -> int:
        """Of the image, in pixels."""
        return int(self.scene.image.shape[1])

    @property
    def objects(self) -> tuple[SceneObject, ...]:
        """The scene's objects."""
        return self.scene.objects

    def object_id(self, index: int) -> int:
        """Return the id of an object, unique in the world, from 1."""
        return (self.number - 1) * MAX_OBJECTS + index + 1

    def rng(self, purpose: str) -> np.random.Generator:
        """Return this image's random numbers for one purpose, so that no dataset's draws depend on another's."""
        return np.random.default_rng((self.scene.seed, crc32(purpose.encode())))

    @cached_property
    def areas(self) -> tuple[int, ...]:
        """The area of each object's mask, in pixels."""
        return tuple(
            int(np.count_nonzero(mask[top:bottom, left:right]))
            for (left, top, right, bottom), mask in zip((o.box for o in self.objects), self.scene.masks, strict=True)
        )

    @cached_property
    def polygons(self) -> tuple[list[Polygon], ...]:
        """Each object's mask, as `masks.polygons` encodes it."""
        return tuple(polygons(mask, thing.box) for mask, thing in zip(self.scene.masks, self.objects, strict=True))

    @cached_property
    def owners(self) -> np.ndarray:
        """(H, W) uint8: 0 where no object is seen, k + 1 where object k is."""
        owners = np.zeros((self.height, self.width), np.uint8)
        for index, (thing, mask) in enumerate(zip(self.objects, self.scene.masks, strict=True)):
            left, top, right, bottom = thing.box
            owners[top:bottom, left:right][mask[top:bottom, left:right]] = index + 1
        return owners

    @cached_property
    def wall(self) -> slice:
        """The rows of the image that are all wall; the row below them is the table's far edge."""
        return slice(0, HORIZON * self.height // CANVAS)

    @cached_property
    def regions(self) -> np.ndarray:
        """(H, W) uint8: as `owners`, but `STUFF` where wall or table is seen. The table's far edge is neither: 0."""
        stuff = np.full((self.height, 1), STUFF["table"], np.uint8)
        stuff[self.wall], stuff[self.wall.stop] = STUFF["wall"], 0
        return np.where(self.owners == 0, stuff, self.owners)

    @cached_property
    def _places(self) -> np.ndarray:
        return self.regions.astype(np.intp)  # once for all maps, since `np.take` would do it for each

    @cached_property
    def stuff(self) -> tuple[Segment, ...]:
        """Wall and table, without the objects."""
        found = []
        for name, value in STUFF.items():
            mask = self.regions == value
            if (box := bounds(mask)) is not None:
                found.append(Segment(name, box, int(np.count_nonzero(mask)), (), (value,)))
        return tuple(found)

    def painted(
        self, numbers: Iterable[tuple[Segment, int]], colours: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """Paint segments with their numbers, else 0: (H, W) or (H, W, C). colours: pixels of numbers (256,) int32."""
        table = np.zeros(256, np.int32)
        for segment, number in numbers:
            table[list(segment.values)] = number
        return np.take(
            colours(table), self._places, axis=0, mode="clip"
        )  # no value is out of range; "clip" is the fastest mode

    @cached_property
    def things(self) -> tuple[Segment, ...]:
        """Every object as a segment of its own."""
        return tuple(
            Segment(thing.category, thing.box, self.areas[k], (k,), (k + 1,)) for k, thing in enumerate(self.objects)
        )

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """Objects, and crowds in place of `CROWD` or more of one category."""
        return tuple(self._segments())

    def _segments(self) -> Iterator[Segment]:
        for category in CATEGORIES:
            members = tuple(k for k, thing in enumerate(self.objects) if thing.category == category)
            groups = [members] if len(members) >= CROWD else [(k,) for k in members]
            for group in groups:
                box, area = union([self.objects[k].box for k in group]), sum(self.areas[k] for k in group)
                yield Segment(category, box, area, group, tuple(k + 1 for k in group))
