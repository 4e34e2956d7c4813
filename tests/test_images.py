"""images.py: any input becomes an upright RGB image, or an error that says what to do."""

import io
import json
import os
import random
import resource
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mutations import cases, ends_well, garbled
from PIL import Image

from gpt4roi_nb.images import MAX_PIXELS, image_to_pixel_values, load_image

GOLDEN = Path(__file__).parent / "golden"
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
EXIF_ORIENTATION = 0x0112


def sample_image(mode="RGB", size=(6, 4)) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image.convert(mode)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_every_kind_of_input_gives_the_same_image(tmp_path):
    data = encoded(sample_image(), "PNG")
    path = tmp_path / "an image ü.png"
    path.write_bytes(data)
    for source in (
        path,
        str(path),
        data,
        bytearray(data),
        memoryview(data),
        sample_image(),
        np.asarray(sample_image()),
    ):
        image = load_image(source)
        assert image.mode == "RGB" and image.size == (6, 4)
        np.testing.assert_array_equal(np.asarray(image), np.asarray(sample_image()))


def test_a_home_folder_path_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    sample_image().save(tmp_path / "mine.png")
    assert load_image("~/mine.png").size == (6, 4)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4), (1, 1), (1, 1, 3), (3, 4, 4)])
def test_arrays_of_the_accepted_shapes(shape):
    array = np.full(shape, 255, dtype=np.uint8)
    image = load_image(array)
    assert image.mode == "RGB" and image.size == (shape[1], shape[0])
    assert image.getpixel((0, 0)) == WHITE


def test_arrays_may_be_views_and_read_only():
    array = np.asarray(sample_image())[:, ::-1][::2]
    image = load_image(array)
    assert image.getpixel((0, 0)) == BLUE and image.size == (6, 2)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_input_is_neither_changed_nor_shared(mode):
    source = sample_image(mode)
    image = load_image(source)
    image.paste(GREEN, (0, 0, 6, 4))
    np.testing.assert_array_equal(np.asarray(source), np.asarray(sample_image(mode)))
    array = np.array(sample_image(mode))
    image = load_image(array)
    before = np.array(image)
    array[:] = 9
    np.testing.assert_array_equal(np.asarray(image), before)


@pytest.mark.parametrize(
    ("mode", "kind"), [("P", "PNG"), ("P", "GIF"), ("RGB", "BMP"), ("RGB", "TIFF"), ("CMYK", "TIFF"), ("RGB", "WEBP")]
)
def test_lossless_modes_and_formats_keep_their_colors(mode, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    image = load_image(encoded(sample_image(mode), kind, **options))
    assert image.mode == "RGB"
    assert image.getpixel((0, 0)) == RED and image.getpixel((5, 3)) == BLUE


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_modes(mode):
    image = load_image(encoded(sample_image(mode, (64, 64)), "JPEG", quality=95))
    expected = sample_image(mode, (64, 64)).convert("RGB")
    assert image.mode == "RGB"
    np.testing.assert_allclose(image.getpixel((4, 4)), expected.getpixel((4, 4)), atol=8)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_and_bilevel(mode):
    image = load_image(encoded(Image.new("L", (3, 2), 255).convert(mode), "PNG"))
    assert image.mode == "RGB" and image.getpixel((2, 1)) == WHITE


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_cut(kind):
    values = np.array([[0, 128, 129, 257, 32896, 65535]], dtype=np.uint16)
    image = load_image(encoded(Image.fromarray(values), kind))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_composited_on_white(mode):
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    if mode != "PA":
        image.putpixel((2, 0), (0, 0, 0, 102))
    shown = load_image(image.convert(mode))
    assert shown.mode == "RGB"
    assert shown.getpixel((0, 0)) == WHITE and shown.getpixel((1, 0)) == (0, 0, 0)
    if mode != "PA":
        assert shown.getpixel((2, 0)) == (153, 153, 153)  # 255 × (1 - 102 / 255)


def test_a_transparent_palette_color_is_white():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    shown = load_image(encoded(image, "PNG", transparency=0))
    assert shown.getpixel((0, 0)) == WHITE and shown.getpixel((1, 0)) == BLUE


def test_transparency_of_a_tall_image_has_no_seams():
    image = Image.new("RGBA", (2, 700), (255, 0, 0, 128))
    assert load_image(image).getcolors() == [(1400, (255, 127, 127))]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("as_pil", [False, True])
def test_exif_orientation_is_applied(orientation, as_pil):
    # Where the top left corner of the displayed image is in the stored one (left/right, top/bottom), from the standard.
    stored = Image.new("RGB", (20, 10))
    corner = {1: (0, 0), 2: (19, 0), 3: (19, 9), 4: (0, 9), 5: (0, 0), 6: (0, 9), 7: (19, 9), 8: (19, 0)}[orientation]
    stored.putpixel(corner, WHITE)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    data = encoded(stored, "PNG", exif=exif)
    shown = load_image(Image.open(io.BytesIO(data)) if as_pil else data)
    assert shown.size == ((20, 10) if orientation <= 4 else (10, 20))
    assert shown.getpixel((0, 0)) == WHITE
    assert shown.getexif().get(EXIF_ORIENTATION, 1) == 1
    np.testing.assert_array_equal(np.asarray(load_image(shown)), np.asarray(shown))  # not turned twice


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (4, 4), RED), Image.new("RGB", (4, 4), BLUE)]
    assert load_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])).getpixel((0, 0)) == RED


def test_no_such_file_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no image file 'kitchn.jpg' in '{tmp_path}'.*spelling"):
        load_image("kitchn.jpg")
    for odd in (tmp_path / "none.png", "a\0b.png", "x" * 5000):
        with pytest.raises(FileNotFoundError, match="no image file"):
            load_image(odd)


def test_a_folder_is_not_an_image(tmp_path):
    with pytest.raises(IsADirectoryError, match="folder"):
        load_image(tmp_path)


def test_a_pipe_or_a_device_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path, kind in ((tmp_path / "pipe.png", "a pipe"), ("/dev/zero", "a device")):
        with pytest.raises(ValueError, match=f"expected a regular file, but .* is {kind}"):
            load_image(path)


def test_an_address_is_not_fetched():
    with pytest.raises(ValueError, match="download"):
        load_image("https://example.org/cat.jpg")


@pytest.mark.parametrize("as_file", [True, False])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"this is text\n" * 9, r"\(117 bytes\) is not an image that can be read, whatever its name says.*PNG or JPEG"),
        (encoded(sample_image(size=(90, 80)), "PNG")[:90], "damaged or cut short"),
        (encoded(sample_image(size=(90, 80)), "JPEG")[:700], "damaged or cut short"),
        (encoded(sample_image(size=(90, 80)), "BMP")[:700], "damaged or cut short"),
        (b"\x89PNG\r\n\x1a\n", "not an image|damaged"),
    ],
    ids=["empty", "text", "cut png", "cut jpeg", "cut bmp", "png signature"],
)
def test_files_that_are_no_image(tmp_path, data, words, as_file):
    source = data
    if as_file:
        source = tmp_path / "upload.png"
        source.write_bytes(data)
        words = f"upload.png.*({words})"
    with pytest.raises(ValueError, match=words):
        load_image(source)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF"])
def test_cut_at_any_length_gives_an_image_or_our_words(kind):
    data = encoded(sample_image(size=(20, 16)), kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of damaged metadata before it gives up
        for length in range(0, len(data), 7):
            try:
                assert load_image(data[:length]).size == (20, 16)
            except ValueError as error:
                assert "image data" in str(error)  # noqa: PT017 (both outcomes are right)


def test_a_cut_file_opened_by_the_caller():
    image = Image.open(io.BytesIO(encoded(sample_image(size=(90, 80)), "JPEG")[:700]))
    with pytest.raises(ValueError, match="the PIL image is damaged or cut short"):
        load_image(image)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 5, 3)), r"uint8.*float64.*\* 255"),
        (np.full((4, 5, 3), np.nan, dtype=np.float32), "uint8.*float32.*nan_to_num"),
        (np.zeros((4, 5, 3), dtype=np.int64), "uint8.*int64.*clip"),
        (np.zeros((4, 5), dtype=np.uint16), "uint8.*uint16.*257"),
        (np.zeros((4, 5), dtype=bool), r"uint8.*bool.*\* 255"),
        (np.zeros((4, 5), dtype=object), "uint8.*object"),
        (np.zeros((3, 40, 50), dtype=np.uint8), r"\(H, W, 3\).*\(3, 40, 50\).*moveaxis"),
        (np.zeros((4, 5, 1), dtype=np.uint8), r"\(4, 5, 1\).*\[\.\.\., 0\]"),
        (np.zeros((2, 4, 5, 3), dtype=np.uint8), r"\(2, 4, 5, 3\).*one image at a time"),
        (np.zeros((4, 5, 2), dtype=np.uint8), r"\(4, 5, 2\)"),
        (np.zeros(5, dtype=np.uint8), r"\(5,\)"),
        (np.zeros((0, 5, 3), dtype=np.uint8), r"at least one pixel.*\(0, 5, 3\)"),
        (np.zeros((0, 0), dtype=np.uint8), "empty"),
        (np.ma.masked_less(np.arange(20, dtype=np.uint8).reshape(4, 5), 3), r"pixels are masked; fill them"),
    ],
)
def test_arrays_that_are_no_image(array, words):
    with pytest.raises(ValueError, match=words):
        load_image(array)


@pytest.mark.parametrize("hint", ["floats to 1", "integers"])
def test_the_advice_for_a_wrong_dtype_works_as_written(hint):
    array = np.ones((2, 2, 3)) if hint == "floats to 1" else np.full((2, 2, 3), 255)
    with pytest.raises(ValueError, match="convert it: ") as caught:
        load_image(array)
    advice = str(caught.value).split("convert it: ")[1].split(" if its values")[0]
    assert load_image(eval(advice, {"array": array, "np": np})).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_values_have_no_agreed_range(mode):
    with pytest.raises(ValueError, match=f"'{mode}'.*uint8 array"):
        load_image(Image.new(mode, (2, 2)))


def test_an_image_without_pixels():
    with pytest.raises(ValueError, match=r"1 × 1 pixel.*0 × 5"):
        load_image(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize(
    ("thing", "words"), [(None, "NoneType"), (7, "int"), ([1, 2], "list"), (torch.zeros(3, 4, 4), r"\.numpy\(\)")]
)
def test_other_types_are_named(thing, words):
    with pytest.raises(TypeError, match=f"a path.*{words}"):
        load_image(thing)


def claimed(width: int, height: int) -> bytes:
    """A tiny BMP whose header claims a size."""
    data = bytearray(encoded(Image.new("RGB", (1, 1)), "BMP"))
    data[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize("side", [12_500, 60_000])
def test_too_many_pixels_is_said_before_decoding(side):
    with pytest.raises(ValueError, match=r"at most 150 million pixels.*scale"):
        load_image(claimed(side, side))
    with pytest.raises(ValueError, match="at most 150 million pixels"):
        load_image(np.broadcast_to(np.uint8(0), (side, side)))


@pytest.mark.slow
def test_12000_by_12000_loads_in_bounded_memory_and_without_pillows_warning():
    assert MAX_PIXELS >= 12_000 * 12_000
    data = encoded(Image.new("1", (12_000, 12_000), 1), "PNG")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = load_image(data)
        values = image_to_pixel_values(image, 224, (0, 0, 0), (1, 1, 1))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    assert image.size == (12_000, 12_000)
    torch.testing.assert_close(values, torch.ones(3, 224, 224))
    assert grown < 2, f"peak memory grew by {grown:.1f} GiB"


# ---- pixel values -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded():
    with np.load(GOLDEN / "images.npz") as archive:
        return {name.removeprefix("image0."): archive[name] for name in archive}


@pytest.fixture(scope="module")
def preprocessor():
    return json.loads((GOLDEN / "e2e_config.json").read_text())["preprocessor"]


def test_pixel_values_are_those_of_the_original(recorded, preprocessor):
    size = preprocessor["size"]
    mean, std = preprocessor["image_mean"], preprocessor["image_std"]
    values = image_to_pixel_values(load_image(GOLDEN / "image0.png"), size, mean, std)
    assert values.shape == (3, size, size) and values.dtype == torch.float32
    x = values.numpy()
    np.testing.assert_allclose(x[:, ::7, ::7], recorded["sample"], atol=2e-5, rtol=0)
    np.testing.assert_allclose(x[:, :8, :8], recorded["corner8"], atol=2e-5, rtol=0)
    np.testing.assert_allclose([x.mean(), x.std(), x.min(), x.max()], recorded["meanstd"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (19, 400), (400, 19), (3, 2), (224, 224), (500, 333)])
def test_any_size_and_shape_becomes_the_square(size):
    values = image_to_pixel_values(Image.new("RGB", size, WHITE), 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    torch.testing.assert_close(values, torch.ones(3, 32, 32))


@pytest.mark.parametrize("size", [(40, 30), (30, 1000)])
def test_the_whole_image_is_in_the_square(size):
    values = image_to_pixel_values(sample_image(size=size), 32, (0, 0, 0), (1, 1, 1))
    red, _, blue = values
    assert red[:, :12].min() > 0.95 and blue[:, 20:].min() > 0.95
    assert blue[:, :12].max() < 0.05 and red[:, 20:].max() < 0.05


def test_pixel_values_leave_the_image_alone_and_own_their_memory():
    image = sample_image(size=(32, 32))
    values = image_to_pixel_values(image, 32, (0, 0, 0), (1, 1, 1))
    values.zero_()
    np.testing.assert_array_equal(np.asarray(image), np.asarray(sample_image(size=(32, 32))))


def test_an_open_file_is_read(tmp_path):
    path = tmp_path / "image.png"
    sample_image().save(path)
    with path.open("rb") as opened:
        assert load_image(opened).tobytes() == sample_image().tobytes()
    with pytest.raises(TypeError, match=r"got a torch\.Tensor; convert a torch tensor to an array"):
        load_image(torch.zeros(3, 4, 4))


def test_pixels_of_an_avif_file_that_are_garbled_are_said():
    data = encoded(sample_image(), "AVIF")
    at = data.index(b"mdat") + 4
    data = data[:at] + bytes(8) + data[at + 8 :]
    with pytest.raises(ValueError, match="damaged"):
        load_image(data)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about tags
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_a_damaged_file_of_each_kind(kind):
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)), kind)

    @cases
    def case(rng: random.Random) -> None:
        with ends_well():
            assert load_image(garbled(data, rng)).mode == "RGB"

    case()
