"""Ways to present a box to a model: pure functions of an image and its regions, one per file; here, a spec of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from gpt4roi_nb.models.ways.context import context
from gpt4roi_nb.models.ways.crop import crop
from gpt4roi_nb.models.ways.draw import Pen, check_count, draw
from gpt4roi_nb.models.ways.full_crop import full_crop
from gpt4roi_nb.models.ways.marks import marks
from gpt4roi_nb.models.ways.native import native
from gpt4roi_nb.models.ways.pointing import Pointing, Regions
from gpt4roi_nb.models.ways.text import text

Way = Literal["text", "draw", "marks", "crop", "context", "full+crop", "native"]
WAYS: tuple[Way, ...] = get_args(Way)


@dataclass(frozen=True)
class WaySpec:
    """What the rest of the package knows of a way.

    Attributes:
        function: takes an image and its regions, and makes a `Pointing`.
        takes: the keyword arguments of `function` that `families.point` fills in: "convention", "resized", "mention"
            and "wording", which depend on the model, and "pen" and "margin", which a user chooses.
        coordinates: what the family's convention writes a box as; "" for a way that shows regions in images.
        can_leave_out: whether `function` takes `without`, the number of a region that is named but not drawn.
        image_per_region: whether it shows each region as an image of its own, and nothing else.
        several_images: whether even a single region takes several images.
        check_count: raises ValueError for more regions than the way can tell apart.
    """

    function: Callable[..., Pointing]
    takes: tuple[str, ...] = ()
    coordinates: str = ""
    can_leave_out: bool = False
    image_per_region: bool = False
    several_images: bool = False
    check_count: Callable[[int], None] | None = None


SPECS: dict[Way, WaySpec] = {
    "text": WaySpec(text, takes=("convention", "resized"), coordinates="text"),
    "draw": WaySpec(draw, takes=("pen", "wording"), can_leave_out=True, check_count=check_count),
    "marks": WaySpec(marks, can_leave_out=True),
    "crop": WaySpec(crop, image_per_region=True),
    "context": WaySpec(context, takes=("margin",), image_per_region=True),
    "full+crop": WaySpec(full_crop, several_images=True),
    "native": WaySpec(native, takes=("convention", "mention"), coordinates="tokens of its own"),
}

__all__ = [
    "SPECS",
    "WAYS",
    "Pen",
    "Pointing",
    "Regions",
    "Way",
    "WaySpec",
    "context",
    "crop",
    "draw",
    "full_crop",
    "marks",
    "native",
    "text",
]
