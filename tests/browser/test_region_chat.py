"""The chat under a real mouse and keyboard, with a stand-in for the model that repeats the question."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from browser.lab import Notebook
from PIL import Image
from playwright.sync_api import expect

SIZE = (336, 336)
Open = Callable[..., Notebook]


def test_draw_ask_and_undo(fake_chat: Open, shots: Path) -> None:
    notebook = fake_chat()
    notebook.draw((40, 40, 120, 120), SIZE, 1)
    assert notebook.box(1) == pytest.approx([40, 40, 120, 120], abs=1)
    notebook.draw((320, 60, 220, 160), SIZE, 2)  # towards the left
    assert notebook.box(2) == pytest.approx([220, 60, 320, 160], abs=1)

    answer = notebook.ask("Is <region1> left of region 2? <script>document.title = 'hit'</script>", turn=1)
    assert answer.startswith("You asked: Is region 1 left of region 2? <script>")
    assert "hit" not in notebook.page.title()
    chips = notebook.turn(1).locator(".chip")
    assert chips.all_inner_texts() == ["region 1", "region 2"] * 2
    expect(notebook.line).to_have_value("")
    expect(notebook.row(1).locator("input[data-edge]").first).to_be_disabled()
    notebook.page.screenshot(path=shots / "asked.png")

    notebook.button("undo").click()
    expect(notebook.turn(1)).not_to_be_attached()
    expect(notebook.row(2).locator("input[data-edge]").first).to_be_enabled()
    expect(notebook.line).to_have_value("Is <region1> left of <region2>? <script>document.title = 'hit'</script>")


def test_clicks_and_releases_outside_do_no_harm(fake_chat: Open) -> None:
    notebook = fake_chat()
    drawn = notebook.chat.locator(".image svg > g")
    notebook.page.mouse.click(*notebook.place(200, 200, SIZE))
    expect(drawn).to_have_count(0)

    start = notebook.place(250, 200, SIZE)
    notebook.drag(start, (start[0] + 500, start[1] + 60))
    expect(notebook.row(1)).to_be_attached()
    assert notebook.box(1)[2] == SIZE[0]
    before = notebook.box(1)
    notebook.page.mouse.move(*notebook.place(100, 300, SIZE), steps=3)  # it does not stick to the mouse
    notebook.page.mouse.move(*notebook.place(60, 100, SIZE), steps=3)
    notebook.page.wait_for_timeout(500)
    expect(drawn).to_have_count(1)
    assert notebook.box(1) == before


def test_a_slow_kernel_does_not_tear_a_box_out_of_the_hand(fake_chat: Open) -> None:
    notebook = fake_chat()
    notebook.run_cell("import time; chat.canvas.table.on_msg(lambda *message: time.sleep(0.3))")
    first, second = [(60, 60), (160, 160)], [(200, 80), (300, 240)]
    corners = [notebook.place(*corner, SIZE) for corner in first + second]
    notebook.page.mouse.click(*notebook.place(250, 280, SIZE))
    notebook.drag(*corners[:2])
    notebook.page.mouse.move(*corners[2])
    notebook.page.mouse.down()
    notebook.page.mouse.move(*corners[3], steps=4)
    notebook.page.wait_for_timeout(1500)  # the kernel's message about the first box arrives while the second is drawn
    notebook.page.mouse.up()
    expect(notebook.row(2)).to_be_attached()
    assert notebook.box(1) == pytest.approx([60, 60, 160, 160], abs=1)
    assert notebook.box(2) == pytest.approx([200, 80, 300, 240], abs=1)
    expect(notebook.chat.locator(".image svg > g")).to_have_count(2)


def test_a_locked_region_stays_and_can_be_drawn_over(fake_chat: Open) -> None:
    notebook = fake_chat()
    notebook.draw((40, 40, 300, 300), SIZE, 1)
    notebook.ask("What is <region1>?", turn=1)
    before = notebook.box(1)
    notebook.draw((100, 100, 200, 200), SIZE, 2)  # inside the first
    assert notebook.box(1) == before
    assert notebook.box(2) == pytest.approx([100, 100, 200, 200], abs=1)


def test_a_new_region_is_moved_by_numbers_and_removed(fake_chat: Open) -> None:
    notebook = fake_chat()
    notebook.chat.locator("summary").click()
    notebook.chat.locator("button.add").click()
    field = notebook.row(1).locator("input[data-edge='x1']")
    field.fill("10")
    field.press("Tab")
    expect(field).to_have_value("10")
    notebook.run_cell("print(chat.regions[0].box[0])")
    expect(notebook.panel.locator(".jp-OutputArea-output pre").last).to_have_text("10.0\n")
    notebook.row(1).get_by_role("button", name="Remove").click()
    expect(notebook.row(1)).not_to_be_attached()


def test_enter_asks_and_shift_enter_begins_a_line(fake_chat: Open) -> None:
    notebook = fake_chat()
    notebook.line.click()
    notebook.page.keyboard.type("first")
    notebook.page.keyboard.press("Shift+Enter")
    notebook.page.keyboard.type("second")
    expect(notebook.line).to_have_value("first\nsecond")
    notebook.page.keyboard.press("Enter")
    expect(notebook.turn(1).locator(".user .bubble")).to_have_text("first\nsecond")


def test_stop_ends_an_answer_while_it_streams(fake_chat: Open) -> None:
    notebook = fake_chat("lambda text: ' '.join(['word'] * (1 if text == 'First?' else 2000)), pause=0.05")
    notebook.run_cell(
        "first = chat.ask('First?')\nlooked = []\nchat.inspect_answer = lambda number: looked.append(number)"
    )
    notebook.line.click()
    notebook.page.keyboard.type("What do you see?")
    notebook.page.keyboard.press("Enter")
    expect(notebook.chat.locator(".live .model .bubble")).to_contain_text("word word")
    notebook.turn(1).locator("button[data-action='inspect']").click()
    status = notebook.chat.locator(".gpt4roi-conversation .status")
    expect(status).to_have_text("Answering… Looking inside answer 1 comes next.")
    notebook.line.click()
    notebook.page.keyboard.type("And then?")
    notebook.page.keyboard.press("Enter")  # too early: the question waits in its line
    expect(notebook.line).to_have_value("And then?")
    expect(notebook.chat.locator(".problem")).to_be_hidden()
    notebook.button("stop").click()
    expect(notebook.turn(2).locator(".stopped")).to_be_visible()
    expect(notebook.button("ask")).to_be_enabled()
    notebook.run_cell("chat.inspect_answer = lambda number: 1 / 0\nprint(looked)")
    expect(notebook.panel.locator(".jp-OutputArea-output pre").last).to_have_text("[0]\n")
    # One that does not open is forgotten: what a cell opens later does not scroll the page.
    notebook.turn(1).locator("button[data-action='inspect']").click()
    expect(notebook.chat.locator(".gpt4roi-conversation .problem")).to_be_visible()
    expect(notebook.chat).not_to_have_attribute("data-opening", "true")


def test_errors_stand_beside_the_question_which_stays(fake_chat: Open) -> None:
    notebook = fake_chat()
    notebook.line.click()
    notebook.page.keyboard.type("What is <region7>?")
    notebook.page.keyboard.press("Enter")
    expect(notebook.chat.locator(".problem")).to_contain_text("names region 7")
    expect(notebook.line).to_have_value("What is <region7>?")


def test_what_python_does_shows(fake_chat: Open) -> None:
    notebook = fake_chat()
    notebook.run_cell("chat.ask('What is <region1>?', [(20, 20, 90, 90)]); chat.session.ask('And region 1?')")
    expect(notebook.turn(2).locator(".user .bubble")).to_have_text("And region 1?")
    assert notebook.box(1) == [20, 20, 90, 90]


def test_another_image_from_gallery_and_from_a_file(fake_chat: Open, tmp_path: Path) -> None:
    notebook = fake_chat()
    notebook.draw((40, 40, 120, 120), SIZE, 1)
    notebook.button("image").click()
    scenes = notebook.chat.locator(".gpt4roi-picker button[data-seed]")
    expect(scenes).to_have_count(8, timeout=60000)
    scenes.nth(3).click()
    expect(notebook.row(1)).not_to_be_attached()

    file = tmp_path / "red.png"
    Image.new("RGB", (300, 150), "red").save(file)
    notebook.button("image").click()
    notebook.chat.locator(".gpt4roi-picker input[type=file]").set_input_files(file)
    expect(notebook.chat.locator(".gpt4roi-picker")).to_be_hidden()
    notebook.run_cell("print(chat.session.image.size)")
    expect(notebook.panel.locator(".jp-OutputArea-output pre").last).to_have_text("(300, 150)\n")


def test_a_dark_theme_and_a_narrow_window(fake_chat: Open, shots: Path) -> None:
    notebook = fake_chat()
    wide = notebook.chat.locator(".gpt4roi-talk").bounding_box()
    image = notebook.image.bounding_box()
    assert wide is not None
    assert image is not None
    assert wide["x"] > image["x"] + image["width"]  # side by side
    notebook.choose_theme("JupyterLab Dark")
    notebook.draw((40, 40, 120, 120), SIZE, 1)
    notebook.ask("What is <region1>?", turn=1)
    notebook.page.screenshot(path=shots / "dark.png")
    lightness = notebook.chat.locator(".log").evaluate(
        "log => getComputedStyle(log).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    assert max(lightness) < 60
    notebook.choose_theme("JupyterLab Light")

    notebook.page.set_viewport_size({"width": 820, "height": 1200})
    notebook.page.wait_for_timeout(500)
    notebook.page.screenshot(path=shots / "narrow.png")
    narrow = notebook.chat.locator(".gpt4roi-talk").bounding_box()
    image = notebook.image.bounding_box()
    assert narrow is not None
    assert image is not None
    assert narrow["y"] > image["y"] + image["height"]  # one below the other
    assert notebook.box(1) == pytest.approx([40, 40, 120, 120], abs=1)


def test_the_gallery_comes_into_sight_and_a_scene_can_be_chosen_before_all_are_rendered(fake_chat: Open) -> None:
    notebook = fake_chat(width=820, height=560)
    picker = notebook.chat.locator(".gpt4roi-picker")
    notebook.button("image").evaluate("button => button.scrollIntoView({block: 'end'})")
    notebook.button("image").click()
    first = picker.locator("button[data-seed]").first
    first.click()
    expect(picker).to_be_hidden()  # a click while the other scenes are rendered is not lost

    notebook.button("image").evaluate("button => button.scrollIntoView({block: 'end'})")
    notebook.button("image").press("Enter")
    close = picker.get_by_role("button", name="Close")
    expect(close).to_be_focused()
    expect(close).to_be_in_viewport()
    close.press("Enter")
    expect(notebook.button("image")).to_be_focused()
