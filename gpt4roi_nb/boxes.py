"""Boxes: the only module that checks them and converts between their three forms.

- *pixel xyxy*: (N, 4) float32, `(x1, y1, x2, y2)` in pixels of the original (EXIF-oriented) image, where (0, 0) is the
  top left corner of the top left pixel and (width, height) the bottom right corner of the bottom right one.
- *normalised xyxy*: the same, divided by the image's width and height; the model takes these.
- *bbox-widget dicts*: `{"x", "y", "width", "height", "label"}`, integers in pixels of the displayed image, which is
  `scale` times the size of the original one.
"""

import math
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Boxes = NDArray[np.float32]  # (N, 4)
Box = tuple[float, float, float, float]

# A box with a side below one pixel shows nothing: it would be read between the pixels.
MIN_SIDE = 1.0
# Slack for float32 rounding: a thousandth of a pixel is the spacing of float32 numbers near 12,000.
TOLERANCE = 1e-3
PACKAGE = __name__.partition(".")[0]
# No screen is that wide: a larger number in the widget's state is garbage.
MAX_COORDINATE = 1e9


class BoxClippedWarning(UserWarning):
    """A box reached outside its image and was clipped to it."""


def check_boxes(boxes: ArrayLike | Any, width: int, height: int, *, what: str = "boxes") -> Boxes:
    """Check boxes and return a copy of them, clipped to an image of `width` × `height` pixels.

    Args:
        boxes: (N, 4) real numbers, pixel xyxy in the original image: a sequence, an array or a torch tensor of any
            real dtype on any device. An empty sequence means no boxes. One box must still be nested: `[(1, 2, 3, 4)]`.
        width, height: size of the original image in pixels.
        what: the argument's name in messages.

    Returns:
        (N, 4) float32, pixel xyxy with 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height; (0, 4) for no boxes.

    Raises:
        ValueError: for a wrong shape, values that are not real numbers, NaN or infinity, x2 <= x1 or y2 <= y1, and for
            a box wholly outside the image or less than one pixel (`MIN_SIDE`) wide or high inside it.

    Warns:
        BoxClippedWarning: once per call, if a box is partly outside the image.
    """
    _check_size(width, height)
    given = _as_real_array(boxes, what)
    with np.errstate(over="ignore"):  # numbers beyond float32's range become infinity, which the next line rejects
        xyxy = given.astype(np.float32)
    _refuse(
        np.any(~np.isfinite(xyxy), axis=1),
        given,
        what,
        "has a coordinate that is not a finite number; expected four finite pixel numbers (x1, y1, x2, y2)",
    )
    _check_order(xyxy, given, width, height, what)
    x1, y1, x2, y2 = xyxy.T
    _refuse(
        (x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height),
        given,
        what,
        f"lies wholly outside the image, which is {width} × {height} pixels; expected x from 0 to {width} and "
        f"y from 0 to {height} in the original (EXIF-oriented) image",
    )
    clipped = _clip(xyxy, width, height)
    sides = clipped[:, 2:].astype(np.float64) - clipped[:, :2]
    normalised_hint = (
        f"; if it is normalised to 0 to 1, multiply x by {width} and y by {height}"
        if len(given) and given.min() >= 0 and given.max() <= 1
        else ""
    )
    _refuse(
        (sides < MIN_SIDE - TOLERANCE).any(axis=1),
        given,
        what,
        f"covers less than a pixel of the {width} × {height} image in one direction; expected pixels, with each side "
        f"at least {MIN_SIDE:g} pixel long inside the image{normalised_hint}",
    )
    _warn_if_clipped(xyxy, clipped, given, width, height, what)
    return clipped


def checked_boxes(boxes: ArrayLike | Any, width: int, height: int, *, what: str = "boxes") -> list[Box]:
    """Check boxes as `check_boxes` does, and return each as four Python numbers."""
    return [tuple(box) for box in check_boxes(boxes, width, height, what=what).tolist()]


def normalise(boxes: ArrayLike, width: int, height: int) -> Boxes:
    """Divide pixel boxes by the width and height of the image.

    Args:
        boxes: (N, 4) pixel xyxy, as `check_boxes` returns them.
        width, height: size of the original image in pixels.

    Returns:
        (N, 4) float32 xyxy in [0, 1].

    Raises:
        ValueError: if the image has no pixels.
    """
    _check_size(width, height)
    return (_rows(boxes) / _corner_scale(width, height)).astype(np.float32)


def from_bbox_widget(dicts: Iterable[Any], width: int, height: int, scale: float = 1.0) -> tuple[Boxes, list[int]]:
    """Read drawn boxes from the widget's raw state, none of which is trusted.

    Boxes are clipped to the image; a box dragged towards the top left (negative width or height) is turned round.
    Entries that are not boxes are left out: the 0×0 of a plain click or of a drag's first moment, less than one pixel
    per side inside the image, or missing or non-numeric values.

    Args:
        dicts: the widget's `bboxes`, in pixels of the displayed image.
        width, height: size of the original image in pixels.
        scale: displayed pixels per original pixel, e.g. 0.25 when a 4000-pixel image is shown 1000 pixels wide.

    Returns:
        boxes: (M, 4) float32, pixel xyxy in the original image; `check_boxes` accepts them as they are.
        kept: the index of each box in `dicts` (to look up its label).

    Raises:
        ValueError: if the image has no pixels, or `scale` is not positive.
    """
    _check_size(width, height)
    _check_scale(scale)
    rows: list[list[float]] = []
    kept: list[int] = []
    for index, entry in enumerate(dicts):
        corners = _corners(entry)
        if corners is None:
            continue
        xyxy = np.array([corners], dtype=np.float64) / scale
        x1, y1, x2, y2 = _clip(xyxy, width, height)[0].tolist()
        if min(x2 - x1, y2 - y1) >= MIN_SIDE - TOLERANCE:
            rows.append([x1, y1, x2, y2])
            kept.append(index)
    return _rows(rows).astype(np.float32), kept


def to_bbox_widget(boxes: ArrayLike, labels: Sequence[str], scale: float = 1.0) -> list[dict[str, Any]]:
    """Convert boxes to the widget's dicts, in displayed pixels.

    Corners are rounded to whole displayed pixels, so they move by half a displayed pixel at most. Each side keeps at
    least one displayed pixel.

    Args:
        boxes: (N, 4) pixel xyxy in the original image.
        labels: N labels.
        scale: displayed pixels per original pixel.

    Raises:
        ValueError: if the numbers of labels and boxes differ, or `scale` is not positive.
    """
    _check_scale(scale)
    rows = _rows(boxes)
    if len(labels) != len(rows):
        raise ValueError(f"expected one label per box, but got {len(labels)} labels for {len(rows)} boxes")
    dicts = []
    for (x1, y1, x2, y2), label in zip((rows * scale).tolist(), labels, strict=True):
        right, bottom = max(round(x2), 1), max(round(y2), 1)
        left, top = min(round(x1), right - 1), min(round(y1), bottom - 1)
        dicts.append({"x": left, "y": top, "width": right - left, "height": bottom - top, "label": label})
    return dicts


def has_masked(boxes: Any) -> bool:
    """Whether an array, or one of a list of arrays, has masked values."""
    rows = boxes if isinstance(boxes, list | tuple) else [boxes]
    return any(np.ma.is_masked(row) for row in rows if isinstance(row, np.ma.MaskedArray))


def _as_real_array(boxes: Any, what: str) -> NDArray[np.float64]:
    """Return `boxes` as (N, 4) float64; raise ValueError for another shape or values that are not real numbers."""
    expected = f"expected {what} of shape (N, 4), pixel numbers (x1, y1, x2, y2)"
    if has_masked(boxes):  # asarray would forget the mask
        raise ValueError(f"{expected}, but some of them are masked; leave these boxes out, or give boxes.data")
    if hasattr(boxes, "detach"):  # a torch tensor, without importing torch: float64 since NumPy has no bfloat16
        boxes = boxes.detach().cpu().double().numpy()
    try:
        array = np.asarray(boxes)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{expected}, but the rows have different lengths or are not numbers; give each box exactly four numbers"
        ) from error
    if array.shape in ((0,), (0, 4)):
        return np.zeros((0, 4))
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{expected}, but {_shorten(boxes)} is not made of real numbers; give each box four numbers")
    if array.shape == (4,):
        one = _format(array)
        raise ValueError(f"{expected}, but got a single box; put it in a list: [{one}]")
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"{expected}, but got an array of shape {array.shape}; give one row of four numbers per box")
    return array.astype(np.float64)


def _check_order(xyxy: Boxes, given: NDArray[np.float64], width: int, height: int, what: str) -> None:
    x1, y1, x2, y2 = xyxy.T
    wrong = (x2 <= x1) | (y2 <= y1)
    if not wrong.any():
        return
    x, y, w, h = given[wrong.argmax()]
    if 0 < w <= width - x and 0 < h <= height - y:
        as_xyxy = _format([x, y, x + w, y + h])
    else:
        as_xyxy = "(x, y, x + width, y + height)"
    advice = f"; swap the corners, or if it is (x, y, width, height), pass {as_xyxy}"
    _refuse(
        wrong, given, what, f"has x2 <= x1 or y2 <= y1; expected the top left, then the bottom right corner{advice}"
    )


def _refuse(wrong: NDArray[np.bool_], given: NDArray[np.float64], what: str, why: str) -> None:
    """Raise ValueError for the first box of `given` for which `wrong` (N,) is true, if there is one."""
    if wrong.any():
        index = int(wrong.argmax())
        raise ValueError(f"{what}[{index}] = {_format(given[index])} {why}")


def _warn_if_clipped(
    xyxy: Boxes, clipped: Boxes, given: NDArray[np.float64], width: int, height: int, what: str
) -> None:
    outside = (np.abs(xyxy - clipped) > TOLERANCE).any(axis=1)
    if outside.any():
        index = int(outside.argmax())
        more = f" ({outside.sum() - 1} more of {len(given)} likewise)" if outside.sum() > 1 else ""
        warnings.warn(
            f"{what}[{index}] = {_format(given[index])} reaches outside the {width} × {height} image and was clipped "
            f"to {_format(clipped[index])}{more}",
            BoxClippedWarning,
            stacklevel=_frames_of_this_package(),
        )


def _frames_of_this_package() -> int:
    """Count the calls up to the first line of code outside this package, which a warning should point at."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    return level


def _corners(entry: Any) -> tuple[float, float, float, float] | None:
    """Return (x1, y1, x2, y2) of one of the widget's dicts, in displayed pixels; None if it holds no valid numbers."""
    if not isinstance(entry, Mapping):
        return None
    values = [entry.get(key) for key in ("x", "y", "width", "height")]
    if not all(_is_coordinate(value) for value in values):
        return None
    x, y, w, h = (float(value) for value in values if value is not None)
    return min(x, x + w), min(y, y + h), max(x, x + w), max(y, y + h)


def _is_coordinate(value: Any) -> bool:
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return is_number and bool(abs(value) <= MAX_COORDINATE)  # false for NaN


def _clip(xyxy: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    edges = np.array([width, height, width, height], dtype=xyxy.dtype)
    clipped: NDArray[Any] = np.clip(xyxy, 0, edges)
    return clipped


def _rows(boxes: ArrayLike) -> NDArray[np.float64]:
    """(N, 4) float64, also for an empty sequence."""
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def _corner_scale(width: int, height: int) -> NDArray[np.float64]:
    return np.array([width, height, width, height], dtype=np.float64)


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"expected an image of at least 1 × 1 pixels, but its size is {width} × {height}")


def _check_scale(scale: float) -> None:
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"expected a positive scale (displayed pixels per original pixel), but got {scale}")


def _format(box: Iterable[float]) -> str:
    """A box as a person would type it: `(40, 30.5, 210, 180)`."""
    return "(" + ", ".join(f"{round(float(value), 2):.15g}" for value in box) + ")"


def _shorten(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
