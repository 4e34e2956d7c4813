"""Check and convert arguments: numbers, which may be Python's or NumPy's, and events."""

from __future__ import annotations

import numbers
import operator
from typing import Any


def whole_number(value: Any, name: str, least: int | None = None, most: int | None = None) -> int:
    """Return an argument as an int. NumPy integers are accepted; booleans and floats such as 2.0 are not.

    Args:
        value: the argument.
        name: its name in messages.
        least, most: the smallest and the largest value allowed; None allows any.

    Raises:
        TypeError: if it is not an integer.
        ValueError: if it is less than `least` or more than `most`.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, but is {value!r}") from None
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, but is {number}")
    if most is not None and number > most:
        raise ValueError(f"{name} must be at most {most}, but is {number}")
    return number


def real_number(value: Any, name: str) -> float:
    """Return an argument as a float. NumPy numbers are accepted, booleans are not; the caller checks NaN and infinity.

    Args:
        value: the argument.
        name: its name in messages.

    Raises:
        TypeError: if it is not a real number.
        ValueError: if it is an integer that no float can hold.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, but is {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number that a float can hold, but has more than 308 digits") from None


def check_stop(stop: Any) -> None:
    """Raise TypeError if `stop` is neither None nor an event: True would stop nothing and could not be unset."""
    if stop is not None and not callable(getattr(stop, "is_set", None)):
        raise TypeError(f"stop must be a threading.Event, whose set() ends the work, or None, but is {stop!r}")
