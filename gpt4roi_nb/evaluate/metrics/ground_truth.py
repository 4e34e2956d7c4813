"""Ground truth of region classification: the classes of a dataset, its images and their segments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


@dataclass(frozen=True, slots=True)
class ClassName:
    """A class of a dataset.

    Attributes:
        id: number in the dataset's files.
        names: the class's own name, then further words for it, all lower-case.
        is_thing: whether it is countable (a car) or stuff (sky).
    """

    id: int
    names: tuple[str, ...]
    is_thing: bool

    @property
    def name(self) -> str:
        """Name in the dataset."""
        return self.names[0]


@dataclass(frozen=True, slots=True)
class PanopticImage:
    """An image and the files of its ground truth.

    Attributes:
        id: of the image.
        path: the image file.
        panoptic: PNG of segment ids, R + 256·G + 65536·B, 0 for void.
        semantic: PNG of class numbers.
        instances: Cityscapes' 16-bit PNG; None for ADE20K.
        annotation: the image's entry in the panoptic JSON file.
    """

    id: str
    path: Path
    panoptic: Path
    semantic: Path
    instances: Path | None
    annotation: Mapping[str, Any]


@dataclass(frozen=True)
class PanopticData:
    """The images of a split, and its classes."""

    dataset: str
    split: str
    root: Path
    json: Path
    classes: tuple[ClassName, ...]
    images: tuple[PanopticImage, ...]

    @property
    def things(self) -> list[bool]:
        """(C,) whether a class is countable."""
        return [entry.is_thing for entry in self.classes]


class Truth(NamedTuple):
    """The ground truth of an image, all arrays of one size.

    Attributes:
        segments: (H, W) int32 segment ids.
        classes: (H, W) int16 class indices, -1 where nothing is scored.
        instances: (H, W) int of Cityscapes' instance ids; None for ADE20K.
        things: ADE20K's instances for AP, as category id and mask (H, W) bool of each, if the data has them apart from
            the segments; else None.
    """

    segments: np.ndarray
    classes: np.ndarray
    instances: np.ndarray | None
    things: tuple[tuple[int, np.ndarray], ...] | None = None
