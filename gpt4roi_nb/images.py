"""Images: from any supported input to an RGB image, and on to the pixel values that the vision tower takes."""

import io
import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gpt4roi_nb.files import check_regular_file

if TYPE_CHECKING:
    import torch

# Whatever `load_image` takes.
ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray[Any, Any]"

# Enough for 12,000 × 12,000; 0.6 GB at Pillow's 4 bytes per pixel. Below Pillow's own limit of 179 million.
MAX_PIXELS = 150_000_000
# A longer image is resized to the square at once: keeping the ratio of a 1 × 5000 strip would need 0.75 GB.
MAX_ASPECT_RATIO = 20
# Rows that are composited at a time, so that a large transparent image is never held three times.
BAND_ROWS = 256

_ACCEPTED = (
    "a path, an open image file or its bytes, a PIL image, or a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4)"
)
# What Pillow's decoders raise on damaged data, found by cutting and garbling files of every common format.
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    RuntimeError,  # AVIF
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def load_image(image: ImageLike) -> Image.Image:
    """Load an image as upright RGB at full size.

    The input is not changed, and the result shares no memory with it.

    - EXIF orientation is applied. Of an animation, the current frame is used (of a file: the first).
    - Transparency, including a palette's, is composited on white.
    - 16-bit greyscale is divided by 257, so that 65535 becomes 255. Pillow converts palette, greyscale, bilevel, CMYK
      and other 8-bit modes; colour profiles are not applied.

    Args:
        image: a path (str or PathLike, `~` allowed), the bytes of an image file (e.g. an upload), an open image file,
            a PIL image, or a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4) in RGB(A) order. At least 1 × 1 pixel,
            at most `MAX_PIXELS` in total.

    Returns:
        PIL image of mode RGB.

    Raises:
        FileNotFoundError: if there is no such file.
        IsADirectoryError: if the path is a folder.
        ValueError: if a file is not a regular file; if the data is empty, damaged or not an image; for too many pixels;
            for an array of another dtype or shape, or with masked pixels; for a mode whose values have no agreed range
            (32-bit integers or floats).
        TypeError: for an object of another type.
    """
    if isinstance(image, np.ma.MaskedArray) and np.ma.is_masked(image):
        raise ValueError("expected an image, but some of the array's pixels are masked; fill them: array.filled(255)")
    if isinstance(image, np.ndarray):
        return _to_rgb(_from_array(image), "the array")
    if isinstance(image, Image.Image):
        name = "the PIL image"
        _check_pixels(*image.size, name)
        try:
            upright = ImageOps.exif_transpose(image)  # always a copy
        except DAMAGED as error:
            raise ValueError(_damaged(name, error)) from error
        return _to_rgb(upright, name)
    if isinstance(image, (bytes, bytearray, memoryview)):
        data = bytes(image)
        return _to_rgb(_decode(io.BytesIO(data), len(data), "the image data"), "the image data")
    if isinstance(image, (str, os.PathLike)):
        return _from_path(image)
    if hasattr(image, "read"):  # type: ignore[unreachable]  # an open file
        return load_image(image.read())
    raise TypeError(_wrong_type(image))  # callers without a type checker come here


def image_to_pixel_values(
    image: Image.Image, image_size: int, mean: Sequence[float], std: Sequence[float]
) -> "torch.Tensor":
    """Convert an image to the vision tower's input: the whole image, squeezed into a square.

    Computed as in the original demo: bicubic (Pillow, 8 bit) to a shortest side of `image_size`, normalised, then
    bilinear (align_corners=False, no antialiasing) to the square. An image more than `MAX_ASPECT_RATIO` times as long
    as wide is resized to the square in the first step already, so that memory stays bounded.

    Args:
        image: RGB, any size.
        image_size: side S of the square in pixels.
        mean, std: three numbers each, for RGB in 0 to 1.

    Returns:
        (3, S, S) float32 tensor.
    """
    import torch
    import torch.nn.functional as F

    resized = image.resize(_resized_size(*image.size, image_size), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized, dtype=np.float32) / np.float32(255)
    normalised = (pixels - np.asarray(mean, dtype=np.float32)) / np.asarray(std, dtype=np.float32)
    values = torch.from_numpy(np.ascontiguousarray(normalised.transpose(2, 0, 1)))
    square = F.interpolate(values[None], size=(image_size, image_size), mode="bilinear", align_corners=False)
    return square[0]


def _resized_size(width: int, height: int, image_size: int) -> tuple[int, int]:
    """Return (width, height): the shortest side is `image_size`, the other rounded down; long strips become square."""
    short, long = min(width, height), max(width, height)
    if long > MAX_ASPECT_RATIO * short:
        return image_size, image_size
    return image_size * width // short, image_size * height // short


def _from_path(path: str | os.PathLike[str]) -> Image.Image:
    file = os.path.expanduser(os.fspath(path))
    name = repr(file)
    if isinstance(file, str) and file.startswith(("http://", "https://", "data:")):
        raise ValueError(f"expected {_ACCEPTED}, but {file[:80]!r} is an address; download the image first")
    if not os.path.exists(file):
        where = "" if os.path.isabs(file) else f" in {os.getcwd()!r}"
        raise FileNotFoundError(f"there is no image file {name}{where}; check the path and its spelling")
    if os.path.isdir(file):
        raise IsADirectoryError(f"expected an image file, but {name} is a folder; name a file in it")
    check_regular_file(file)
    with open(file, "rb") as stream:
        return _to_rgb(_decode(stream, os.path.getsize(file), name), name)


def _decode(stream: Any, size: int, name: str) -> Image.Image:
    """Load the image in an open file of `size` bytes, upright, in the mode of the file."""
    if size == 0:
        raise ValueError(f"expected an image, but {name} is empty (0 bytes); get the file again")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _check_pixels has a limit of our own
        try:
            image = Image.open(stream)
        except UnidentifiedImageError as error:
            raise ValueError(
                f"{name} ({size} bytes) is not an image that can be read, whatever its name says; save it as PNG or "
                "JPEG"
            ) from error
        except Image.DecompressionBombError as error:
            raise ValueError(_too_large(name, "more")) from error
        except DAMAGED as error:
            raise ValueError(_damaged(name, error)) from error
        _check_pixels(*image.size, name)
        try:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
        except DAMAGED as error:
            raise ValueError(_damaged(name, error)) from error
    return image


def _from_array(array: np.ndarray) -> Image.Image:
    expected = "expected a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4)"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(f"{expected}, but its shape is {array.shape}{_shape_hint(array.shape)}")
    if array.size == 0:
        raise ValueError(f"{expected} with at least one pixel, but its shape is {array.shape}: it is empty")
    if array.dtype != np.uint8:
        raise ValueError(f"{expected}, but its dtype is {array.dtype}; convert it: {_dtype_hint(array.dtype)}")
    _check_pixels(array.shape[1], array.shape[0], "the array")
    return Image.fromarray(array)


def _shape_hint(shape: tuple[int, ...]) -> str:
    if len(shape) == 3 and shape[2] == 1:
        return "; for greyscale pass array[..., 0]"
    if len(shape) == 3 and shape[0] in (3, 4):
        return "; if its channels come first, pass np.moveaxis(array, 0, -1)"
    if len(shape) == 4:
        return "; pass one image at a time, e.g. array[0]"
    return ""


def _dtype_hint(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "f":
        return "(np.nan_to_num(array).clip(0, 1) * 255).round().astype(np.uint8) if its values go from 0 to 1"
    if dtype.kind == "b":
        return "array.astype(np.uint8) * 255"
    if dtype == np.uint16:
        return "(array // 257).astype(np.uint8) if its values go up to 65535"
    return "array.clip(0, 255).astype(np.uint8) if its values go from 0 to 255"


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        to_8_bit = (np.arange(2**16) / 257).round().astype(np.uint8)
        image = Image.fromarray(to_8_bit[np.asarray(image)])
    if image.mode in ("I", "F"):
        raise ValueError(
            f"{name} stores 32-bit values (Pillow's mode {image.mode!r}), which have no agreed range; "
            "scale them to 0 to 255 and pass a uint8 array"
        )
    if image.has_transparency_data:
        return _on_white(image)
    if image.mode == "RGB":
        return image
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ValueError(f"{name} has Pillow's mode {image.mode!r}, which cannot become RGB; save it as PNG") from error


def _on_white(image: Image.Image) -> Image.Image:
    width, height = image.size
    canvas = Image.new("RGB", (width, height), "white")
    for top in range(0, height, BAND_ROWS):
        band = image.crop((0, top, width, min(top + BAND_ROWS, height))).convert("RGBA")
        canvas.paste(band, (0, top), mask=band)
    return canvas


def _check_pixels(width: int, height: int, name: str) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"expected at least 1 × 1 pixel, but {name} is {width} × {height}")
    if width * height > MAX_PIXELS:
        raise ValueError(_too_large(name, f"{width} × {height}"))


def _too_large(name: str, came: str) -> str:
    limit = MAX_PIXELS // 1_000_000
    return f"expected at most {limit} million pixels, but {name} has {came}; scale the image down or crop it first"


def _wrong_type(image: object) -> str:
    hint = "; convert a torch tensor to an array with .cpu().numpy()" if hasattr(image, "cpu") else ""
    return f"expected {_ACCEPTED}, but got a {type(image).__module__}.{type(image).__qualname__}{hint}"


def _damaged(name: str, error: Exception) -> str:
    return f"{name} is damaged or cut short ({error}); get it again, or open it elsewhere and save it as PNG"
