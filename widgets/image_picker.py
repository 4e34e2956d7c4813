"""Choosing another image: a scene of the generated world, or a file from the user's computer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets
from PIL import Image

from gpt4roi_nb.data.scenes.scene import make_scene
from gpt4roi_nb.images import load_image
from gpt4roi_nb.widgets.display_image import encode
from gpt4roi_nb.widgets.esm import module
from gpt4roi_nb.widgets.wire import MAX_UPLOAD_BYTES

_HERE = Path(__file__).parent
SCENE_SIZE = 336  # pixels per side, as in the world that the demo checkpoint knows
THUMBNAIL_SIZE = 96
SCENES_A_PAGE = 8
# Scenes of the gallery. Training and its checks draw from series, whose seeds `scene_seed` scatters elsewhere.
FIRST_GALLERY_SEED = 7_000_000
# First bytes, or file extensions, of files that Pillow and browsers cannot read as images, and the remedies.
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_RAW_NAMES = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".raf", ".rw2", ".raw")
_AS_JPEG = "save it as JPEG or PNG"


class ImagePicker(anywidget.AnyWidget):
    """A strip of scenes and a field for a file, hidden until `opened`. Files can also be dropped or pasted on the chat.

    thumbnails: [{"seed", "data": an image file's bytes}]. max_bytes: the limit of one message; the browser shrinks
    larger images. problem: what is wrong with the chosen file, as a text.

    Messages from the browser: {"type": "scene", "seed"}, {"type": "more"}, {"type": "file", "name", "others", "shrunk"}
    with the file's bytes as a buffer, and {"type": "unreadable", "name"} with its first bytes: it is too large for a
    message, and the browser cannot read it. others: how many files came with it and are not opened. shrunk: width and
    height before, then after; absent if it was not shrunk.
    """

    _esm = module("image_picker.js")
    _css = _HERE / "image_picker.css"

    opened = traitlets.Bool(False).tag(sync=True)
    thumbnails: traitlets.List[Any] = traitlets.List().tag(sync=True)
    max_bytes = traitlets.Int(MAX_UPLOAD_BYTES).tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)

    @traitlets.observe("opened")
    def _forget_problem(self, change: object) -> None:
        self.problem = ""


def open_upload(name: str, data: bytes) -> Image.Image:
    """Open the image in a file from the browser.

    Args:
        name: of the file, for messages.
        data: its content.

    Returns:
        The image, upright RGB.

    Raises:
        ValueError: it cannot be read; the message names the file, its format if known, and what to do.
    """
    try:
        return load_image(data)
    except ValueError as error:
        raise ValueError(why_unreadable(name, data, str(error))) from error


def why_unreadable(name: str, data: bytes, otherwise: str = f"this browser cannot read it; {_AS_JPEG}") -> str:
    """Say why a file cannot be opened, and what to do.

    Args:
        name: of the file.
        data: its content, or its first bytes.
        otherwise: the reason if the format is not known.
    """
    known = _known_format(name.lower(), data)
    return f"{name} is {known}." if known else f"{name}: {otherwise}."


def _known_format(name: str, data: bytes) -> str:
    if (data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS) or name.endswith((".heic", ".heif")):
        return (
            "in Apple's HEIC format, which cannot be read here; save it as JPEG: on a Mac, Preview > File > Export; on "
            "an iPhone, Settings > Camera > Formats > Most Compatible makes future photos JPEG"
        )
    if name.endswith(_RAW_NAMES):
        return f"a camera's raw file, which cannot be read here; {_AS_JPEG} in the program that develops your photos"
    if data.startswith(b"%PDF") or name.endswith(".pdf"):
        return f"a PDF, not an image; {_AS_JPEG}, one page per file"
    if b"<svg" in data[:1000].lower():
        return "an SVG drawing, which has no pixels; export it as PNG"
    if (data[4:8] == b"ftyp" and not data[8:12].startswith(b"avi")) or name.endswith((".mp4", ".mov", ".webm", ".avi")):
        return "a video; save one frame of it as JPEG or PNG"
    return ""


def show_more_scenes(picker: ImagePicker) -> None:
    """Render the next page of scenes, which appear one by one and replace the previous ones."""
    first = max((thumbnail["seed"] + 1 for thumbnail in picker.thumbnails), default=FIRST_GALLERY_SEED)
    page: list[dict[str, Any]] = []
    for seed in range(first, first + SCENES_A_PAGE):
        page = [*page, {"seed": seed, "data": _thumbnail(gallery_scene(seed))}]
        picker.thumbnails = page


def gallery_scene(seed: int = FIRST_GALLERY_SEED) -> Image.Image:
    """Render a scene of the generated world as an image."""
    return Image.fromarray(make_scene(seed, size=SCENE_SIZE).image)


def _thumbnail(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIZE * 2, THUMBNAIL_SIZE * 2))  # twice as fine, for screens with two pixels per point
    return encode(small)
