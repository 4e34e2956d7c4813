"""Pickles of plain containers, numbers, texts and, if asked for, NumPy arrays; anything else in one is refused.

An ordinary pickle runs whatever code its writer wished, which annotation files from the web must not.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from gpt4roi_nb.files import check_regular_file

PICKLES = (".p", ".pkl", ".pickle")
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
# What the unpickler raises on damaged data, found by cutting and garbling pickles.
_DAMAGED = (
    EOFError, AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError, MemoryError,
    ImportError, NotImplementedError,
)  # fmt: skip
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")


def read_pickle(file: Path, *, arrays: bool = False) -> Any:
    """What a pickle holds. arrays: whether NumPy arrays of numbers are admitted.

    Text of Python 2 is read as Latin-1, as NumPy's arrays need.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file, or it is a folder.
        ValueError: it is truncated or no pickle, or holds anything but data.
    """
    check_regular_file(file)
    with file.open("rb") as stream:
        try:
            return _DataUnpickler(stream, arrays).load()
        except pickle.UnpicklingError as error:
            raise ValueError(f"{str(file)!r} cannot be read: {error}") from error
        except _DAMAGED as error:
            raise ValueError(f"{str(file)!r} is truncated or no pickle: {error}") from error


class _DataUnpickler(pickle.Unpickler):
    def __init__(self, stream: Any, arrays: bool) -> None:
        super().__init__(stream, encoding="latin-1")
        self._arrays = arrays

    def find_class(self, module: str, name: str) -> Any:
        if self._arrays:
            if module in _MULTIARRAY and name == "_reconstruct":
                return _empty_array
            if (module, name) == ("numpy", "ndarray"):
                return name  # only ever an argument of the above: nothing here may make an array of any size
            if (module, name) == ("numpy", "dtype"):
                return _number_type
            if module in _NUMERIC and name == "_frombuffer":
                return _array_of
            if (module, name) == ("_codecs", "encode"):
                return _bytes
        admitted = "plain containers, numbers, texts" + (" and NumPy arrays of numbers" if self._arrays else "")
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, but only {admitted} are admitted")


def _empty_array(kind: object, shape: object, typecode: object) -> np.ndarray[Any, Any]:
    """What a pickled array begins as, before its contents are set."""
    return np.ndarray((0,), np.int8)


def _number_type(code: str, *rest: object) -> np.dtype[Any]:
    dtype = np.dtype(code)
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"it holds an array of {dtype}, but only arrays of numbers are admitted")
    return dtype


def _array_of(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> np.ndarray[Any, Any]:
    """How pickles of protocol 5 write an array."""
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")


def _bytes(text: str, encoding: str) -> bytes:
    """How pickles of protocol 2 write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it writes bytes as {encoding!r}, not as latin1")
    return text.encode("latin-1")
