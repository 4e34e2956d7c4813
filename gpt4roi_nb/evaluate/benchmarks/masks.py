"""The true masks of regions, for models that take masks: read when questions are exported, never to ask or to score."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.problems import WRONG_TYPE, BadRecord, Problems, shown
from gpt4roi_nb.data.run_lengths import compressed, mask_from_lengths
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Item
from gpt4roi_nb.evaluate.metrics.tools import tool

# (configuration, items) → id of an item, and for each of its regions a mask in one of COCO's forms.
Masks = Callable[[EvalConfig, Sequence[Item]], Iterator[tuple[str, Sequence[Any]]]]
POLYGON = 6  # numbers of the smallest polygon


def no_masks(config: EvalConfig, items: Sequence[Item]) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield nothing: the benchmark marks its regions by boxes."""
    return iter(())


def annotation_masks(file: Path, items_of: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield the `segmentation` of annotations of a COCO-like file for the items about them.

    Args:
        file: the annotations.
        items_of: id of an annotation, as text → ids of items about that one region.
    """
    for key, entry in elements(file, Problems()):
        if key == "annotations" and isinstance(entry, dict):
            for item in items_of.get(str(entry.get("id")), ()):
                yield item, [entry.get("segmentation")]


def run_lengths_of(segmentation: Any, width: int, height: int) -> dict[str, Any]:
    """Convert a mask to COCO's compressed run lengths, `{"size": [height, width], "counts": text}`.

    Args:
        segmentation: polygons `[[x, y, x, y, …], …]`, run lengths, or compressed run lengths, which keep their size.
        width, height: of the image in pixels.

    Raises:
        BadRecord: it has another form, or the mask is empty.
        ImportError: pycocotools is missing, which draws polygons.

    >>> run_lengths_of({"size": [6, 8], "counts": [6, 1, 36, 4, 1]}, 8, 6)
    {'size': [6, 8], 'counts': '61T13mN'}
    """
    if isinstance(segmentation, list):
        segmentation = _drawn(segmentation, width, height)
    elif isinstance(segmentation, dict) and isinstance(runs := segmentation.get("counts"), list):
        if not all(type(run) is int and run >= 0 for run in runs):
            raise BadRecord(WRONG_TYPE, f"'counts' must be whole numbers, but is {shown(runs)}")
        segmentation = {"size": segmentation.get("size"), "counts": compressed(runs)}
    mask = mask_from_lengths(segmentation)
    return {"size": list(mask.size), "counts": mask.counts}


def _drawn(polygons: list[Any], width: int, height: int) -> dict[str, Any]:
    edges = []
    for polygon in polygons:
        numbers = isinstance(polygon, list) and all(type(one) in (int, float) and math.isfinite(one) for one in polygon)
        if not numbers or len(polygon) < POLYGON or len(polygon) % 2:
            raise BadRecord(WRONG_TYPE, f"a polygon must be [x, y, x, y, x, y, …], but is {shown(polygon)}")
        # Clipped, since drawing takes time and memory by the length of the edges.
        corners = np.clip(np.asarray(polygon, np.float64).reshape(-1, 2), 0, [width, height])
        edges.append(corners.ravel().tolist())
    if not edges:
        raise BadRecord(WRONG_TYPE, "there is no polygon")
    coco_mask = tool("pycocotools.mask", "polygons are drawn")
    lengths = coco_mask.merge(coco_mask.frPyObjects(edges, height, width))
    return {"size": [height, width], "counts": lengths["counts"].decode("ascii")}
