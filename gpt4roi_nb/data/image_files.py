"""Which pictures of a data set are there, and how large they are, without decoding them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from gpt4roi_nb.data.problems import NO_IMAGE, UNREADABLE_IMAGE, BadRecord

_ORIENTATION = 0x0112
_LYING = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def image_size(file: Path) -> tuple[int, int]:
    """(width, height) in pixels of the upright picture, from its header. Raises BadRecord if it cannot be told."""
    try:
        with Image.open(file) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(_ORIENTATION) in _LYING else (width, height)
    except FileNotFoundError as error:
        raise BadRecord(NO_IMAGE, f"there is no {str(file)!r}") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadRecord(UNREADABLE_IMAGE, str(error)) from error


def missing(root: Path, names: Iterable[str]) -> set[str]:
    """Those of `names`, paths relative to `root`, that are no file there. A folder is listed once: network disks."""
    listings: dict[str, set[str]] = {}
    absent = set()
    for name in names:
        folder, _, file = name.rpartition("/")
        if folder not in listings:
            try:
                with os.scandir(root / folder) as entries:
                    listings[folder] = {entry.name for entry in entries}
            except (FileNotFoundError, NotADirectoryError):
                listings[folder] = set()
        if file not in listings[folder]:
            absent.add(name)
    return absent
