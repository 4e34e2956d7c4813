"""Messages about a question that was typed under an image and cannot be asked."""

from __future__ import annotations

from gpt4roi_nb.prompt import enumeration
from gpt4roi_nb.widgets.regions import mentions


def check_named(text: str, count: int) -> None:
    """Raise ValueError if a question names a region that is not on the image. count: the number of those that are."""
    missing = [number for number in mentions(text) if not 1 <= number <= count]
    if not missing:
        return
    names = enumeration([f"region {number}" for number in missing])
    if count == 0:
        raise ValueError(f"the question names {names}, but there is no box yet; draw one on the image, then ask")
    there = "is only region 1" if count == 1 else f"are only regions 1 to {count}"
    raise ValueError(
        f"the question names {names}, but there {there}; draw a box around what you mean, or name an existing region"
    )
