"""The image to draw on, in real use: slips of the mouse, selections, zoom, locked boxes, names, files."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from browser.lab import Notebook, assert_readable, finger
from PIL import Image
from playwright.sync_api import Locator, Page, expect

SIZE = (336, 336)
PHOTO = (4000, 3000)
Open = Callable[..., Notebook]
Frame = dict[str, float]


def notice(notebook: Notebook) -> Locator:
    return notebook.chat.locator(".gpt4roi-table .notice")


def tool(notebook: Notebook, action: str) -> Locator:
    return notebook.chat.locator(f".gpt4roi-table button[data-action='{action}']").first


def frame_of(locator: Locator) -> Frame:
    frame = locator.bounding_box()
    assert frame is not None
    return dict(frame)


def overlap(one: Frame, other: Frame) -> float:
    width = min(one["x"] + one["width"], other["x"] + other["width"]) - max(one["x"], other["x"])
    height = min(one["y"] + one["height"], other["y"] + other["height"]) - max(one["y"], other["y"])
    return max(width, 0) * max(height, 0)


def test_drawing_survives_whatever_the_mouse_did_before(fake_chat: Open) -> None:
    notebook = fake_chat()
    page, mouse = notebook.page, notebook.page.mouse
    regions = notebook.chat.locator(".gpt4roi-table .row")
    frame = frame_of(notebook.image)
    middle = notebook.place(168, 168, SIZE)
    empty = frame_of(notebook.chat.locator(".log .empty"))

    def double_click() -> None:
        mouse.dblclick(*middle)

    def slip() -> None:
        notebook.drag(middle, (middle[0] + 3, middle[1]))

    def drag_from(x: float, y: float) -> Callable[[], None]:
        return lambda: notebook.drag((x, y), middle)

    def select_the_words_beside() -> None:
        mouse.dblclick(empty["x"] + 20, empty["y"] + 8)
        notebook.drag((empty["x"] + 20, empty["y"] + 8), middle)

    def select_all() -> None:
        page.evaluate("document.getSelection().selectAllChildren(document.querySelector('.gpt4roi-chat'))")

    beside = frame["x"] + frame["width"] + 2, frame["y"] + 100
    table = frame_of(notice(notebook))
    stumbles = [
        double_click, slip, drag_from(*beside), drag_from(frame["x"] + 40, frame["y"] - 8),
        drag_from(table["x"] + 60, table["y"] + 8), select_the_words_beside, select_all,
    ]  # fmt: skip
    for stumble in stumbles:
        stumble()
        corners = notebook.place(200, 200, SIZE), notebook.place(280, 290, SIZE)
        notebook.drag(*corners)
        wait_for_box(notebook, (200, 200, 280, 290), stumble)
        tool(notebook, "clear").click()
        expect(regions).to_have_count(0)
        expect(notebook.chat.locator(".image svg > g")).to_have_count(0)

    mouse.move(*middle)
    mouse.down()
    mouse.move(middle[0] + 30, middle[1] + 30, steps=3)
    notebook.drag(*corners)  # a press without a release before it: the box being drawn ends, and its corner is grabbed
    wait_for_box(notebook, (168, 168, 280, 290), "a release was lost")
    mouse.move(*notebook.place(300, 310, SIZE), steps=3)
    page.wait_for_timeout(300)
    expect(regions).to_have_count(1)
    assert notebook.box(1) == pytest.approx([168, 168, 280, 290], abs=2)


def wait_for_box(notebook: Notebook, box: tuple[int, ...], after: object) -> None:
    for _ in range(40):
        boxes = notebook.page.evaluate(
            """() => [...document.querySelectorAll(".gpt4roi-table .row")].map(
                (row) => [...row.querySelectorAll("input[type=number]")].map((field) => field.valueAsNumber))"""
        )
        if any(found == pytest.approx(box, abs=2) for found in boxes):
            return
        notebook.page.wait_for_timeout(100)
    raise AssertionError(f"after {after} there is no region at {box}, only {boxes}")


def pinch(page: Page, at: tuple[float, float], apart: tuple[float, float]) -> None:
    """Move two fingers around a place, from one distance to another."""
    touch = page.context.new_cdp_session(page)

    def fingers(distance: float) -> list[dict[str, float]]:
        return [{"x": at[0] - distance / 2, "y": at[1], "id": 0}, {"x": at[0] + distance / 2, "y": at[1], "id": 1}]

    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": fingers(apart[0])[:1]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": fingers(apart[0])})
    for step in range(1, 6):
        now = apart[0] + (apart[1] - apart[0]) * step / 5
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": fingers(now)})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_zoom_and_pan_box_what_is_a_few_pixels_large(fake_chat: Open, shots: Path) -> None:
    notebook = fake_chat(image=f"__import__('PIL.Image').Image.linear_gradient('L').resize({PHOTO})")
    page = notebook.page
    viewport = notebook.chat.locator(".wrapper")
    level = notebook.chat.locator(".zoom .level")
    before = frame_of(viewport)
    fitted = frame_of(notebook.image)["width"]
    svg = notebook.chat.locator(".image svg")

    def place(x: float, y: float) -> tuple[float, float]:  # without scrolling
        page.wait_for_timeout(200)
        frame = frame_of(svg)
        return frame["x"] + x * frame["width"] / PHOTO[0], frame["y"] + y * frame["height"] / PHOTO[1]

    def still_at(x: float, y: float, where: tuple[float, float]) -> None:
        assert place(x, y) == pytest.approx(where, abs=2)

    # The mouse is on whole pixels of the screen, of which one is seven of the photo.
    at = (round(place(3000, 1000)[0]), round(place(3000, 1000)[1]))
    frame = frame_of(svg)
    there = (at[0] - frame["x"]) * PHOTO[0] / frame["width"], (at[1] - frame["y"]) * PHOTO[1] / frame["height"]
    page.mouse.move(*at)
    page.keyboard.down("Control")
    for _ in range(6):
        page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    expect(level).to_have_text("× 11")
    still_at(*there, at)
    assert frame_of(viewport) == pytest.approx(before, abs=1)  # nothing below it moves
    assert frame_of(svg)["width"] > 10 * fitted

    notebook.drag(place(3002, 1003), place(3042, 1023))  # 40 × 20 pixels, of a photo 4000 wide
    expect(notebook.row(1)).to_be_attached()
    drawn = notebook.box(1)
    assert drawn == pytest.approx([3002, 1003, 3042, 1023], abs=1)
    page.wait_for_timeout(400)  # until the kernel has confirmed it
    notebook.drag(place(3042, 1023), place(3062, 1063))
    expect(notebook.row(1).locator("input[data-edge='y2']")).not_to_have_value(str(drawn[3]))
    assert notebook.box(1) == pytest.approx([3002, 1003, 3062, 1063], abs=1)

    detail = notebook.chat.locator("img.gpt4roi-detail")  # one pixel of it is one of the photo
    page.wait_for_function("() => document.querySelector('img.gpt4roi-detail')?.naturalWidth > 0")
    assert frame_of(detail)["x"] <= before["x"] + 5
    page.screenshot(path=shots / "zoomed.png")

    page.mouse.wheel(0, 120)
    page.mouse.wheel(200, 0)
    page.wait_for_timeout(200)
    panned = place(*there)
    assert (at[0] - panned[0], at[1] - panned[1]) == pytest.approx((200, 120), abs=2)
    page.keyboard.press("ArrowUp")
    still_at(*there, (panned[0], panned[1] + 60))
    page.mouse.move(*at)
    page.mouse.down(button="middle")
    page.mouse.move(at[0] + 50, at[1] + 20, steps=3)
    page.mouse.up(button="middle")
    still_at(*there, (panned[0] + 50, panned[1] + 80))
    page.keyboard.press("-")
    expect(level).to_have_text("× 7.3")
    tool(notebook, "zoom-in").click()
    expect(level).to_have_text("× 11")
    tool(notebook, "zoom-fit").click()
    expect(level).to_have_text("× 1.0")
    expect(tool(notebook, "zoom-fit")).to_be_disabled()
    assert frame_of(viewport) == pytest.approx(before, abs=1)
    expect(detail).to_be_hidden()

    at = place(1000, 1500)
    pinch(page, at, (60, 180))
    expect(level).to_have_text("× 3.0")
    assert place(1000, 1500) == pytest.approx(at, abs=6)
    assert frame_of(svg)["width"] == pytest.approx(3 * fitted, abs=2)
    expect(notebook.chat.locator(".image svg > g")).to_have_count(1)  # the first finger drew nothing
    expect(notebook.chat.locator(".gpt4roi-table .row")).to_have_count(1)


def test_locked_boxes_labels_and_clear(fake_chat: Open, shots: Path) -> None:
    notebook = fake_chat()
    rows = notebook.chat.locator(".gpt4roi-table .row")
    notebook.draw((60, 60, 160, 160), SIZE, 1)
    notebook.ask("What is <region1>?", turn=1)
    expect(notebook.row(1).locator("input[data-edge='x1']")).to_be_disabled()
    expect(notebook.chat.locator(".image svg > g.gpt4roi-asked")).to_have_count(1)
    for corner, to in (((160, 160), (170, 172)), ((60, 110), (40, 120))):
        notebook.drag(notebook.place(*corner, SIZE), notebook.place(*to, SIZE))
        expect(notice(notebook)).to_contain_text("Region 1 has been asked about")
        notebook.page.wait_for_timeout(300)
        expect(rows).to_have_count(1)
        assert notebook.box(1) == pytest.approx([60, 60, 160, 160], abs=1)

    # Small, at the edges, side by side, one in the other.
    boxes = [
        (0, 0, 12, 12), (318, 100, 336, 120), (100, 200, 112, 212), (116, 200, 128, 212), (132, 200, 144, 212),
        (200, 200, 300, 300), (200, 200, 300, 300), (230, 230, 260, 260), (320, 326, 336, 336),
    ]  # fmt: skip
    notebook.run_cell(f"chat.set_boxes({boxes}, ['', 'a kettle with a long name'] + [''] * 7)")
    labels = notebook.chat.locator(".gpt4roi-labels span")
    expect(labels).to_have_count(10)
    notebook.page.wait_for_timeout(300)
    notebook.page.screenshot(path=shots / "labels.png")
    assert {"region 1", "region 2", "region 3 · a kettle with a long name"} <= set(labels.all_inner_texts())
    image = frame_of(notebook.image)
    frames = [frame_of(label) for label in labels.all()]
    crosses = [frame_of(cross) for cross in notebook.chat.locator(".image svg g.gpt4roi-new rect.clickable").all()]
    assert len(crosses) == 9
    for one, other in itertools.combinations(frames, 2):
        assert overlap(one, other) < 1
    for one, other in itertools.product(frames, crosses):
        assert overlap(one, other) < 2
    for frame in frames:
        assert frame["x"] + frame["width"] <= image["x"] + image["width"] + 1  # not over what stands beside
    # Ten regions have all the colours: on labels, in the table, in the conversation, and on buttons.
    notebook.chat.locator("summary").click()
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.choose_theme(theme)
        assert_readable(notebook.chat.locator(".chip:visible, .gpt4roi-labels span"))
        notebook.page.screenshot(path=shots / f"labels_{theme[-5:].strip()}.png")
    tool(notebook, "clear").click()
    expect(rows).to_have_count(1)
    expect(labels).to_have_count(1)
    expect(tool(notebook, "clear")).to_be_disabled()


def test_one_finger_draws_and_the_cross_removes(fake_chat: Open) -> None:
    notebook = fake_chat()
    page = notebook.page
    boxes = notebook.chat.locator(".image svg > g")
    cross = notebook.chat.locator(".image svg g.gpt4roi-new rect.clickable")

    def middle_of_cross() -> tuple[float, float]:
        page.wait_for_timeout(400)  # until the kernel has confirmed the box
        frame = frame_of(cross)
        return frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2

    places = [notebook.place(*at, SIZE) for at in ((60, 60), (110, 90), (160, 170))]
    finger(page, *places)
    expect(notebook.row(1)).to_be_attached()
    assert notebook.box(1) == pytest.approx([60, 60, 160, 170], abs=2)
    page.wait_for_timeout(400)
    finger(page, places[1], notebook.place(140, 130, SIZE), notebook.place(150, 140, SIZE))  # moves it
    expect(notebook.row(1).locator("input[data-edge='x1']")).to_have_value("100")
    assert notebook.box(1) == pytest.approx([100, 110, 200, 220], abs=2)
    finger(page, middle_of_cross())
    expect(notebook.row(1)).not_to_be_attached()
    expect(boxes).to_have_count(0)

    notebook.draw((60, 60, 160, 170), SIZE, 1)
    page.mouse.click(*middle_of_cross())
    expect(notebook.row(1)).not_to_be_attached()
    expect(boxes).to_have_count(0)


def test_names_numbers_and_boxes_from_a_file(fake_chat: Open, tmp_path: Path, shots: Path) -> None:
    notebook = fake_chat(image=f"__import__('PIL.Image').Image.linear_gradient('L').resize({PHOTO})")
    page = notebook.page
    found = tmp_path / "found.csv"
    found.write_text("x,y,width,height,name\n100,200,1000,800,cup\n2000,1500,1999,1400,cup\n")
    with page.expect_file_chooser() as chooser:
        tool(notebook, "boxes").click()
    chooser.value.set_files(found)
    expect(notice(notebook)).to_have_text("2 boxes from found.csv.")
    expect(notebook.chat.locator(".gpt4roi-labels span").last).to_have_text("region 2 · cup 2")
    notebook.chat.locator("summary").click()

    last = notebook.row(2).locator("input[data-edge='y2']")
    assert last.evaluate("field => field.scrollWidth <= field.clientWidth")  # four digits
    for keys in (("9", "9", "Tab"), ("Delete", "Tab")):  # changed, then emptied
        last.click()
        page.keyboard.press("Control+a" if "Delete" in keys else "End")
        for key in ("Backspace", "Backspace", *keys) if "Delete" not in keys else keys:
            page.keyboard.press(key)
        page.wait_for_timeout(300)
        expect(last).to_have_value("2999" if "Tab" in keys else "")
        focused = page.evaluate("document.activeElement.textContent")
        assert focused == "Remove"
    expect(notice(notebook)).to_contain_text("all four numbers")

    name = notebook.row(2).locator("input.name")
    name.fill("cup")
    name.press("Enter")
    expect(notice(notebook)).to_contain_text("already")
    expect(name).to_have_value("cup 2")
    name.fill("the kettle")
    name.press("Enter")
    expect(notebook.chat.locator(".gpt4roi-labels span").last).to_have_text("region 2 · the kettle")
    page.screenshot(path=shots / "names.png")
    assert notebook.ask("What is the kettle?", turn=1) == "You asked: What is region 1 · the kettle?"
    expect(notebook.panel.locator(".gpt4roi-saved")).to_contain_text("region 1 · the kettle")
    expect(notebook.chat.locator(".gpt4roi-labels span").first).to_have_text("region 1 · the kettle")


def test_large_and_unreadable_files(fake_chat: Open, tmp_path: Path, shots: Path) -> None:
    notebook = fake_chat()
    picker = notebook.chat.locator(".gpt4roi-picker")
    words = picker.locator(".words")
    choose = picker.locator("input[type=file]")
    notebook.button("image").click()
    heic = tmp_path / "IMG_0001.heic"
    heic.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    choose.set_input_files(heic)
    expect(words).to_contain_text("IMG_0001.heic is in Apple's HEIC format")
    expect(words).to_contain_text("save it as JPEG")
    notebook.page.screenshot(path=shots / "heic.png")
    choose.set_input_files([])
    choose.set_input_files(heic)  # once more: the same words come again
    expect(words).to_contain_text("IMG_0001.heic is in Apple's HEIC format")
    raw = tmp_path / "huge.nef"
    raw.write_bytes(b"II*\0" + bytes(10 * 2**20))
    choose.set_input_files(raw)
    expect(words).to_contain_text("huge.nef is a camera's raw file")

    large = tmp_path / "large.bmp"
    Image.frombytes("RGB", (5000, 1000), random.Random(0).randbytes(1000 * 1000 * 3) * 5).save(large)
    assert large.stat().st_size > 10 * 2**20
    choose.set_input_files(large)
    expect(picker).to_be_hidden()
    expect(notice(notebook)).to_contain_text("large.bmp was shrunk from 5000 × 1000 to 4096 × 819 pixels")
    notebook.run_cell("print(chat.session.image.size)")
    expect(notebook.panel.locator(".jp-OutputArea-output pre").last).to_have_text("(4096, 819)\n")
    notebook.button("image").click()
    expect(words).to_have_text("")
    notebook.button("image").click()

    # Dropped on the picture, or pasted.
    notes, small, tall = (tmp_path / name for name in ("notes.txt", "small.png", "tall.png"))
    notes.write_text("not this one")
    Image.new("RGB", (60, 40), "green").save(small)
    Image.linear_gradient("L").resize((10, 3000)).save(tall)
    page, svg = notebook.page, notebook.chat.locator(".image svg")
    drop_files(page, frame_of(notebook.image), notes, small)
    expect(notice(notebook)).to_have_text("Only small.png was opened: a chat shows one image.")
    drop_files(page, frame_of(notebook.image), heic)
    expect(words).to_contain_text("IMG_0001.heic is in Apple's HEIC format")
    expect(words).to_be_in_viewport()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(COPY_AN_IMAGE)
    for focused in (notebook.line, notebook.chat.locator(".wrapper")):
        focused.click()
        expect(notice(notebook)).not_to_have_text("Draw a box around what you want to ask about.")
        page.keyboard.press("Control+v")
        expect(notice(notebook)).to_have_text("Draw a box around what you want to ask about.")
        expect(notebook.chat.locator("input[data-edge]")).to_have_count(0)
        drop_files(page, frame_of(notebook.image), small, small)
        expect(notice(notebook)).to_contain_text("Only small.png")

    # A strip is not endlessly high, and can be drawn on where it is large enough.
    drop_files(page, frame_of(notebook.image), tall)
    expect(notice(notebook)).to_have_text("Draw a box around what you want to ask about.")
    notebook.image.wait_for()
    assert frame_of(svg)["height"] <= 560
    viewport = frame_of(notebook.chat.locator(".wrapper"))
    page.mouse.move(viewport["x"] + 5, viewport["y"] + 300)
    page.keyboard.down("Control")
    for _ in range(20):
        page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    expect(notebook.chat.locator(".zoom .level")).to_have_text("× 86")
    assert frame_of(notebook.chat.locator(".wrapper")) == pytest.approx(viewport, abs=1)
    notebook.drag((viewport["x"] + 40, viewport["y"] + 60), (viewport["x"] + 110, viewport["y"] + 130))
    expect(notebook.row(1)).to_be_attached()
    box = notebook.box(1)
    assert (box[2] - box[0], box[3] - box[1]) == pytest.approx((4.4, 4.4), abs=1)
    # Less than a pixel of it is no region, and a message says so.
    notebook.drag((viewport["x"] + 40, viewport["y"] + 300), (viewport["x"] + 45, viewport["y"] + 305))
    expect(notice(notebook)).to_contain_text("smaller than one pixel")
    expect(notebook.row(2)).not_to_be_attached()


COPY_AN_IMAGE = """async () => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 50, height: 30 });
    canvas.getContext("2d").fillRect(0, 0, 20, 20);
    const image = await new Promise((done) => canvas.toBlob(done, "image/png"));
    await navigator.clipboard.write([new ClipboardItem({ "image/png": image })]);
}"""


def drop_files(page: Page, frame: Frame, *files: Path) -> None:
    """Drag files from the desktop onto the middle of a frame."""
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    place = {"x": frame["x"] + frame["width"] / 2, "y": frame["y"] + min(frame["height"] / 2, 100), "data": data}
    browser = page.context.new_cdp_session(page)
    for event in ("dragEnter", "dragOver", "drop"):
        browser.send("Input.dispatchDragEvent", {"type": event, **place})


def test_boxes_keep_their_place_when_the_theme_changes(fake_chat: Open) -> None:
    notebook = fake_chat()
    notebook.draw((40, 40, 240, 240), SIZE, 1)
    box = notebook.chat.locator(".image svg rect.movable")
    expect(box).not_to_have_attribute("width", "0")
    drawn = box.get_attribute("width")
    for theme in ("JupyterLab Dark", "JupyterLab Light", "JupyterLab Dark", "JupyterLab Light"):
        notebook.choose_theme(theme)
        notebook.page.wait_for_timeout(1000)  # the box was lost some frames later
        expect(box).to_have_attribute("width", drawn or "")


def test_keys_on_the_image_move_no_box_and_save_the_notebook(fake_chat: Open) -> None:
    notebook = fake_chat()
    page = notebook.page
    notebook.draw((40, 40, 240, 240), SIZE, 1)
    drawn = notebook.box(1)
    expect(notebook.chat.locator(".wrapper")).to_be_focused()
    page.keyboard.type("what was drawn: cdqerf ")  # somebody who forgot to click on the line
    page.wait_for_timeout(500)
    assert notebook.box(1) == drawn
    # A drag within a box moves it; with Shift, it draws another one.
    page.keyboard.down("Shift")
    notebook.draw((80, 80, 120, 130), SIZE, 2)
    page.keyboard.up("Shift")
    assert notebook.box(1) == drawn
    notebook.drag(notebook.place(200, 200, SIZE), notebook.place(220, 230, SIZE))
    expect(notice(notebook)).to_contain_text("To draw a new one within it, hold Shift.")
    assert notebook.box(1) == pytest.approx([60, 70, 260, 270], abs=2)
    # What the hand did can be taken back.
    tool(notebook, "clear").click()
    expect(notebook.chat.locator(".image svg > g")).to_have_count(0)
    page.keyboard.press("Control+z")
    expect(notebook.chat.locator(".image svg > g")).to_have_count(2)
    notebook.chat.locator(".wrapper").focus()
    page.keyboard.press("Control+z")
    expect(notebook.row(1).locator("input[data-edge='x1']")).to_have_value(str(drawn[0]))
    assert notebook.box(1) == drawn
    notebook.page.mouse.click(*notebook.place(100, 100, SIZE))  # selects the inner one
    dirty = page.locator(".lm-TabBar-tab.jp-mod-current.jp-mod-dirty")
    expect(dirty).to_have_count(1)
    notebook.until_saved(lambda: page.keyboard.press("Control+s"))
    page.keyboard.press("Delete")
    expect(notebook.row(2)).to_have_count(0)
