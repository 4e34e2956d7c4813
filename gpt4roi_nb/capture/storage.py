"""Recordings on disk: named arrays, a picture and a description in one `.npz` or `.safetensors` file."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gpt4roi_nb.files import check_regular_file, parse_json, replacing

ENDINGS = (".npz", ".safetensors")
PICTURE_SIDE = 1024  # enough to draw on; a photograph of 50 megapixels would be larger than what is shown over it
_ABOUT, _PICTURE = "about", "picture"
# What the readers of both kinds of file raise on damaged ones, found by cutting and garbling them.
_DAMAGED = (
    OSError, ValueError, LookupError, TypeError, EOFError, MemoryError, NotImplementedError, RuntimeError,
    zipfile.BadZipFile, zlib.error, SafetensorError,
)  # fmt: skip


def small_picture(image: Image.Image) -> Image.Image:
    """The picture, or a copy whose longer side is `PICTURE_SIDE`."""
    if max(image.size) <= PICTURE_SIDE:
        return image
    copy = image.copy()
    copy.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    return copy


def write(
    path: str | os.PathLike[str], kind: str, tensors: dict[str, Tensor], picture: Image.Image, about: dict[str, Any]
) -> None:
    """Writes under another name first, so that an interrupted write leaves no half file.

    Raises:
        ValueError: for a name that ends neither in .npz nor in .safetensors.
        FileNotFoundError: where its folder does not exist.
    """
    target = _checked(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no folder {str(target.parent)!r} to save {target.name!r} in; make it first")
    text = json.dumps({"kind": kind, **about}, ensure_ascii=False)
    arrays = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    arrays[_PICTURE] = torch.from_numpy(np.array(picture.convert("RGB")))
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
    """(tensors, picture, description) of what `write` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or of another kind.
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
        picture = Image.fromarray(tensors.pop(_PICTURE).numpy())
    except _DAMAGED as error:
        raise ValueError(f"{str(path)!r} is damaged, or no saved {kind}: {type(error).__name__} {error}") from error
    if found != kind:
        raise ValueError(f"{str(path)!r} holds {found!r}, but expected a saved {kind}")
    return tensors, picture, about


def _checked(path: str | os.PathLike[str]) -> Path:
    given = Path(path).expanduser()
    if given.suffix not in ENDINGS:
        raise ValueError(f"the file's name must end in {' or '.join(ENDINGS)}, but is {str(path)!r}")
    return given
