"""boxes.py: what check_boxes accepts and rejects, and the conversions between the three forms."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt4roi_nb.boxes import (
    BoxClippedWarning,
    check_boxes,
    from_bbox_widget,
    normalise,
    to_bbox_widget,
)

WIDTH, HEIGHT = 640, 480
# A busy machine must not fail a test: no deadline, and slow drawing of examples is not an error.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
GOOD = [(40, 30, 210, 180), (220.5, 60, 300, 190)]


@pytest.mark.parametrize(
    "boxes",
    [
        GOOD,
        tuple(map(list, GOOD)),
        np.array(GOOD),
        np.array(GOOD, dtype=np.float32),
        torch.tensor(GOOD),
        torch.tensor(GOOD, requires_grad=True),
        [torch.tensor(box, dtype=torch.float64) for box in GOOD],
        np.ma.array(GOOD),
    ],
    ids=["list", "tuple", "float64", "float32", "tensor", "grad", "list of tensors", "nothing masked"],
)
def test_every_container_gives_the_same_boxes(boxes):
    checked = check_boxes(boxes, WIDTH, HEIGHT)
    assert checked.dtype == np.float32
    np.testing.assert_array_equal(checked, np.array(GOOD, dtype=np.float32))


def test_bfloat16_and_unsigned_integers_are_read_as_numbers():
    box = [[200, 10, 250, 20]]
    for boxes in (torch.tensor(box, dtype=torch.bfloat16), np.array(box, dtype=np.uint8)):
        np.testing.assert_array_equal(check_boxes(boxes, WIDTH, HEIGHT), box)


@pytest.mark.parametrize("empty", [(), [], np.zeros((0, 4)), np.zeros(0), torch.zeros(0, 4), np.zeros((0, 4), bool)])
def test_no_boxes_is_0_by_4(empty):
    checked = check_boxes(empty, WIDTH, HEIGHT)
    assert checked.shape == (0, 4) and checked.dtype == np.float32
    assert normalise(checked, WIDTH, HEIGHT).shape == (0, 4)
    assert to_bbox_widget(checked, []) == []


def test_input_is_neither_changed_nor_shared():
    boxes = np.array([(-10, 0, 50, 50)], dtype=np.float32)
    before = boxes.copy()
    with pytest.warns(BoxClippedWarning):
        check_boxes(boxes, WIDTH, HEIGHT)
    np.testing.assert_array_equal(boxes, before)
    inside = np.array([(0, 0, 50, 50)], dtype=np.float32)
    check_boxes(inside, WIDTH, HEIGHT)[:] = 7
    assert inside[0, 2] == 50


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ((40, 30, 210, 180), r"got a single box.*\[\(40, 30, 210, 180\)\]"),
        ([(1, 2, 3)], r"shape \(N, 4\).*shape \(1, 3\)"),
        ([[]], r"shape \(1, 0\)"),
        (np.zeros((0, 5)), r"shape \(0, 5\)"),
        (np.zeros((2, 1, 4)), r"shape \(2, 1, 4\)"),
        (7, r"shape \(\)"),
        ([(1, 2, 3, 4), (1, 2, 3)], "different lengths"),
        (None, "None is not made of real numbers"),
        ([("1", "2", "3", "4")], "real numbers"),
        ([(1, 2, None, 4)], "real numbers"),
        ([(1, 2, 3, 4j)], "real numbers"),
        ([(False, False, True, True)], "real numbers"),
        (np.ma.array(GOOD, mask=[[False] * 4, [True] * 4]), "some of them are masked; leave these boxes out"),
        ([np.ma.array(GOOD[0], mask=[True, False, False, False])], "some of them are masked"),
        ({"x": 1}, "real numbers"),
        ([(1, 2, math.nan, 4)], r"boxes\[0\] = \(1, 2, nan, 4\).*finite"),
        ([(1, 2, math.inf, 4)], r"boxes\[0\] = \(1, 2, inf, 4\).*finite"),
        ([(1, 2, 1e300, 4)], "finite"),
        ([GOOD[0], (210, 30, 40, 180)], r"boxes\[1\] = \(210, 30, 40, 180\).*x2 <= x1.*swap"),
        ([(210, 180, 60, 50)], r"\(x, y, width, height\), pass \(210, 180, 270, 230\)"),
        ([(10, 10, 10, 20)], "x2 <= x1"),
        ([(10, 20, 30, 20)], "y2 <= y1"),
        ([(640, 10, 700, 20)], "wholly outside the image, which is 640 × 480"),
        ([(10, 480, 70, 500)], "wholly outside"),
        ([(-50, 10, 0, 20)], "wholly outside"),
        ([(10, -50, 70, 0)], "wholly outside"),
        ([(10, 10, 10.9, 40)], "less than a pixel"),
        ([(639.5, 10, 700, 40)], "less than a pixel of the 640 × 480 image"),
        ([(0.1, 0.1, 0.5, 0.5)], "normalised to 0 to 1, multiply x by 640 and y by 480"),
    ],
)
def test_bad_boxes_are_refused_with_what_came_and_what_to_do(boxes, words):
    with pytest.raises(ValueError, match=words):
        check_boxes(boxes, WIDTH, HEIGHT)


def test_message_names_the_argument():
    with pytest.raises(ValueError, match=r"regions\[0\]"):
        check_boxes([(5, 5, 1, 1)], WIDTH, HEIGHT, what="regions")


@pytest.mark.parametrize("size", [(0, 480), (640, 0), (-1, -1)])
def test_an_image_without_pixels_is_refused(size):
    for function in (check_boxes, normalise, from_bbox_widget):
        with pytest.raises(ValueError, match="1 × 1"):
            function([], *size)


def test_partly_outside_is_clipped_with_one_warning():
    with pytest.warns(
        BoxClippedWarning, match=r"boxes\[1\] = \(-20, 30, 700, 500\).*640 × 480.*\(1 more of 3"
    ) as caught:
        clipped = check_boxes([GOOD[0], (-20, 30, 700, 500), (600, 400, 641, 480)], WIDTH, HEIGHT)
    assert len(caught) == 1 and caught[0].filename == __file__
    np.testing.assert_array_equal(clipped[1:], [(0, 30, 640, 480), (600, 400, 640, 480)])


def test_the_smallest_box_is_one_pixel_also_in_decimals():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(check_boxes([(0, 0, 1, 1)], 1, 1), [(0, 0, 1, 1)])
        assert len(check_boxes([(4.3, 4.3, 5.3, 5.3), (11999.3, 0.1, 12000.3, 1.1)], 12001, 12001)) == 2


def test_normalise_is_division_by_the_original_size():
    boxes = np.array([(13, 7, 333.25, 479)], dtype=np.float32)
    size = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], dtype=np.float32)
    np.testing.assert_array_equal(normalise(boxes, WIDTH, HEIGHT), boxes / size)
    np.testing.assert_array_equal(normalise([(0, 0, WIDTH, HEIGHT)], WIDTH, HEIGHT), [(0, 0, 1, 1)])


@st.composite
def image_and_boxes(draw):
    width, height = draw(st.integers(1, 12_000)), draw(st.integers(1, 12_000))

    def span(length):
        low = draw(st.floats(0, length - 1, width=32))
        return low, draw(st.floats(0, 1)) * (length - low - 1) + low + 1

    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        (x1, x2), (y1, y2) = span(width), span(height)
        boxes.append((x1, y1, min(x2, width), min(y2, height)))
    return width, height, boxes


@UNHURRIED
@given(image_and_boxes())
def test_normalised_boxes_are_exact_to_a_hundredth_of_a_pixel(case):
    width, height, boxes = case
    checked = check_boxes(boxes, width, height)
    scaled = normalise(checked, width, height)
    assert ((scaled >= 0) & (scaled <= 1)).all()
    np.testing.assert_allclose(scaled * (width, height, width, height), checked, atol=1e-2, rtol=0)


@UNHURRIED
@given(image_and_boxes())
def test_checking_twice_changes_nothing(case):
    width, height, boxes = case
    once = check_boxes(boxes, width, height)
    np.testing.assert_array_equal(check_boxes(once, width, height), once)


@UNHURRIED
@given(image_and_boxes(), st.floats(0.05, 1))
def test_widget_and_back_moves_a_corner_by_half_a_displayed_pixel_at_most(case, scale):
    width, height, boxes = case
    checked = check_boxes(boxes, width, height)
    wide = checked[(checked[:, 2:] - checked[:, :2]).min(axis=1) > 2 / scale] if len(checked) else checked
    dicts = to_bbox_widget(wide, [str(i) for i in range(len(wide))], scale)
    assert all(type(entry[key]) is int for entry in dicts for key in ("x", "y", "width", "height"))
    back, kept = from_bbox_widget(dicts, width, height, scale)
    assert kept == list(range(len(wide)))
    np.testing.assert_allclose(back, wide, atol=0.5 / scale + 2e-3, rtol=0)


def test_whole_pixels_survive_the_widget_exactly():
    boxes = np.array([(40, 30, 210, 180), (0, 0, 640, 480)], dtype=np.float32)
    dicts = to_bbox_widget(boxes, ["region1", "region2"])
    assert dicts[0] == {"x": 40, "y": 30, "width": 170, "height": 150, "label": "region1"}
    back, _ = from_bbox_widget(dicts, WIDTH, HEIGHT)
    np.testing.assert_array_equal(back, boxes)


@pytest.mark.parametrize("corner", [(0, 0), (999, 999)])
def test_a_tiny_box_stays_visible_inside_a_reduced_image(corner):
    x, y = corner
    boxes = check_boxes([(x, y, x + 1, y + 1)], 1000, 1000)
    (entry,) = to_bbox_widget(boxes, ["region1"], scale=0.1)
    assert entry["width"] == entry["height"] == 1
    assert 0 <= entry["x"] <= 99 and 0 <= entry["y"] <= 99


def test_scale_is_displayed_pixels_an_original_pixel():
    boxes, _ = from_bbox_widget([{"x": 10, "y": 20, "width": 30, "height": 40, "label": ""}], 4000, 3000, scale=0.25)
    np.testing.assert_array_equal(boxes, [(40, 80, 160, 240)])


BOX = {"x": 10, "y": 20, "width": 30, "height": 40, "label": "region1"}


@pytest.mark.parametrize(
    "entry",
    [
        {**BOX, "width": 0, "height": 0},
        {**BOX, "width": 0},
        {**BOX, "height": 0.5},
        {**BOX, "x": -76, "width": 70},
        {**BOX, "x": 640},
        {**BOX, "x": None},
        {**BOX, "x": "10"},
        {**BOX, "y": math.nan},
        {**BOX, "width": math.inf},
        {**BOX, "width": 10**400},
        {**BOX, "width": True},
        {"x": 1, "y": 2, "label": "region1"},
        {},
        None,
        "box",
        [10, 20, 30, 40],
    ],
)
def test_what_is_no_box_is_dropped_and_the_rest_keeps_its_index(entry):
    boxes, kept = from_bbox_widget([entry, BOX], WIDTH, HEIGHT)
    np.testing.assert_array_equal(boxes, [(10, 20, 40, 60)])
    assert kept == [1]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({**BOX, "x": -76, "width": 100}, (0, 20, 24, 60)),
        ({**BOX, "width": 5000, "height": 5000}, (10, 20, 640, 480)),
        ({**BOX, "x": 40, "width": -30}, (10, 20, 40, 60)),
        ({**BOX, "y": 60.0, "height": np.float32(-40)}, (10, 20, 40, 60)),
        ({key: BOX[key] for key in ("x", "y", "width", "height")}, (10, 20, 40, 60)),
    ],
    ids=["left of the image", "beyond the image", "dragged left", "dragged up", "no label"],
)
def test_odd_boxes_are_mended_without_a_warning(entry, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        boxes, _ = from_bbox_widget([entry], WIDTH, HEIGHT)
    np.testing.assert_array_equal(boxes, [expected])


RAW = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.integers(-700, 700))


@UNHURRIED
@given(
    st.lists(st.dictionaries(st.sampled_from(["x", "y", "width", "height", "label"]), RAW), max_size=5),
    st.floats(1e-3, 1e3),
)
def test_whatever_the_widget_sends_the_model_gets_good_boxes(dicts, scale):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        boxes, kept = from_bbox_widget(dicts, WIDTH, HEIGHT, scale)
        np.testing.assert_array_equal(check_boxes(boxes, WIDTH, HEIGHT), boxes)
    assert len(kept) == len(boxes)


def test_labels_and_scale_are_checked():
    with pytest.raises(ValueError, match="got 1 labels for 2 boxes"):
        to_bbox_widget(GOOD, ["region1"])
    for scale in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="positive scale"):
            from_bbox_widget([], WIDTH, HEIGHT, scale)
