"""One picture of the world with what the annotation files say about it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.scenes.formats.masks import Polygon, bounds, polygons
from gpt4roi_nb.data.scenes.render import CANVAS, HORIZON
from gpt4roi_nb.data.scenes.scene import CATEGORIES, MAX_OBJECTS, Scene, SceneObject

VAL_EVERY = 10  # pictures 1, 11, 21, … are for validation
CROWD = 3  # so many things of one category are annotated as one crowd, where a format knows crowds
SPLITS = ("train", "val")
STUFF = {"wall": 254, "table": 255}  # their values in `Picture.regions`


class Segment(NamedTuple):
    """What a segmentation file gives one entry: an object, a crowd of one category, or wall or table.

    box: int pixel xyxy, tight. area: pixels. members: indices of objects. values: those of its pixels in
    `Picture.regions`.
    """

    category: str
    box: Box
    area: int
    members: tuple[int, ...]
    values: tuple[int, ...]

    @property
    def is_crowd(self) -> bool:
        return len(self.members) > 1

    def info(self, number: int, category: int) -> dict[str, Any]:
        """Its entry in the `segments_info` of a panoptic file, by the ids of the segment and of its category."""
        return {
            "id": number,
            "category_id": category,
            "area": self.area,
            "bbox": sides(self.box),
            "iscrowd": int(self.is_crowd),
        }


def union(boxes: list[Box]) -> Box:
    """The box around boxes, pixel xyxy."""
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)


def sides(box: Box) -> list[float]:
    """COCO's form of a pixel xyxy box, of the same numbers: whole ones stay whole."""
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]


def xywh(box: Box) -> list[float]:
    """COCO's form of a pixel xyxy box, as floats."""
    return [float(side) for side in sides(box)]


@dataclass(frozen=True)
class Picture:
    """A scene with its place in the world.

    number: from 1. Every id in the annotation files follows from it, so pictures can be written in any order.
    """

    number: int
    scene: Scene

    @property
    def split(self) -> str:
        return "val" if self.number % VAL_EVERY == 1 else "train"

    @property
    def stem(self) -> str:
        return f"{self.number:012d}"

    @property
    def height(self) -> int:
        return int(self.scene.image.shape[0])

    @property
    def width(self) -> int:
        return int(self.scene.image.shape[1])

    @property
    def objects(self) -> tuple[SceneObject, ...]:
        return self.scene.objects

    def object_id(self, index: int) -> int:
        """The id of an object, unlike any other's in the world, from 1."""
        return (self.number - 1) * MAX_OBJECTS + index + 1

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers of this picture for one purpose: no dataset's draws depend on another's."""
        return np.random.default_rng((self.scene.seed, crc32(purpose.encode())))

    @cached_property
    def areas(self) -> tuple[int, ...]:
        """Pixels of each object's mask."""
        return tuple(
            int(np.count_nonzero(mask[top:bottom, left:right]))
            for (left, top, right, bottom), mask in zip((o.box for o in self.objects), self.scene.masks, strict=True)
        )

    @cached_property
    def polygons(self) -> tuple[list[Polygon], ...]:
        """Each object's mask as `masks.polygons`."""
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
        """The rows of the picture that lie wholly on the wall; the row below them is the table's far edge."""
        return slice(0, HORIZON * self.height // CANVAS)

    @cached_property
    def regions(self) -> np.ndarray:
        """(H, W) uint8: as `owners`, but `STUFF` where wall or table are seen. The table's far edge is neither, 0."""
        stuff = np.full((self.height, 1), STUFF["table"], np.uint8)
        stuff[self.wall], stuff[self.wall.stop] = STUFF["wall"], 0
        return np.where(self.owners == 0, stuff, self.owners)

    @cached_property
    def _places(self) -> np.ndarray:
        return self.regions.astype(np.intp)  # once for all maps: `np.take` would do it for each

    @cached_property
    def stuff(self) -> tuple[Segment, ...]:
        """Wall and table, without the objects."""
        found = []
        for name, value in STUFF.items():
            mask = self.regions == value
            x, y, width, height = bounds(mask)
            found.append(Segment(name, (x, y, x + width, y + height), int(np.count_nonzero(mask)), (), (value,)))
        return tuple(found)

    def painted(
        self, numbers: Iterable[tuple[Segment, int]], colours: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """(H, W) or (H, W, C): each segment's number, 0 elsewhere; `colours` makes pixels of numbers (256,) int32."""
        table = np.zeros(256, np.int32)
        for segment, number in numbers:
            table[list(segment.values)] = number
        return np.take(colours(table), self._places, axis=0, mode="clip")  # none is outside; "clip" is the quickest

    @cached_property
    def things(self) -> tuple[Segment, ...]:
        """Every object by itself."""
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
