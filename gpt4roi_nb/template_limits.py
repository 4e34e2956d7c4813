"""Render chat templates from elsewhere: one that does not end, or would fill the memory, ends with an error."""

from __future__ import annotations

import inspect
import re
import string
import sys
from collections.abc import Callable
from math import prod
from pathlib import Path
from types import BuiltinMethodType, FrameType
from typing import Any

import jinja2
from jinja2 import Environment, TemplateError

# Lines of the compiled template, and of jinja2 for it, that one rendering may execute: a few hundred turns take some
# ten thousand.
MAX_LINES = 1_000_000
MAX_NUMBER = 100_000  # as jinja2's own limit of a range
MAX_SIZE = 50_000_000  # characters of one value, and of all that one rendering makes
_LARGE = 1000  # texts of this size are remembered, so that each is counted once
_COMPILED = "<template>"  # what jinja2 calls the file of a template's code
_FILTERS, _SANDBOX, *_OTHERS = (
    str(Path(jinja2.__file__).with_name(name)) for name in ("filters.py", "sandbox.py", "runtime.py", "utils.py")
)
_WATCHED = {_COMPILED, _FILTERS, _SANDBOX, *_OTHERS, string.__file__}
_JOIN, _TOJSON = "sync_do_join", "tojson"  # jinja2's, and transformers'
_COUNTS = f"it counts beyond {MAX_NUMBER:,}, which no chat template needs"
_FORMATS = {"do_format": "value", "format_field": "format_spec"}  # functions, and their argument that may name widths
_WIDTH = re.compile(rf"\d{{{len(str(MAX_NUMBER))},}}")
_CONVERSION = re.compile(r"%[-+ #0]*([\d.*]|$)")  # with a width, or one that may be appended
# What `render_within_limits` raises: jinja2's own errors, and those of a template's expressions.
TEMPLATE_ERRORS = (
    *(TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError),
)


def render_within_limits(template: Any, render: Callable[[], Any]) -> Any:
    """Call `render`, which renders a template, or one of several by name; a template may never end, or fill the memory.

    Raises:
        TemplateError: beyond a limit. What else a template raises is in `TEMPLATE_ERRORS`.
    """
    _check_operators(template)
    return _bounded(render)


def _check_operators(template: Any) -> None:
    """Raise TemplateError for what may fill the memory within one line: products, powers and large numbers."""
    for text in template.values() if isinstance(template, dict) else [template]:
        tokens = [(kind, value) for _, kind, value in Environment().lex(text)]
        operators = {value for kind, value in tokens if kind == "operator"}
        if operators & {"*", "**"}:
            raise TemplateError("it multiplies (* or **), which no chat template needs")
        if "%" in operators and any(
            kind in ("string", "data") and _CONVERSION.search(value.strip("'\"")) for kind, value in tokens
        ):
            raise TemplateError("it formats with a width (%), which no chat template needs")
        for kind, value in tokens:
            if kind == "integer" and int(value.replace("_", ""), 0) > MAX_NUMBER:
                raise TemplateError(_COUNTS)


def _bounded(render: Callable[[], Any]) -> Any:
    """Call `render`; raise TemplateError once the template has executed `MAX_LINES` lines or makes too large values."""
    before = sys.gettrace()
    sys.settrace(_Watch().enter)  # of this thread alone
    try:
        return render()
    except _TooMuch as error:
        raise TemplateError(str(error)) from None
    finally:
        sys.settrace(before)


class _TooMuch(BaseException):
    """Ends a rendering. No Exception: jinja2 catches those where it computes constants, and the watch would be over."""


class _Watch:
    """Counts the lines that a template executes, and measures its values before it computes with them.

    Python calls `enter` for each function's call, and what that returns for each line and the end of the call. Neither
    sees into functions written in C. So their arguments are measured: none makes more than the product of their sizes.
    """

    def __init__(self) -> None:
        self.lines = 0
        self.made = 0
        self._known: dict[int, tuple[Any, int]] = {}  # id → the value, which keeps the id its own, and its size

    def enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if code.co_filename not in _WATCHED and code.co_name != _TOJSON:
            return None
        if code.co_filename in (_FILTERS, _SANDBOX) or code.co_name == _TOJSON:
            self._check_size(prod(max(1, self._factor(value)) for value in _given(frame)))
        if code.co_name in _FORMATS and _WIDTH.search(str(frame.f_locals[_FORMATS[code.co_name]])):
            raise _TooMuch(f"it formats with a width beyond {MAX_NUMBER:,}, which no chat template needs")
        if code.co_name == _JOIN:  # of what may be a generator, which has no size
            self._check_size(MAX_NUMBER * self.size(frame.f_locals["d"]))
        return self.follow

    def follow(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.lines += 1
            if self.lines > MAX_LINES:
                raise _TooMuch(f"it was not finished after {MAX_LINES:,} lines; it may never end")
            if frame.f_code.co_filename == _COMPILED:
                for name, value in frame.f_locals.items():
                    if name.startswith("l_"):  # the template's own variables
                        self.size(value)
        elif event == "return":
            size = self.size(argument)
            self.made += size if size < _LARGE else 0  # larger ones are counted when they are first seen
        return self.follow

    def size(self, value: Any) -> int:
        """Characters that it takes to write the value, about: what it contains twice counts twice."""
        if isinstance(value, int):
            if abs(value) > MAX_NUMBER:
                raise _TooMuch(_COUNTS)
            return 1
        if not isinstance(value, str | list | tuple | dict):
            return 1
        size = len(value)
        if (isinstance(value, str) and size < _LARGE) or id(value) in self._known:
            return self._known.get(id(value), (value, size))[1]
        self.made += size
        if not isinstance(value, str):
            self._known[id(value)] = value, size
            size += sum(map(self.size, [*value, *value.values()] if isinstance(value, dict) else value))
        self._check_size(size)
        self._known[id(value)] = value, size
        return size

    def _factor(self, value: Any) -> int:
        """How many times more a function may make because of this argument; a number may be a width or a count."""
        size = self.size(value.__self__ if isinstance(value, BuiltinMethodType) else value)
        return abs(value) if isinstance(value, int) else size

    def _check_size(self, size: int) -> None:
        if max(size, self.made) > MAX_SIZE:
            raise _TooMuch(f"it makes more than {MAX_SIZE:,} characters; it may fill the memory")


def _given(frame: FrameType) -> list[Any]:
    """What a function was called with, its starred arguments one by one."""
    names, starred, keywords, values = inspect.getargvalues(frame)
    given = [values[name] for name in names if name in values]
    return [*given, *values.get(starred or "", ()), *values.get(keywords or "", {}).values()]
