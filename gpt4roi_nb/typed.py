"""Check what a JSON file holds against type hints."""

from __future__ import annotations

import dataclasses
import reprlib
import types
from collections.abc import Collection, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from gpt4roi_nb.arguments import real_number

_WORDS = {str: "text", bool: "true or false", int: "a whole number", list: "a list", tuple: "a list", dict: "an object"}


def typed(value: Any, hint: Any, name: str) -> Any:
    """Return a value as its type hint says, with tuples and data classes in place of JSON's lists and objects.

    Args:
        value: what a JSON file holds.
        hint: str, bool, int, float, None, `list[…]`, `tuple[…]` (`tuple[…, ...]` of any length), `dict[str, …]`, a data
            class of such fields, or a union of them with None.
        name: of the value, in messages.

    Raises:
        ValueError: if the value is of another type; the message names the place.

    >>> typed([1, 2], tuple[float, float], "the interval")
    (1.0, 2.0)
    """
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        return (
            None if value is None else typed(value, next(one for one in arguments if one is not types.NoneType), name)
        )
    if dataclasses.is_dataclass(origin):
        missing = dataclasses.MISSING
        optional = [
            one.name for one in dataclasses.fields(origin) if (one.default, one.default_factory) != (missing, missing)
        ]
        return hint(**typed_fields(value, get_type_hints(origin), name, optional))
    if origin is Any:
        return value
    if origin is float:
        try:
            return real_number(value, name)
        except TypeError as error:
            raise ValueError(str(error)) from None
    fits = isinstance(value, list if origin is tuple else origin) and (origin is bool or not isinstance(value, bool))
    if not fits:
        raise ValueError(f"{name} must be {_WORDS[origin]}, but is {reprlib.repr(value)}")
    if origin is list:
        return [typed(one, arguments[0], f"each of {name}") for one in value]
    if origin is dict:
        return {key: typed(one, arguments[1], f"{reprlib.repr(key)} of {name}") for key, one in value.items()}
    if origin is tuple:
        if arguments[1:] == (...,):
            return tuple(typed(one, arguments[0], f"each of {name}") for one in value)
        if len(value) != len(arguments):
            raise ValueError(f"{name} must be a list of {len(arguments)}, but is {reprlib.repr(value)}")
        return tuple(typed(one, its, f"each of {name}") for one, its in zip(value, arguments, strict=True))
    return value


def typed_fields(content: Any, hints: Mapping[str, Any], name: str, optional: Collection[str] = ()) -> dict[str, Any]:
    """Return the entries of an object that `hints` name, as `typed`; those that are `optional` may be missing.

    Raises:
        ValueError: if it is no object, lacks an entry, has others, or one is of another type.
    """
    entries = typed(content, dict[str, Any], name)
    if absent := [key for key in hints if key not in entries and key not in optional]:
        raise ValueError(f"{name} lacks {absent[0]!r}")
    if unknown := [key for key in entries if key not in hints]:
        raise ValueError(f"{name} has {reprlib.repr(unknown[0])}, which this version does not know")
    return {key: typed(value, hints[key], f"{key!r} of {name}") for key, value in entries.items()}
