"""The tensors of a folder of weights, read one at a time: safetensors, or PyTorch's older `.bin`, in shards or not."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gpt4roi_nb.files import check_name, read_json

# In the order of preference: the index of the shards, and the one file that takes their place.
LAYOUTS = (
    ("model.safetensors.index.json", "model.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin"),
)


# What torch.load raises for a file that it cannot read, besides UnpicklingError (found by trying).
UNREADABLE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError),
    *(ValueError, struct.error, zipfile.BadZipFile),
)
# The remedy for a missing file.
HOW_TO_DOWNLOAD = "`hf download NAME` gets it from a hub, and does not download again what is already there"


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's file, shape and dtype, known without reading its values."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype


class Shards:
    """All tensors of a folder by name. Only `read` reads their values, and does not keep them.

    Attributes:
        files: the weights files.
        tensors: the tensors in them, in the files' order.

    Raises:
        FileNotFoundError: the folder has no weights, or lacks a shard that its index names.
        ValueError: a file is truncated, is not a weights file, or could run code when it is read; or the shards do not
            contain what their index says.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: tuple[Path, dict[str, Tensor]] | None = None
        promised = self._promised()
        self.files = sorted({folder / name for name in promised.values()} or {self._single()})
        for file in self.files:
            check_inside(folder, file.name)
            if not file.is_file():
                names = [name for name, shard in promised.items() if shard == file.name]
                raise FileNotFoundError(
                    f"{str(folder)!r} lacks its weights file {file.name}, which contains {len(names)} tensors, such as "
                    f"{names[0]}; copy it as well ({HOW_TO_DOWNLOAD})"
                )
        self.tensors: dict[str, TensorInfo] = {}
        for file in self.files:
            for name, info in _contents(file):
                if name in self.tensors:
                    raise ValueError(f"{name} is in both {self.tensors[name].file.name} and {file.name}")
                self.tensors[name] = info
        for name, shard in promised.items():
            if name not in self.tensors:
                raise ValueError(f"{str(folder / shard)!r} lacks {name}, which its index lists; copy it again")

    def read(self, name: str) -> Tensor:
        """Read a tensor into its own memory."""
        # The file is reopened each time: while it is open, its mapped pages count as memory of this process, up to
        # the size of all shards.
        file = self.tensors[name].file
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                tensor: Tensor = opened.get_tensor(name)
        elif zipfile.is_zipfile(file):
            tensor = load_bin(file)[name]
        else:  # an old file cannot be mapped, so it stays in memory until another is needed
            if self._held is None or self._held[0] != file:
                self._held = None
                self._held = file, load_bin(file)
            tensor = self._held[1][name]
        return tensor.clone()

    def _promised(self) -> dict[str, str]:
        """Tensor → file name, from the index; empty without one."""
        incomplete: dict[str, str] = {}
        for index, single in LAYOUTS:
            if (self.folder / index).is_file():
                names = weight_map(self.folder / index)
                if all((self.folder / name).is_file() for name in names.values()):
                    return names
                incomplete = incomplete or names
            if (self.folder / single).is_file():
                return {}
        return incomplete

    def _single(self) -> Path:
        for _, name in LAYOUTS:
            if (self.folder / name).is_file():
                return self.folder / name
        expected = " or ".join(name for layout in LAYOUTS for name in layout)
        raise FileNotFoundError(f"{str(self.folder)!r} has no weights; expected {expected} ({HOW_TO_DOWNLOAD})")


def weight_map(index: Path) -> dict[str, str]:
    """Read which file each tensor is in from the index of a folder's shards.

    Returns:
        Tensor → file name.

    Raises:
        ValueError: the index has no map, or names a file outside its own folder.
    """
    content = read_json(index, with_mark=False)
    names = content.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{str(index)!r} has no weight_map; copy it again")
    if not isinstance(content.get("metadata", {}), dict):
        raise ValueError(f"the metadata in {str(index)!r} must be an object; copy it again")
    for name in names.values():
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".."):
            raise ValueError(f"{str(index)!r} names {name!r}; expected files in its own folder")
        check_name(index.with_name(name))
    return names


def check_inside(folder: Path, name: str) -> None:
    """Raise ValueError if a file of a folder is a link to a place outside it.

    Links into the hub's cache are allowed: there every file is a link, from `models--NAME/snapshots/REVISION` to
    `models--NAME/blobs`, and older downloads into a folder link to it as well.
    """
    home, file = folder.resolve(), (folder / name).resolve()
    is_blob = file.parent.name == "blobs" and file.parent.parent.name.startswith("models--")
    allowed = [home, *((parent.parent / "blobs").resolve() for parent in home.parents if parent.name == "snapshots")]
    if not is_blob and not any(file.is_relative_to(place) for place in allowed):
        raise ValueError(
            f"{name} in {str(folder)!r} is a link out of the folder, to {str(file)!r}; put the file itself there, or "
            "name the folder that it is in"
        )


def _contents(file: Path) -> Iterator[tuple[str, TensorInfo]]:
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118  # it is no dictionary
                    piece = opened.get_slice(name)
                    dtype = _DTYPES.get(piece.get_dtype())
                    if dtype is None:
                        raise ValueError(
                            f"{name} in {str(file)!r} is stored as {piece.get_dtype()}; expected plain floats"
                        )
                    yield name, TensorInfo(file, tuple(piece.get_shape()), dtype)
        except SafetensorError as error:
            raise ValueError(
                f"{str(file)!r} is truncated or not a safetensors file ({error}); copy it again"
            ) from error
    else:
        for name, tensor in load_bin(file).items():
            yield name, TensorInfo(file, tuple(tensor.shape), tensor.dtype)


def load_bin(file: Path) -> dict[str, Tensor]:
    """Load a PyTorch weights file without ever running code from it; values stay on disk until they are used.

    Raises:
        ValueError: the file is truncated, is not a plain state dict, or could run code.
    """
    # PyTorch's format before version 1.6 is not a zip archive and cannot be mapped: all of it is read into memory.
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{str(file)!r} contains more than tensors, or is not a weights file; it is not loaded, since reading it "
            "could run code: get the weights as safetensors, or as a plain state dict"
        ) from error
    except UNREADABLE as error:
        raise ValueError(f"{str(file)!r} is truncated or not a PyTorch file ({error}); copy it again") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{str(file)!r} is not a plain state dict; expected one dictionary of names and tensors")
    return content


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
