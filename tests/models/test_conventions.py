"""How each family writes a box: by hand from the sources, and back again by somebody else's rules."""

import copy
import dataclasses
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pointing_oracle import READERS, RESIZED, read_boxes
from tiny_families import tiny_family
from transformers.models.kosmos2.processing_kosmos2 import coordinate_to_patch_index
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from gpt4roi_nb.images import load_image
from gpt4roi_nb.models.families import FAMILIES
from gpt4roi_nb.models.images import prepare, resized_size
from gpt4roi_nb.models.ways.conventions import CONVENTIONS, UNVERIFIED

SIZE = (640, 480)
BOX = (52.0, 33.0, 210.0, 183.0)

# Worked out by hand for an image of 640 × 480, which Qwen2.5-VL's processor makes 644 × 476.
GOLDEN = {
    "qwen2_vl": "[81, 69, 328, 381]",  # 52 / 640 = 0.08125, 33 / 480 = 0.06875, 210 / 640 = 0.328…, 183 / 480 = 0.38125
    "qwen2_5_vl": "[52, 33, 211, 181]",  # 52.3, 32.7, 211.3, 181.5 (181.475)
    "qwen3_vl": "[81, 69, 328, 381]",
    "qwen3_vl_moe": "[81, 69, 328, 381]",
    "qwen3_5": "[81, 69, 328, 381]",
    "qwen3_5_moe": "[81, 69, 328, 381]",
    "kosmos-2": "<object><patch_index_0066><patch_index_0394></object>",  # cells (2, 2) and (10, 12): 2·32+2, 12·32+10
    "florence2": "<loc_81><loc_68><loc_328><loc_381>",  # floor
    "paligemma": "<loc0070><loc0083><loc0390><loc0336>",  # of 1023: y 70.3, x 83.1, y 390.02, x 335.7
    "perception_lm": "[081,068,328,381]",  # floor, three digits
    "video_llama_3": "[81, 68, 328, 381]",  # floor
    "internvl": "<box>[[81, 69, 328, 381]]</box>",
    "llava": "[0.08, 0.18, 0.33, 0.41]",  # y + 80 of 640
}


def test_every_row_has_a_golden_text_and_a_reader() -> None:
    assert set(CONVENTIONS) == set(GOLDEN) == set(READERS)


@pytest.mark.parametrize("family", GOLDEN)
def test_a_box_is_written_as_the_source_says(family: str) -> None:
    assert CONVENTIONS[family].write(BOX, SIZE, (644, 476)) == GOLDEN[family]


@pytest.mark.parametrize(
    ("family", "whole"),
    [
        ("qwen3_vl", "[0, 0, 1000, 1000]"),
        ("kosmos-2", "<object><patch_index_0000><patch_index_1023></object>"),
        ("florence2", "<loc_0><loc_0><loc_999><loc_999>"),
        ("paligemma", "<loc0000><loc0000><loc1023><loc1023>"),
        ("perception_lm", "[000,000,999,999]"),
        ("video_llama_3", "[0, 0, 1000, 1000]"),
        ("llava", "[0.0, 0.12, 1.0, 0.88]"),
    ],
)
def test_the_whole_image_reaches_the_last_number(family: str, whole: str) -> None:
    assert CONVENTIONS[family].write((0, 0, *SIZE), SIZE) == whole


Drawn = tuple[tuple[int, int], tuple[float, float, float, float]]


@st.composite
def boxes(draw: st.DrawFn, least: int = 1, most: int = 3000) -> Drawn:
    """A size of any aspect ratio and a box in it: a pixel at least, at the edges too, in whole pixels or not."""
    width, height = draw(st.integers(least, most)), draw(st.integers(least, most))
    if draw(st.booleans()):
        x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        x2, y2 = draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))
        return (width, height), (float(x1), float(y1), float(x2), float(y2))
    left, top = draw(st.floats(0, width - 1)), draw(st.floats(0, height - 1))
    return (width, height), (left, top, draw(st.floats(left + 1, width)), draw(st.floats(top + 1, height)))


def with_examples(test: Callable[..., None]) -> Callable[..., None]:
    """Boxes of one pixel in each corner, lines along a side, and the whole image, beside what hypothesis finds."""
    for size in ((640, 480), (3000, 7), (1, 1)):
        width, height = map(float, size)
        for box in (
            (0.0, 0.0, 1.0, 1.0),
            (width - 1, 0.0, width, 1.0),
            (0.0, height - 1, 1.0, height),
            (width - 1, height - 1, width, height),
            (0.0, 0.0, width, 1.0),
            (width - 1, 0.0, width, height),
            (0.0, 0.0, width, height),
        ):
            test = example((size, box))(test)
    return test


@pytest.mark.parametrize("family", CONVENTIONS)
@given(boxes())
@with_examples
def test_a_box_is_read_back_to_a_step_of_the_scale(family: str, drawn: Drawn) -> None:
    """In an image of any shape, for boxes of a pixel and at the border, by rules that know nothing of the package."""
    size, box = drawn
    row = CONVENTIONS[family]
    (read,) = read_boxes(row.write(box, size, RESIZED), family, size)
    frame = {"original": size, "resized": RESIZED, "padded": (max(size),) * 2}[row.frame]
    for index, (value, back) in enumerate(zip(box, read, strict=True)):
        in_frame, side = frame[index % 2], size[index % 2]
        steps = row.cells or (in_frame if row.parts is None else row.parts * 10**row.decimals)
        pixels = max(size) if row.frame == "padded" else side
        assert abs(value - back) <= 1.001 * pixels / steps


@given(boxes())
@with_examples
def test_corner_cells_hold_the_box(drawn: Drawn) -> None:
    """Of Kosmos-2: every cell that the box covers lies between its corners, also of a box smaller than a cell."""
    size, box = drawn
    ((x1, y1, x2, y2),) = read_boxes(CONVENTIONS["kosmos-2"].write(box, size), "kosmos-2", size)
    slack = 1e-6 * max(size)
    assert x1 <= box[0] + slack and y1 <= box[1] + slack and x2 >= box[2] - slack and y2 >= box[3] - slack


def numbers_of(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def nearly_whole(values: Sequence[float], slack: float) -> bool:
    """Whether one is so near to a whole number that the order in which it was computed decides how it is cut."""
    return any(abs(value - round(value)) < slack for value in values)


@given(boxes())
@with_examples
def test_corner_cells_are_those_of_transformers(drawn: Drawn) -> None:
    """Of Kosmos-2, processing_kosmos2.py."""
    (width, height), box = drawn
    x1, y1, x2, y2 = box[0] / width, box[1] / height, box[2] / width, box[3] / height
    written = numbers_of(CONVENTIONS["kosmos-2"].write(box, (width, height)))
    own = coordinate_to_patch_index((x1, y1, x2, y2), 32)
    exact = [32 * value for value in (x1, y1, x2, y2) if 0 < value < 1]
    assert written == list(own) or nearly_whole(exact, 1e-9)


@given(boxes())
@with_examples
def test_bins_are_those_of_transformers(drawn: Drawn) -> None:
    """Of Florence-2, processing_florence2.py, which computes in 32 bits."""
    size, box = drawn
    _, processor = tiny_family("florence2")
    own = processor.post_processor.quantize(torch.tensor([box]), size)[0].tolist()
    written = numbers_of(CONVENTIONS["florence2"].write(box, size))
    for mine, its, value, side in zip(written, own, box, (*size, *size), strict=True):
        assert mine == its or (abs(mine - its) == 1 and nearly_whole([1000 * value / side], 1e-3))


@pytest.mark.parametrize("patch", [14, 16])
@settings(max_examples=20)
@given(boxes(20, 400))
@example(((400, 20), (399.0, 0.0, 400.0, 1.0)))
@example(((20, 400), (0.0, 399.0, 1.0, 400.0)))
@example(((20, 20), (0.0, 0.0, 20.0, 20.0)))
def test_pixels_are_those_of_the_image_as_transformers_resizes_it(patch: int, drawn: Drawn) -> None:
    """Of Qwen2.5-VL, whose patches have 14 pixels, and with Qwen3-VL's of 16."""
    (width, height), box = drawn
    least, most = 56 * 56, 300 * 300
    processor = copy.copy(tiny_family("qwen2_5_vl")[1])
    processor.image_processor = transformers.Qwen2VLImageProcessor(
        patch_size=patch, merge_size=2, size={"shortest_edge": least, "longest_edge": most}
    )
    rows, columns = smart_resize(height, width, 2 * patch, least, most)
    resized = resized_size(processor, prepare(processor, "chat", Image.new("RGB", (width, height))))
    assert resized == (columns, rows)
    written = numbers_of(CONVENTIONS["qwen2_5_vl"].write(box, (width, height), resized))
    across, down = columns / width, rows / height
    for mine, exact in zip(written, (box[0] * across, box[1] * down, box[2] * across, box[3] * down), strict=True):
        assert abs(mine - exact) <= 0.5 + 1e-9


def test_boxes_are_those_of_the_upright_image() -> None:
    """A camera's image that lies on its side is turned first: its width is then its height."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("RGB", (480, 640)).save(file, format="JPEG", exif=exif)
    upright = load_image(file.getvalue())
    assert upright.size == SIZE
    assert CONVENTIONS["qwen3_vl"].write(BOX, upright.size) == GOLDEN["qwen3_vl"]


def test_pixels_of_the_resized_image_need_its_size() -> None:
    with pytest.raises(ValueError, match=r"its size was not given; give resized"):
        CONVENTIONS["qwen2_5_vl"].write(BOX, SIZE)


def test_a_row_says_what_it_decides_and_that_nobody_confirmed_it() -> None:
    for family, summary in (
        ("paligemma", "0 to 1023 in 4 digits, rounded to the nearest, y before x, of the original image"),
        ("perception_lm", "0 to 999 in 3 digits, rounded down, x before y, of the original image"),
        ("qwen2_5_vl", "pixels, rounded to the nearest, x before y, of the image as the model's processor resizes it"),
    ):
        assert CONVENTIONS[family].summary == summary
    assert "32 × 32" in CONVENTIONS["kosmos-2"].summary and "padded" in CONVENTIONS["llava"].summary
    for row in CONVENTIONS.values():
        assert row.status == UNVERIFIED and row.source
    confirmed = dataclasses.replace(CONVENTIONS["llava"], verified="llava-hf/llava-1.5-7b-hf")
    assert confirmed.status == "verified with llava-hf/llava-1.5-7b-hf"


def test_the_documented_tables_are_the_codes(root: Path) -> None:
    text = (root / "docs/models.md").read_text()
    for name, row in CONVENTIONS.items():
        assert f"| `{name}` | `{row.form}` | {row.summary} | {row.source} | unverified |" in text
    for name, family in FAMILIES.items():
        others = ", ".join(way for way in family.ways if way != family.way) or "–"
        assert f"| `{name}` | {family.way} | {others} | {family.weights} | {family.licence} |" in text
