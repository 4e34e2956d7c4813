"""JSON files of any size, an element at a time: COCO's is 450 MB of text, and several times that in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from gpt4roi_nb.data.problems import BROKEN_JSON, BadRecord, Problems

CHUNK = 2**20  # characters read at once, while an element of usual size is looked for
MAX_ELEMENT = 2**27  # characters; what does not end within them is broken, not large
_BLANKS = " \t\n\r\ufeff"


def elements(file: Path, problems: Problems) -> Iterator[tuple[str, Any]]:
    """(key, element) for each element of each array at the file's top level, and (key, value) for what is no array.

    If the file is itself an array, the key of its elements is "". A file that is cut short or broken gives what
    stands before, and one bad record.
    """
    with file.open(encoding="utf-8", errors="replace") as stream:
        reader = _Reader(stream)
        try:
            if reader.take("["):
                yield from (("", element) for element in _array(reader))
            else:
                yield from _object(reader)
        except json.JSONDecodeError as error:
            detail = f"the file is truncated or no JSON: {error.msg} about character {reader.position:,}"
            problems.add(BadRecord(BROKEN_JSON, detail), file.name)


def lines(file: Path, problems: Problems) -> Iterator[tuple[int, Any]]:
    """(number from 1, value) of each line of a JSON Lines file; a broken line is a bad record."""
    with file.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                problems.add(BadRecord(BROKEN_JSON, str(error)), f"{file.name}: line {number}")
                continue
            yield number, value


def _object(reader: _Reader) -> Iterator[tuple[str, Any]]:
    reader.expect("{")
    if reader.take("}"):
        return
    while True:
        key = str(reader.value())
        reader.expect(":")
        if reader.take("["):
            yield from ((key, element) for element in _array(reader))
        else:
            yield key, reader.value()
        if not reader.take(","):
            reader.expect("}")
            return


def _array(reader: _Reader) -> Iterator[Any]:
    if reader.take("]"):
        return
    while True:
        yield reader.value()
        if not reader.take(","):
            reader.expect("]")
            return


class _Reader:
    """A text read in chunks, and a place in it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._decode = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._before = 0  # characters that were read and dropped
        self._ended = False

    @property
    def position(self) -> int:
        return self._before + self._at

    def take(self, sign: str) -> bool:
        """Passes `sign`, if it comes next after blanks."""
        if self._next() != sign:
            return False
        self._at += 1
        return True

    def expect(self, sign: str) -> None:
        if not self.take(sign):
            raise json.JSONDecodeError(f"expected {sign!r}", self._text, self._at)

    def value(self) -> Any:
        """The JSON value that comes next."""
        self._next()
        size = CHUNK
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError:
                if self._ended or len(self._text) - self._at > MAX_ELEMENT:
                    raise
            else:
                if end < len(self._text) or self._ended:  # else a number may go on
                    self._at = end
                    return value
            self._more(size)
            size *= 2  # so that a long element is not tried over and over

    def _next(self) -> str:
        """The next character that is not blank, "" at the end."""
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
