"""Recordings on disk: named arrays, an image and a description in one `.npz` or `.safetensors` file."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gpt4roi_nb.files import check_regular_file, given_path, parse_json, replacing

ENDINGS = (".npz", ".safetensors")
IMAGE_SIDE = 1024  # enough to draw on; a photograph of 50 megapixels would be larger than what is drawn over it
_ABOUT, _IMAGE = "about", "picture"  # names in the file
# What the readers of both file formats raise for damaged files, found by cutting and garbling some.
_DAMAGED = (
    OSError, ValueError, LookupError, TypeError, EOFError, MemoryError, NotImplementedError, RuntimeError,
    zipfile.BadZipFile, zlib.error, SafetensorError,
)  # fmt: skip


def float32_copy(tensor: Tensor) -> Tensor:
    """Copy a tensor as float32 to the CPU, usable outside inference mode."""
    with torch.inference_mode(False):
        return tensor.detach().to("cpu", torch.float32, copy=True)


def small_image(image: Image.Image) -> Image.Image:
    """Return the image, or a copy whose longer side is `IMAGE_SIDE`."""
    if max(image.size) <= IMAGE_SIDE:
        return image
    copy = image.copy()
    copy.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    return copy


def write(
    path: str | os.PathLike[str], kind: str, tensors: dict[str, Tensor], image: Image.Image, about: dict[str, Any]
) -> None:
    """Write a recording, under a temporary name first, so that an interrupted write does not leave half a file.

    Args:
        path: ends with .npz or .safetensors.
        kind: of the recording, such as "attention".
        tensors: by name.
        image: is stored as RGB.
        about: a description; must be JSON.

    Raises:
        ValueError: for a name with another ending.
        FileNotFoundError: if its folder does not exist.
    """
    target = _checked(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(target.parent)!r} to save {target.name!r} in; make it first")
    text = json.dumps({"kind": kind, **about}, ensure_ascii=False)
    arrays = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    arrays[_IMAGE] = torch.from_numpy(np.array(image.convert("RGB")))
    with replacing(target) as partial:
        if target.suffix == ".npz":
            with partial.open("wb") as stream:
                np.savez_compressed(
                    stream,
                    allow_pickle=False,
                    **{_ABOUT: np.array(text)},
                    **{name: tensor.numpy() for name, tensor in arrays.items()},
                )
        else:
            save_file(arrays, partial, metadata={_ABOUT: text})


def read(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Tensor], Image.Image, dict[str, Any]]:
    """Read what `write` wrote.

    Args:
        path: ends with .npz or .safetensors.
        kind: the expected kind.

    Returns:
        (tensors, image, description).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or of another kind.
    """
    source = _checked(path)
    if not source.exists():
        raise FileNotFoundError(f"no saved {kind} at {str(path)!r}")
    check_regular_file(source)
    try:
        if source.suffix == ".npz":
            with np.load(source, allow_pickle=False) as content:
                text = str(content[_ABOUT])
                tensors = {name: torch.from_numpy(content[name]) for name in content.files if name != _ABOUT}
        else:
            with safe_open(source, framework="pt") as content:
                text = (content.metadata() or {})[_ABOUT]
                tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
        about = parse_json(text, "its description")
        found = about["kind"]
        image = Image.fromarray(tensors.pop(_IMAGE).numpy())
        if image.mode != "RGB" or 0 in image.size:
            raise ValueError(f"expected an RGB image, but it holds {image.size} pixels of mode {image.mode}")
    except _DAMAGED as error:
        raise ValueError(f"{str(path)!r} is damaged, or no saved {kind}: {type(error).__name__} {error}") from error
    if found != kind:
        raise ValueError(f"expected saved {kind}, but {str(path)!r} holds {found!r}")
    return tensors, image, about


@contextmanager
def checking(path: str | os.PathLike[str], kind: str) -> Iterator[None]:
    """Name the file in a ValueError that the block raises about what it holds."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is damaged, or no saved {kind}: {error}; save it again") from error


def check_shapes(tensors: dict[str, Tensor], shapes: Iterable[tuple[str, str]], **sizes: int) -> None:
    """Check that tensors are there, hold real numbers, and fit each other.

    Args:
        tensors: by name.
        shapes: (name, its axes such as "regions 4"); an axis with a name has one length in all tensors.
        sizes: lengths that are known, by axis.

    Raises:
        ValueError: for the first tensor that does not fit.
    """
    for name, axes in shapes:
        if name not in tensors:
            raise ValueError(f"it lacks {name!r}")
        found, named = tuple(tensors[name].shape), axes.split()
        fits = len(found) == len(named)
        for axis, length in zip(named, found, strict=False):
            fits &= length == (int(axis) if axis.isdecimal() else sizes.setdefault(axis, length))
        if not fits:
            lengths = ", ".join(f"{axis} = {sizes[axis]}" for axis in dict.fromkeys(named) if axis in sizes)
            raise ValueError(f"{name!r} must be of shape ({', '.join(named)}), with {lengths}, but is {found}")
        if not tensors[name].is_floating_point():
            raise ValueError(f"{name!r} must hold real numbers, but holds {tensors[name].dtype}")


def _checked(path: str | os.PathLike[str]) -> Path:
    given = given_path(path)
    if given.suffix not in ENDINGS:
        raise ValueError(f"the file's name must end in {' or '.join(ENDINGS)}, but is {str(path)!r}")
    return given
