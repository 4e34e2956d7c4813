"""One picture of the world with what the annotation files say about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple
from zlib import crc32

import numpy as np

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.scenes.formats.masks import Polygon, polygons
from gpt4roi_nb.data.scenes.render import CANVAS, HORIZON
from gpt4roi_nb.data.scenes.scene import CATEGORIES, MAX_OBJECTS, Scene, SceneObject

VAL_EVERY = 10  # pictures 1, 11, 21, … are for validation
CROWD = 3  # so many things of one category are annotated as one crowd, where a format knows crowds
SPLITS = ("train", "val")


class Segment(NamedTuple):
    """What a segmentation file gives one entry: an object, or a crowd of one category.

    mask: (H, W) bool. box: int pixel xyxy. members: indices of objects.
    """

    category: str
    mask: np.ndarray
    box: Box
    members: tuple[int, ...]

    @property
    def is_crowd(self) -> bool:
        return len(self.members) > 1


def union(boxes: list[Box]) -> Box:
    """The box around boxes, pixel xyxy."""
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)


def xywh(box: Box) -> list[float]:
    """COCO's form of a pixel xyxy box."""
    x1, y1, x2, y2 = map(float, box)
    return [x1, y1, x2 - x1, y2 - y1]


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
        return tuple(int(mask.sum()) for mask in self.scene.masks)

    @cached_property
    def polygons(self) -> tuple[list[Polygon], ...]:
        """Each object's mask as `masks.polygons`."""
        return tuple(polygons(mask) for mask in self.scene.masks)

    @cached_property
    def owners(self) -> np.ndarray:
        """(H, W) uint8: 0 where no object is seen, k + 1 where object k is."""
        numbers = np.arange(1, len(self.objects) + 1, dtype=np.uint8)[:, None, None]
        return (self.scene.masks * numbers).sum(0, dtype=np.uint8)

    @cached_property
    def wall(self) -> slice:
        """The rows of the picture that lie wholly on the wall; the row below them is the table's far edge."""
        return slice(0, HORIZON * self.height // CANVAS)

    @cached_property
    def stuff(self) -> dict[str, np.ndarray]:
        """(H, W) bool masks of wall and table, without the objects. The table's far edge is neither."""
        rows = np.arange(self.height)[:, None]
        free = self.owners == 0
        return {"wall": free & (rows < self.wall.stop), "table": free & (rows > self.wall.stop)}

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """Objects, and crowds in place of `CROWD` or more of one category."""
        return tuple(self._segments())

    def _segments(self) -> Iterator[Segment]:
        for category in CATEGORIES:
            members = tuple(k for k, thing in enumerate(self.objects) if thing.category == category)
            groups = [members] if len(members) >= CROWD else [(k,) for k in members]
            for group in groups:
                mask: np.ndarray = np.any(self.scene.masks[list(group)], axis=0)
                yield Segment(category, mask, union([self.objects[k].box for k in group]), group)
