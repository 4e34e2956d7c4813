"""draw.py: regions drawn on a copy, in the palette's colours, with every number visible."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from gpt4roi_nb.boxes import BoxClippedWarning
from gpt4roi_nb.draw import REGION_COLORS, draw_regions, region_color

SIZE = (320, 240)
BOXES = [(40, 60, 140, 180), (200, 60, 300, 190)]


def grey(size=SIZE) -> Image.Image:
    return Image.new("RGB", size, (128, 128, 128))


def changed(image: Image.Image) -> np.ndarray:
    return (np.asarray(image) != 128).any(axis=2)


def color_count(image: Image.Image, number: int) -> int:
    return int((np.asarray(image) == ImageColor.getrgb(region_color(number))).all(axis=2).sum())


def test_a_copy_of_the_same_size_and_the_original_untouched():
    image = grey()
    drawn = draw_regions(image, BOXES)
    assert drawn is not image and drawn.size == SIZE and drawn.mode == "RGB"
    assert not changed(image).any() and changed(drawn).any()


def luminance(color: str) -> float:
    """As WCAG 2 defines it."""
    shares = [value / 255 for value in ImageColor.getrgb(color)]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("color", REGION_COLORS)
def test_white_text_on_a_color_can_be_read_and_a_line_of_it_seen_on_black(color):
    assert 1.05 / (luminance(color) + 0.05) >= 4.5
    assert (luminance(color) + 0.05) / (luminance("#111111") + 0.05) >= 3


def test_each_region_has_its_color():
    drawn = draw_regions(grey(), BOXES)
    assert color_count(drawn, 1) > 300 and color_count(drawn, 2) > 300 and color_count(drawn, 3) == 0
    drawn = draw_regions(grey(), BOXES, [3, 12])
    assert color_count(drawn, 1) == 0 and color_count(drawn, 3) > 300 and color_count(drawn, 12) > 300


def test_the_line_runs_round_the_box_and_not_over_it():
    box = (100, 60, 200, 180)
    drawn = changed(draw_regions(grey(), [box]))
    assert not drawn[60:180, 100:200].any()
    assert drawn[60:180, 99].all() and drawn[60:180, 200].all()
    assert drawn[59, 100:200].all() and drawn[180, 100:200].all()


def test_the_number_can_be_read_off():
    one, two = (np.asarray(draw_regions(grey(), BOXES[:1], [number])) for number in (1, 11))  # of the same color
    assert (one != two).any()


def test_chips_of_equal_boxes_do_not_hide_each_other():
    drawn = draw_regions(grey(), [(40, 60, 140, 180)] * 4)
    assert all(color_count(drawn, number) > 50 for number in range(1, 5))


def test_a_small_box_under_a_large_one_stays_visible():
    drawn = draw_regions(grey(), [(100, 100, 140, 140), (90, 90, 200, 200)])
    same = draw_regions(grey(), [(90, 90, 200, 200), (100, 100, 140, 140)], [2, 1])
    np.testing.assert_array_equal(np.asarray(drawn), np.asarray(same))
    assert color_count(drawn, 1) > 200


def test_a_line_at_the_images_edge_is_drawn_inside_it():
    drawn = draw_regions(grey(), [(0, 0, *SIZE)])
    assert changed(drawn)[0].all() and changed(drawn)[:, -1].all()
    assert color_count(drawn, 1) > 2 * sum(SIZE)


@pytest.mark.parametrize("empty", [(), np.zeros((0, 4))])
def test_no_boxes_gives_a_plain_copy(empty):
    image = grey()
    drawn = draw_regions(image, empty)
    assert drawn is not image and not changed(drawn).any()


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 500), (20, 20)])
def test_tiny_images_do_no_harm(size):
    assert draw_regions(grey(size), [(0, 0, 1, 1)], [120]).size == size


def test_lines_grow_with_the_image():
    def width(factor: int) -> int:
        drawn = draw_regions(grey((640 * factor, 480 * factor)), [np.array([100, 100, 300, 300]) * factor])
        return int(changed(drawn)[200 * factor, : 200 * factor].sum())

    assert width(4) == pytest.approx(4 * width(1), abs=4)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_other_modes_come_back_as_rgb(mode):
    assert draw_regions(grey().convert(mode), BOXES).mode == "RGB"


def test_bad_input_is_refused_in_words():
    with pytest.raises(ValueError, match="got 1 numbers for 2 boxes"):
        draw_regions(grey(), BOXES, [1])
    with pytest.raises(ValueError, match=r"of 1 or above, but got \[0, 1\]"):
        draw_regions(grey(), BOXES, [0, 1])
    with pytest.raises(ValueError, match="wholly outside"):
        draw_regions(grey(), [(900, 0, 950, 50)])
    with pytest.warns(BoxClippedWarning):
        draw_regions(grey(), [(200, 100, 900, 200)])
