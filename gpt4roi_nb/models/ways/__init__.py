"""Ways to present a box to a model: pure functions of an image and its regions, one per file."""

from typing import Literal

from gpt4roi_nb.models.ways.context import context
from gpt4roi_nb.models.ways.crop import crop
from gpt4roi_nb.models.ways.draw import Pen, draw
from gpt4roi_nb.models.ways.full_crop import full_crop
from gpt4roi_nb.models.ways.marks import marks
from gpt4roi_nb.models.ways.native import native
from gpt4roi_nb.models.ways.pointing import Pointing, Regions
from gpt4roi_nb.models.ways.text import text
from gpt4roi_nb.models.ways.without import without

Way = Literal["text", "draw", "marks", "crop", "context", "full+crop", "native"]
WAYS: tuple[Way, ...] = ("text", "draw", "marks", "crop", "context", "full+crop", "native")

__all__ = [
    "WAYS",
    "Pen",
    "Pointing",
    "Regions",
    "Way",
    "context",
    "crop",
    "draw",
    "full_crop",
    "marks",
    "native",
    "text",
    "without",
]
