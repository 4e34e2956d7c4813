"""What can be chosen about a way to present a box."""

from __future__ import annotations

from gpt4roi_nb.models.ways.context import MARGIN, check_margin
from gpt4roi_nb.models.ways.draw import RED, Pen

_OF = {"colour": "draw", "width": "draw", "margin": "context"}


def settings_of(
    way: str, *, colour: str | None = None, width: float | None = None, margin: float | None = None
) -> tuple[Pen, float]:
    """Return what `draw` draws with and the margin of `context`.

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
        if value is not None and way != _OF[name]:
            raise ValueError(f'{name} is a setting of regions="{_OF[name]}", but regions is {way!r}; leave it out')
    pen = Pen(RED.colour if colour is None else colour, RED.width if width is None else width)
    return pen, check_margin(MARGIN if margin is None else margin)
