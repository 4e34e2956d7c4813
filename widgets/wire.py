"""Numbers and regions in the form that is sent to the browser."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gpt4roi_nb.draw import region_color

# The notebook server closes a connection that sends it a message of more than 10 MiB.
MAX_UPLOAD_BYTES = 9 * 2**20


def float32_bytes(values: ArrayLike) -> bytes:
    """Encode numbers as little-endian float32, row by row; `floats` in map_canvas.js reads them."""
    return np.ascontiguousarray(values, dtype="<f4").tobytes()


def region_rows(regions: Iterable[tuple[int, Sequence[float]]]) -> list[dict[str, Any]]:
    """Describe regions, given as (number, box): [{"number", "color", "box": pixel xyxy in the original image}]."""
    return [
        {"number": number, "color": region_color(number), "box": [float(edge) for edge in box]}
        for number, box in regions
    ]
