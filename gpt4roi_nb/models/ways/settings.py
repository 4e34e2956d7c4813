"""What can be chosen about a way to present a box."""

from __future__ import annotations

from gpt4roi_nb.models.ways import SPECS, Way
from gpt4roi_nb.models.ways.context import MARGIN, check_margin
from gpt4roi_nb.models.ways.draw import RED, Pen

_PART_OF = {"colour": "pen", "width": "pen", "margin": "margin"}  # setting → what `WaySpec.takes` calls it


def settings_of(
    way: Way, *, colour: str | None = None, width: float | None = None, margin: float | None = None
) -> tuple[Pen, float]:
    """Return the pen and the margin of a way.

    Args:
        way: to which the settings are given.
        colour: of the first region's line, for "draw".
        width: of the line, for "draw": pixels where the longest side of an image has 336.
        margin: what "context" adds on each side of a box, as a share of the box's side.

    Raises:
        ValueError: for a setting of another way, or a value that it cannot have.
    """
    given = {"colour": colour, "width": width, "margin": margin}
    for name, value in given.items():
        if value is not None and _PART_OF[name] not in SPECS[way].takes:
            ways = " or ".join(f'regions="{other}"' for other, spec in SPECS.items() if _PART_OF[name] in spec.takes)
            raise ValueError(f"{name} is a setting of {ways}, but regions is {way!r}; leave it out")
    pen = Pen(RED.colour if colour is None else colour, RED.width if width is None else width)
    return pen, check_margin(MARGIN if margin is None else margin)
