"""Whatever the box widget sends, regions are numbered boxes inside the image, and locked ones stay."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from gpt4roi_nb.widgets.display_image import MAX_SIDE, display_image
from gpt4roi_nb.widgets.region_canvas import RegionCanvas

SIZE = (400, 300)


@pytest.fixture()
def canvas() -> RegionCanvas:
    made = RegionCanvas()
    made.set_image(Image.new("RGB", SIZE))
    return made


def send(canvas: RegionCanvas, boxes: list) -> None:
    """As the browser does."""
    canvas.bbox.set_state({"bboxes": boxes})


def tell(canvas: RegionCanvas, **content) -> None:
    canvas.table._handle_custom_msg(content, [])


def raw(x, y, width, height, **more) -> dict:
    return {"x": x, "y": y, "width": width, "height": height, "label": "region1", **more}


def boxes(canvas: RegionCanvas) -> list[tuple]:
    return [region.box for region in canvas.regions]


def test_a_drawn_box_becomes_a_numbered_region(canvas) -> None:
    send(canvas, [raw(10, 20, 30, 40)])
    assert boxes(canvas) == [(10, 20, 40, 60)]
    assert canvas.bbox.bboxes[0]["label"] == "region1"
    assert canvas.bbox.label == "region2"  # what the next one is called while it is drawn


def test_a_drag_is_not_disturbed_between_press_and_release(canvas) -> None:
    tell(canvas, type="pressed")
    send(canvas, [raw(10, 20, 0, 0)])
    assert len(canvas.bbox.bboxes) == 1  # the box in the person's hand is still there
    assert canvas.regions == ()
    send(canvas, [raw(10, 20, 30, 40)])
    tell(canvas, type="released")
    assert boxes(canvas) == [(10, 20, 40, 60)]


def test_the_release_may_be_told_before_the_box_arrives(canvas) -> None:
    tell(canvas, type="pressed")
    send(canvas, [raw(10, 20, 0, 0)])
    tell(canvas, type="released")
    send(canvas, [raw(10, 20, 30, 40)])
    assert boxes(canvas) == [(10, 20, 40, 60)]


def test_a_box_counts_beside_one_that_a_click_left_a_moment_ago(canvas) -> None:
    tell(canvas, type="pressed")  # the browser does not know yet that the click's box is gone
    send(canvas, [raw(1, 2, 0, 0), raw(10, 20, 0, 0)])
    send(canvas, [raw(1, 2, 0, 0), raw(10, 20, 30, 40)])
    assert canvas.regions == ()  # it may still be in the person's hand
    tell(canvas, type="released")
    assert boxes(canvas) == [(10, 20, 40, 60)]
    assert len(canvas.bbox.bboxes) == 1


def test_the_release_brings_the_box_whose_own_message_is_late_and_then_no_second_one(canvas) -> None:
    tell(canvas, type="pressed")
    send(canvas, [raw(10, 20, 0, 0)])
    tell(canvas, type="released", at=5.0, boxes=[raw(10, 20, 30, 40)])
    (region,) = canvas.regions
    send(canvas, [raw(10, 20, 30, 40)])  # late, and still without the key that it got in the meantime
    assert canvas.regions == (region,)
    assert canvas.table.heard == 5.0  # what the browser hears from now on is up to date


def test_a_plain_click_leaves_nothing(canvas) -> None:
    tell(canvas, type="pressed")
    send(canvas, [raw(10, 20, 0, 0)])
    tell(canvas, type="released")
    assert canvas.bbox.bboxes == []
    assert canvas.regions == ()


@pytest.mark.parametrize(
    ("entry", "box"),
    [
        (raw(-76, -5, 100, 50), (0, 0, 24, 45)),
        (raw(380, 290, 500, 500), (380, 290, 400, 300)),
    ],
)
def test_a_box_outside_is_cut_at_the_edge(canvas, entry, box) -> None:
    send(canvas, [entry])
    assert boxes(canvas) == [box]
    shown = canvas.bbox.bboxes[0]
    assert (shown["x"], shown["y"]) == box[:2]


@pytest.mark.parametrize(
    "entry",
    [raw(500, 10, 50, 50), raw(10, 10, 0, 50), raw(None, 10, 5, 5), raw(float("nan"), 1, 5, 5), {"x": 3}, "box", None],
)
def test_what_is_no_box_vanishes(canvas, entry) -> None:
    send(canvas, [entry])
    assert canvas.regions == ()
    assert canvas.bbox.bboxes == []


def test_a_box_pushed_over_the_edge_comes_back_whole(canvas) -> None:
    send(canvas, [raw(10, 20, 30, 40)])
    send(canvas, [{**canvas.bbox.bboxes[0], "x": -25}])
    assert boxes(canvas) == [(0, 20, 30, 60)]


def test_a_label_that_a_click_changed_is_put_back(canvas) -> None:
    send(canvas, [raw(10, 20, 30, 40)])
    send(canvas, [{**canvas.bbox.bboxes[0], "label": "region2"}])
    assert [entry["label"] for entry in canvas.bbox.bboxes] == ["region1"]


def test_a_removed_box_gives_its_number_to_the_next(canvas) -> None:
    canvas.set_boxes([(10, 20, 40, 60), (50, 50, 90, 90)])
    send(canvas, canvas.bbox.bboxes[1:])
    assert boxes(canvas) == [(50, 50, 90, 90)]
    assert canvas.bbox.bboxes[0]["label"] == "region1"


@pytest.mark.parametrize("change", [{"x": 99}, {"width": 5}, {"width": 0, "height": 0}, None])
def test_a_locked_region_springs_back_and_says_why(canvas, change) -> None:
    canvas.set_asked([(10.0, 20.0, 40.0, 60.0)])
    before = canvas.bbox.bboxes
    send(canvas, [{**before[0], **change}] if change else [])
    assert canvas.bbox.bboxes == before
    assert boxes(canvas) == [(10, 20, 40, 60)]
    assert "Region 1 has been asked about" in canvas.table.notice
    send(canvas, [*before, raw(100, 100, 20, 20)])
    assert canvas.table.notice == ""


def test_an_answer_that_locks_regions_waits_for_the_hand_that_draws(canvas) -> None:
    canvas.set_boxes([(10, 20, 40, 60)])
    tell(canvas, type="pressed")
    send(canvas, [*canvas.bbox.bboxes, raw(100, 100, 0, 0)])
    canvas.set_asked([(10.0, 20.0, 40.0, 60.0)])
    assert len(canvas.bbox.bboxes) == 2
    send(canvas, [*canvas.bbox.bboxes[:1], raw(100, 100, 20, 20)])
    tell(canvas, type="released")
    assert boxes(canvas) == [(10, 20, 40, 60), (100, 100, 120, 120)]
    assert [region.asked for region in canvas.regions] == [True, False]


def test_number_fields_move_add_and_remove(canvas) -> None:
    tell(canvas, type="add")
    key = canvas.regions[0].key
    assert boxes(canvas) == [(150, 112.5, 250, 187.5)]
    tell(canvas, type="box", key=key, box=[1, 2, 30, 40])
    assert boxes(canvas) == [(1, 2, 30, 40)]
    tell(canvas, type="box", key=key, box=[30, 40, 1, 2])  # corners in the other order
    assert boxes(canvas) == [(1, 2, 30, 40)]
    tell(canvas, type="remove", key=key)
    assert canvas.regions == ()


def test_number_fields_refuse_an_empty_box_in_words(canvas) -> None:
    canvas.set_boxes([(10, 20, 40, 60)])
    tell(canvas, type="box", key=canvas.regions[0].key, box=[10, 20, 10, 60])
    assert boxes(canvas) == [(10, 20, 40, 60)]
    assert "at least one pixel" in canvas.table.notice
    tell(canvas, type="box", key=canvas.regions[0].key, box=[10, None, 30, 60])
    assert boxes(canvas) == [(10, 20, 40, 60)]
    assert "all four numbers" in canvas.table.notice


def test_number_fields_cannot_change_a_locked_region(canvas) -> None:
    canvas.set_asked([(10.0, 20.0, 40.0, 60.0)])
    tell(canvas, type="box", key=canvas.regions[0].key, box=[1, 2, 3, 4])
    tell(canvas, type="remove", key=canvas.regions[0].key)
    assert boxes(canvas) == [(10, 20, 40, 60)]


def test_boxes_are_in_pixels_of_the_original_whatever_is_shown(canvas) -> None:
    canvas.set_image(Image.new("RGB", (4000, 3000)))
    send(canvas, [raw(101, 201, 401, 99)])
    assert boxes(canvas) == [(101, 201, 502, 300)]
    assert 'width="4000" height="3000"' in drawing(canvas)  # what the box widget counts in
    canvas.set_boxes([(101.25, 201, 501, 301)])
    send(canvas, [*canvas.bbox.bboxes, raw(32, 64, 32, 32)])
    assert boxes(canvas)[0] == (101.25, 201, 501, 301)  # not rounded to what the box widget can count
    canvas.set_image(Image.new("RGB", (40, 30)))
    send(canvas, [raw(8, 16, 80, 40)])
    assert boxes(canvas) == [(1, 2, 11, 7)]  # a tiny image is magnified


def drawing(canvas: RegionCanvas) -> str:
    kind, data = canvas.bbox.image_url.split(",")
    assert kind == "data:image/svg+xml;base64"
    return base64.b64decode(data).decode()


def test_what_is_seen_comes_as_fine_as_the_original(canvas) -> None:
    image = Image.effect_noise((3000, 2000), 50).convert("RGB")
    canvas.set_image(image)
    sent = []
    canvas.table.send = lambda content, buffers: sent.append((content, buffers[0]))
    tell(canvas, type="view", box=[-3.5, 100.2, 400.7, 2500])
    (content, data) = sent.pop()
    assert content == {"type": "detail", "box": [0, 100, 401, 2000]}
    tell(canvas, type="view", box=[100.5, 100.5, 499.5, 299.5])
    (_, data) = sent.pop()
    part = Image.open(io.BytesIO(data))
    assert part.size == (400, 200)
    assert part.tobytes() == image.crop((100, 100, 500, 300)).tobytes()
    tell(canvas, type="view", box=[5000, 0, 6000, 10])
    assert sent == []
    assert canvas.table.fineness == pytest.approx(MAX_SIDE / 3000)


def test_a_drawn_box_of_less_than_a_pixel_is_spoken_of(canvas) -> None:
    for drawn in (False, True):
        tell(canvas, type="pressed")
        send(canvas, [raw(10, 20, 0, 0)])
        tell(canvas, type="released", drawn=drawn)
        send(canvas, [])  # what the browser sends late
        assert canvas.regions == () and ("smaller than one pixel" in canvas.table.notice) is drawn
    tell(canvas, type="pressed")
    send(canvas, [raw(10, 20, 30, 40)])
    tell(canvas, type="released", drawn=True)
    assert len(canvas.regions) == 1 and canvas.table.notice == ""


def test_changes_by_hand_are_taken_back_until_a_question_uses_the_regions(canvas) -> None:
    send(canvas, [raw(10, 20, 30, 40)])
    (key,) = (region.key for region in canvas.regions)
    tell(canvas, type="add")
    tell(canvas, type="name", key=key, name="kettle")
    tell(canvas, type="box", key=key, box=[0, 0, 9, 9])
    tell(canvas, type="remove", key=key)
    tell(canvas, type="clear")
    assert "Ctrl+Z" in canvas.table.notice
    seen = []
    for _ in range(8):
        tell(canvas, type="undo")
        seen.append([(region.box[2], region.name) for region in canvas.regions])
    added = (seen[0][0][0], "")
    assert seen[:6] == [[added], [(9, "kettle"), added], [(40, "kettle"), added], [(40, ""), added], [(40, "")], []]
    assert seen[6:] == [[], []] and canvas.bbox.bboxes == []

    send(canvas, [raw(10, 20, 30, 40), raw(50, 20, 30, 40)])
    canvas.set_asked([(10, 20, 40, 60)])
    tell(canvas, type="undo")
    assert [region.asked for region in canvas.regions] == [True, False]
    tell(canvas, type="clear")
    tell(canvas, type="undo")
    assert [region.asked for region in canvas.regions] == [True, False]


def test_clear_takes_what_was_drawn_and_leaves_what_was_asked_about(canvas) -> None:
    canvas.set_asked([(10.0, 20.0, 40.0, 60.0)])
    send(canvas, [*canvas.bbox.bboxes, raw(100, 100, 20, 20)])
    tell(canvas, type="locked", region=1)
    assert "Region 1 has been asked about" in canvas.table.notice
    tell(canvas, type="clear")
    assert boxes(canvas) == [(10, 20, 40, 60)]
    assert canvas.table.notice == "Ctrl+Z brings the regions back."


def test_a_name_reaches_the_table_and_a_bad_one_is_put_back(canvas) -> None:
    canvas.set_boxes([(10, 20, 40, 60), (50, 50, 90, 90)], ["cup", ""])
    sent = []
    canvas.table.send = sent.append
    second = canvas.regions[1].key
    tell(canvas, type="name", key=second, name="CUP")
    assert "region 1 is already called “cup”" in canvas.table.notice.lower()
    assert sent == [{"type": "refresh"}]
    tell(canvas, type="name", key=second, name="the kettle")
    assert [row["name"] for row in canvas.table.regions] == ["cup", "the kettle"]
    assert "“the kettle”" in canvas.table.notice


def test_boxes_of_a_file_take_the_place_of_those_drawn(canvas) -> None:
    canvas.set_asked([(10.0, 20.0, 40.0, 60.0)])
    text = "x1,y1,x2,y2,name\n1,2,30,40,kettle\n900,0,950,9,cup"
    tell(canvas, type="boxes", name="found.csv", text=text)
    assert boxes(canvas) == [(10, 20, 40, 60), (1, 2, 30, 40)]
    assert canvas.regions[1].name == "kettle"
    assert canvas.table.notice == "1 box from found.csv; 1 more was left out."
    tell(canvas, type="boxes", name="found.csv", text="1,2")
    assert canvas.table.notice.startswith("found.csv: ")
    assert len(canvas.regions) == 2


def test_another_image_has_no_regions(canvas) -> None:
    canvas.set_boxes([(10, 20, 40, 60)])
    canvas.set_image(Image.new("RGB", (50, 50)))
    assert canvas.regions == ()
    assert canvas.bbox.bboxes == []


@pytest.mark.parametrize("size", [(1, 1), (336, 336), (5000, 100), (100, 5000), (2000, 1500)])
def test_the_shown_image_has_a_limited_size(size) -> None:
    image = Image.new("RGB", size, "red")
    shown = display_image(image)
    decoded = Image.open(io.BytesIO(shown.data))
    assert decoded.size == (shown.width, shown.height)
    assert max(decoded.size) <= MAX_SIDE
    assert max(decoded.size) == round(max(size) * shown.scale)
    assert image.size == size


def test_listeners_hear_of_each_change_once() -> None:
    heard = []
    canvas = RegionCanvas(on_change=lambda: heard.append(len(canvas.regions)))
    canvas.set_image(Image.new("RGB", SIZE))
    heard.clear()
    send(canvas, [raw(10, 20, 30, 40)])
    send(canvas, [*canvas.bbox.bboxes])
    assert heard == [1]
