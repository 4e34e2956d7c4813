"""Numbers and events as a caller gives them: Python's or NumPy's, checked and converted."""

from __future__ import annotations

import numbers
import operator
from typing import Any


def whole_number(value: Any, name: str, least: int | None = None) -> int:
    """The integer that an argument is; NumPy's integers count, booleans and 2.0 do not.

    Args:
        value: what the caller gave.
        name: how messages call the argument.
        least: the smallest that is allowed; None allows any.

    Raises:
        TypeError: it is no integer.
        ValueError: it is less than `least`.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, but is {value!r}") from None
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, but is {number}")
    return number


def real_number(value: Any, name: str) -> float:
    """The float that an argument is; NumPy's numbers count, booleans do not. NaN and infinity are for the caller.

    Raises:
        TypeError: it is no real number.
        ValueError: it is an integer that no float can hold.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, but is {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number that a float can hold, but has more than 308 digits") from None


def check_stop(stop: Any) -> None:
    """Raises TypeError where `stop` is no event: True would end nothing, and could not be taken back."""
    if stop is not None and not callable(getattr(stop, "is_set", None)):
        raise TypeError(f"stop must be a threading.Event, whose set() ends the work, or None, but is {stop!r}")
