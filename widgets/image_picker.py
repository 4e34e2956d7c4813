"""Another image to talk about: a scene of the generated world, or a file from the user's computer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets
from PIL import Image

from gpt4roi_nb.data.scenes.scene import make_scene
from gpt4roi_nb.widgets.display_image import encode
from gpt4roi_nb.widgets.esm import module

_HERE = Path(__file__).parent
SCENE_SIZE = 336  # pixels a side, what the demo checkpoint's world is made for
THUMBNAIL_SIZE = 96
SCENES_A_PAGE = 8
# Scenes of the gallery. Training and its checks draw from series, whose seeds `scene_seed` scatters elsewhere.
FIRST_GALLERY_SEED = 7_000_000
# The notebook server closes a connection on which a message of more than 10 MiB comes in.
MAX_UPLOAD_BYTES = 9 * 2**20


class ImagePicker(anywidget.AnyWidget):
    """A strip of scenes and a place for a file, hidden until `opened`.

    thumbnails: [{"seed", "data": an image file's bytes}].
    Messages from the browser: {"type": "scene", "seed"}, {"type": "more"}, {"type": "file", "name"} with the file's
    bytes as a buffer.
    """

    _esm = module("image_picker.js")
    _css = _HERE / "image_picker.css"

    opened = traitlets.Bool(False).tag(sync=True)
    thumbnails: traitlets.List[Any] = traitlets.List().tag(sync=True)
    max_bytes = traitlets.Int(MAX_UPLOAD_BYTES).tag(sync=True)


def show_more_scenes(picker: ImagePicker) -> None:
    """Render the next page of scenes; they appear one by one, in the place of those before."""
    first = max((thumbnail["seed"] + 1 for thumbnail in picker.thumbnails), default=FIRST_GALLERY_SEED)
    page: list[dict[str, Any]] = []
    for seed in range(first, first + SCENES_A_PAGE):
        page = [*page, {"seed": seed, "data": _thumbnail(gallery_scene(seed))}]
        picker.thumbnails = page


def gallery_scene(seed: int = FIRST_GALLERY_SEED) -> Image.Image:
    """One scene of the generated world, as a picture."""
    return Image.fromarray(make_scene(seed, size=SCENE_SIZE).image)


def _thumbnail(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIZE * 2, THUMBNAIL_SIZE * 2))  # twice as fine, for screens with two pixels a point
    return encode(small)
