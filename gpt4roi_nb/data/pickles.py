"""Read pickles that hold only plain containers, numbers, strings and, on request, NumPy arrays.

Loading an ordinary pickle runs any code that its author put in; an annotation file from the web must not do that.
"""

from __future__ import annotations

import mmap
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np

from gpt4roi_nb.files import check_regular_file

PICKLES = (".p", ".pkl", ".pickle")
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
# What the unpickler raises on damaged data; found by cutting and garbling pickles.
_DAMAGED = (
    EOFError, AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError, MemoryError,
    ImportError, NotImplementedError,
)  # fmt: skip
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")


def read_pickle(file: Path, *, arrays: bool = False) -> Any:
    """Read a pickle that holds only data.

    Python 2's strings are read as Latin-1, as NumPy's arrays need.

    Args:
        file: the pickle.
        arrays: whether to allow NumPy arrays of numbers.

    Returns:
        What the pickle holds.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file, or it is a folder.
        ValueError: it is truncated or not a pickle, or holds anything but data.
    """
    check_regular_file(file)
    with file.open("rb") as stream:
        try:
            if file.stat().st_size:
                with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    _check_memo(data)
            return _DataUnpickler(stream, arrays).load()
        except pickle.UnpicklingError as error:
            raise ValueError(f"{str(file)!r} cannot be read: {error}") from error
        except _DAMAGED as error:
            raise ValueError(f"{str(file)!r} is truncated or not a pickle: {error}") from error


def _runs() -> re.Pattern[bytes]:
    """Match consecutive instructions of a pickle, except those whose argument gives its own length or a far place in
    the memo."""
    lengths: dict[int, list[bytes]] = {}
    lines: dict[int, list[bytes]] = {}
    for one in pickletools.opcodes:
        code = re.escape(one.code.encode("latin-1"))
        if one.arg is None or (one.arg.n >= 0 and one.name != "LONG_BINPUT"):
            lengths.setdefault(0 if one.arg is None else one.arg.n, []).append(code)
        elif one.arg.n == pickletools.UP_TO_NEWLINE and one.name != "PUT":
            lines.setdefault(2 if one.name in ("GLOBAL", "INST") else 1, []).append(code)
    small = [rb"p[0-9]{1,5}\n", rb"r..\0\0"]  # places for which there is always room
    to_newline = [b"[" + b"".join(codes) + b"]" + rb"[^\n]*+\n" * count for count, codes in lines.items()]
    fixed = [b"[" + b"".join(codes) + b"]" + b"." * length for length, codes in lengths.items() if length]
    plain = b"[" + b"".join(lengths[0]) + b"]++"
    return re.compile(b"(?:" + b"|".join([plain, *small, *to_newline, *fixed]) + b")*+", re.DOTALL)


_RUN = _runs()
_PUT = re.compile(rb"p([^\n]*)\n")
# By instruction: how many bytes give the length of what follows.
_PREFIXES = {
    ord(one.code): {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT8U: 8}.get(one.arg.n, 4)
    for one in pickletools.opcodes
    if one.arg is not None and one.arg.n < pickletools.UP_TO_NEWLINE
}


def _check_memo(data: mmap.mmap) -> None:
    """Check that no place in the memo lies beyond the number of objects that a file of this size can hold.

    Four bytes can name any place, and the unpickler allocates everything up to it at once, even 64 GB.

    Raises:
        pickle.UnpicklingError: a place lies beyond it. The unpickler reports everything else that is wrong.
    """
    at, size = 0, len(data)
    while True:
        run = _RUN.match(data, at)
        at = run.end() if run else at
        if at >= size:
            return
        code = data[at]
        if code in _PREFIXES:
            start = at + 1 + _PREFIXES[code]
            at = start + int.from_bytes(data[at + 1 : start], "little")
            continue
        if code == ord("r"):
            place, at = int.from_bytes(data[at + 1 : at + 5], "little"), at + 5
        elif code == ord("p") and (put := _PUT.match(data, at)) and put[1].isdigit() and len(put[1]) < 20:
            place, at = int(put[1]), put.end()
        elif code == ord("p"):
            raise pickle.UnpicklingError("a place in its memo is not a number")
        else:
            return
        if place > size:
            raise pickle.UnpicklingError(f"it names object {place:,}, but has only {size:,} bytes")


class _DataUnpickler(pickle.Unpickler):
    def __init__(self, stream: Any, arrays: bool) -> None:
        super().__init__(stream, encoding="latin-1")
        self._arrays = arrays

    def find_class(self, module: str, name: str) -> Any:
        if self._arrays:
            if module in _MULTIARRAY and name == "_reconstruct":
                return _empty_array
            if (module, name) == ("numpy", "ndarray"):
                return name  # only an argument of the above: nothing here may make an array of any size
            if (module, name) == ("numpy", "dtype"):
                return _number_type
            if module in _NUMERIC and name == "_frombuffer":
                return _array_of
            if (module, name) == ("_codecs", "encode"):
                return _bytes
        admitted = "plain containers, numbers, strings" + (" and NumPy arrays of numbers" if self._arrays else "")
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, but only {admitted} are allowed")


def _empty_array(kind: object, shape: object, typecode: object) -> np.ndarray[Any, Any]:
    """A pickled array before its contents are set."""
    return np.ndarray((0,), np.int8)


def _number_type(code: str, *rest: object) -> np.dtype[Any]:
    dtype = np.dtype(code)
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"it holds an array of {dtype}, but only arrays of numbers are allowed")
    return dtype


def _array_of(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> np.ndarray[Any, Any]:
    """An array as pickles of protocol 5 write it."""
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")


def _bytes(text: str, encoding: str) -> bytes:
    """Bytes as pickles of protocol 2 write them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it writes bytes as {encoding!r}, not as latin1")
    return text.encode("latin-1")
