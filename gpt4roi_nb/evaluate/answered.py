"""Shared by the predictors: clip the boxes of an item, and pick the likeliest of its options."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import Tensor

from gpt4roi_nb.boxes import BoxClippedWarning, Boxes, check_boxes
from gpt4roi_nb.evaluate.benchmarks.item import Item

Answered = tuple[str, float | None, tuple[float, ...] | None]  # text, log-probability, those of the options


def checked_item_boxes(item: Item, size: tuple[int, int]) -> Boxes:
    """Check the boxes of an item.

    Args:
        item: annotation files hold boxes that exceed the image by a pixel; these are clipped, without a warning.
        size: (width, height) of the upright image in pixels.

    Returns:
        (N, 4) float32, pixel xyxy.

    Raises:
        ValueError: as `check_boxes`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoxClippedWarning)
        return check_boxes(item.boxes, *size)


def likeliest_option(options: Sequence[str], likely: Tensor) -> Answered:
    """Answer with the likeliest option.

    Args:
        options: N texts.
        likely: (N,) natural log-probability of each.
    """
    normalised = likely.log_softmax(0).tolist()
    best = max(range(len(normalised)), key=normalised.__getitem__)
    return options[best], normalised[best], tuple(normalised)
