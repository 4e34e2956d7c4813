"""Read JSON files of any size one element at a time: COCO's is 450 MB of text, and several times that in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from gpt4roi_nb.data.problems import BROKEN_JSON, BadRecord, Problems
from gpt4roi_nb.files import check_regular_file

CHUNK = 2**20  # characters per read, until an element turns out to be longer
MAX_ELEMENT = 2**27  # characters; a longer element is broken, not large
_LOOKED_AT = 4  # characters after a number: "e-1" and a digit could still belong to it
_BLANKS = " \t\n\r\ufeff"
_TOO_DEEP = "lists or objects are nested too deep"
# What decides where an element ends: a string, or the rest of one; a bracket; a comma.
_SIGNS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
_NOWHERE, _LATER = -1, -2
_CLOSES = {"[": "]", "{": "}"}


def elements(file: Path, problems: Problems) -> Iterator[tuple[str, Any]]:
    """Yield (key, element) for each element of each top-level array of a file, and (key, value) for other values.

    If the file itself is an array, the key of its elements is "". A broken element is noted as a bad record, and the
    others are yielded. A file that is cut short, or broken between its elements, yields what comes before, and one bad
    record is noted.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file, or it is a folder.
        ValueError: it is not an ordinary file.
    """
    check_regular_file(file)
    with file.open(encoding="utf-8", errors="replace") as stream:
        reader = _Reader(stream, file.name, problems)
        try:
            if reader.take("["):
                yield from (("", element) for element in _array(reader))
            else:
                yield from _object(reader)
        except json.JSONDecodeError as error:
            detail = f"the file is truncated or not JSON: {error.msg} near character {reader.position:,}"
            problems.add(BadRecord(BROKEN_JSON, detail), file.name)


def lines(file: Path, problems: Problems) -> Iterator[tuple[int, Any]]:
    """Yield (number from 1, value) for each line of a JSON Lines file; note broken lines. Raises as `elements`."""
    check_regular_file(file)
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                value = parsed(line)
            except BadRecord as bad:
                problems.add(bad, f"{file.name}: line {number}")
                continue
            yield number, value


def parsed(text: str) -> Any:
    """Return the value of a JSON text. Raises BadRecord if it is broken."""
    try:
        return json.loads(text)
    except ValueError as error:  # also raised for a number of thousands of digits
        raise BadRecord(BROKEN_JSON, str(error)) from error
    except RecursionError as error:
        raise BadRecord(BROKEN_JSON, _TOO_DEEP) from error


def _object(reader: _Reader) -> Iterator[tuple[str, Any]]:
    reader.expect("{")
    if reader.take("}"):
        return
    while True:
        key = reader.key()
        reader.expect(":")
        if reader.take("["):
            yield from ((key, element) for element in _array(reader))
        else:
            yield from ((key, value) for value in reader.value())
        if not reader.take(","):
            reader.expect("}")
            return


def _array(reader: _Reader) -> Iterator[Any]:
    if reader.take("]"):
        return
    while True:
        yield from reader.value()
        if not reader.take(","):
            reader.expect("]")
            return


class _Reader:
    """A text read in chunks, and a position in it. name: the file's name in the notes of broken elements."""

    def __init__(self, stream: TextIO, name: str, problems: Problems) -> None:
        self._stream = stream
        self._name = name
        self._problems = problems
        self._decode = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._before = 0  # characters that were read and dropped
        self._ended = False

    @property
    def position(self) -> int:
        return self._before + self._at

    def take(self, sign: str) -> bool:
        """Skip blanks, and `sign` if it comes next; return whether it did."""
        if self._next() != sign:
            return False
        self._at += 1
        return True

    def expect(self, sign: str) -> None:
        if not self.take(sign):
            raise json.JSONDecodeError(f"expected {sign!r}", self._text, self._at)

    def key(self) -> str:
        """Read the string that comes next, the key of an object."""
        if self._next() != '"':
            raise json.JSONDecodeError("expected a key in quotes", self._text, self._at)
        keys = list(self.value())
        if not keys:
            raise json.JSONDecodeError("a key is broken", self._text, self._at)
        return str(keys[0])

    def value(self) -> Iterator[Any]:
        """Yield the JSON value that comes next; note and skip it if it is broken."""
        self._next()
        size = CHUNK
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if (end := self._end()) >= 0:
                    detail = _TOO_DEEP if isinstance(error, RecursionError) else str(error)
                    where = f"{self._name}: near character {self.position:,}"
                    self._problems.add(BadRecord(BROKEN_JSON, detail), where)
                    self._at = end
                    return
                if self._ended or end == _NOWHERE or self._is_too_long():
                    raise json.JSONDecodeError("an element does not end", self._text, self._at) from error
            else:
                rest = self._text[end : end + _LOOKED_AT]
                number = type(value) in (int, float)
                cut = not rest or (number and len(rest) < _LOOKED_AT and rest[0] in ".eE")
                if self._ended or not cut:  # otherwise a number may continue
                    self._at = end
                    yield value
                    return
                if self._is_too_long():
                    raise json.JSONDecodeError("an element does not end", self._text, self._at)
            self._more(size)
            size *= 2  # so that a long element is not parsed over and over

    def _is_too_long(self) -> bool:
        return len(self._text) - self._at > MAX_ELEMENT

    def _end(self) -> int:
        """Where the next element ends, by its brackets; `_NOWHERE` if they do not match, `_LATER` if its end was not
        read yet."""
        closing = bytearray()  # what closes the open brackets, one byte per bracket, since there may be millions
        for found in _SIGNS.finditer(self._text, self._at):
            sign = found[0]
            if sign in _CLOSES:
                closing += _CLOSES[sign].encode()
            elif sign in "]}" or sign == ",":
                if not closing:
                    return found.start()
                if sign != "," and closing.pop() != ord(sign):
                    return _NOWHERE
        return _LATER

    def _next(self) -> str:
        """The next character that is not blank; "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _BLANKS:
                    return self._text[self._at]
                self._at += 1
            if self._ended:
                return ""
            self._more(CHUNK)

    def _more(self, size: int) -> None:
        chunk = self._stream.read(size)
        self._ended = not chunk
        self._before += self._at
        self._text = self._text[self._at :] + chunk
        self._at = 0
