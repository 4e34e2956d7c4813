"""Problems that users had with the conversation, with a stand-in for the model: several per notebook."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from browser.lab import Lab, Notebook
from nbconvert import HTMLExporter
from playwright.sync_api import expect

SIZE = (336, 336)
Open = Callable[..., Notebook]
WINDOWS = ((1366, 768), (820, 1180), (700, 768), (390, 844))
STATUS_BAR = 25  # pixels at the bottom of JupyterLab
# Lab scrolls to the active cell some time after the window was resized.
SCROLLED_TO = """async (chat) => {
    chat.scrollIntoView({ block: "start" });
    await new Promise((done) => setTimeout(done, 500));
    return chat.getBoundingClientRect().top >= 0;
}"""


def enter(notebook: Notebook, text: str) -> None:
    notebook.line.fill(text)
    notebook.line.press("Enter")


def question(notebook: Notebook, turn: int) -> str:
    return notebook.turn(turn).locator(".user .bubble").inner_text()


def printed(notebook: Notebook, expression: str) -> str:
    notebook.run_cell(f"print({expression})")
    return notebook.panel.locator(".jp-OutputArea-output pre").last.inner_text().strip()


def test_a_question_is_asked_once_and_means_what_it_says(fake_chat: Open, shots: Path) -> None:
    notebook = fake_chat("pause=0.1")
    problem, status = notebook.chat.locator(".problem"), notebook.chat.locator(".status")

    # A double click asks once, and does not click Stop.
    notebook.line.fill("First?")
    notebook.button("ask").dblclick()
    expect(notebook.turn(1)).to_be_visible()
    expect(problem).to_be_hidden()
    expect(notebook.turn(1).locator(".stopped")).to_have_count(0)
    expect(notebook.button("ask")).to_be_enabled()

    # Nor does a hasty second press of Enter ask an empty question, even if the answer came between the two.
    notebook.page.evaluate("performance.now = () => 0")
    enter(notebook, "Hasty?")
    expect(notebook.turn(2)).to_be_visible()
    expect(notebook.button("ask")).to_be_enabled()
    notebook.line.press("Enter")
    assert printed(notebook, "len(chat.session.history)") == "2"
    expect(problem).to_be_hidden()
    notebook.page.evaluate("delete performance.now")
    notebook.button("undo").click()
    expect(notebook.turn(2)).not_to_be_attached()
    notebook.line.fill("")

    # Text typed right after Enter belongs to the next question.
    notebook.line.click()
    notebook.page.keyboard.type("Second?")
    notebook.page.keyboard.press("Enter")
    notebook.page.keyboard.type("Third")
    expect(notebook.turn(2)).to_be_visible()
    assert question(notebook, 2) == "Second?"
    expect(notebook.line).to_have_value("Third")

    # A question about a region that does not exist is not asked.
    enter(notebook, "What is region 1?")
    expect(problem).to_have_text(
        "The question names region 1, but there is no box yet; draw one on the image, then ask."
    )
    expect(notebook.line).to_have_value("What is region 1?")
    expect(notebook.turn(3)).not_to_be_attached()

    # A spelling with a clear meaning is accepted.
    notebook.draw((40, 40, 120, 120), SIZE, 1)
    enter(notebook, "What is <Region 1>?")
    expect(notebook.turn(3).locator(".user .chip")).to_have_text("region 1")
    expect(problem).to_be_hidden()

    # A new box is not overlooked because an older one is named.
    notebook.draw((200, 60, 300, 160), SIZE, 2)
    enter(notebook, "What colour is <region1>?")
    expect(status).to_contain_text("You drew region 2, but the question does not name it")
    expect(notebook.line).to_have_value("What colour is <region1>?")
    notebook.page.screenshot(path=shots / "conversation_asks_first.png")
    notebook.line.press("Enter")
    expect(notebook.turn(4)).to_be_visible()
    expect(status).to_have_text("Asked without region 2, which the question does not name.")

    # A second view of the chat shares the line: a question that comes back is there once, in both.
    notebook.run_cell("chat")
    other = notebook.panel.locator(".gpt4roi-chat").nth(1)
    notebook.draw((20, 200, 60, 300), SIZE, 3)
    other.locator("textarea").fill("And this?")
    other.locator("textarea").press("Enter")
    expect(other.locator(".status")).to_contain_text("You drew regions 2 and 3")
    for line in (notebook.line, other.locator("textarea")):
        expect(line).to_have_value("And this?")
    other.locator("textarea").press("Enter")
    expect(notebook.turn(5).locator(".user .bubble")).to_have_text("And this?")
    expect(notebook.line).to_have_value("")
    notebook.run_cell("chat.canvas.set_boxes([(200, 60, 300, 160)])")
    notebook.button("undo").click()
    expect(notebook.turn(5)).not_to_be_attached()
    notebook.line.fill("")

    # Both regions in one phrase; a new conversation by mistake is taken back.
    enter(notebook, "Are regions 1 and 2 alike?")
    expect(notebook.turn(5).locator(".user .chip")).to_have_text(["region 1", "region 2"])
    notebook.button("undo").click()
    notebook.button("new").click()
    expect(status).to_have_text("Undo brings the last conversation back.")
    expect(notebook.turn(1)).not_to_be_attached()
    notebook.button("undo").click()
    expect(notebook.turn(4)).to_be_visible()
    assert notebook.box(2) == pytest.approx([200, 60, 300, 160], abs=2)
    notebook.line.fill("")

    notebook.button("undo").click()
    expect(notebook.line).to_have_value("What colour is <region1>?")
    notebook.button("undo").click()
    expect(notebook.line).to_have_value("What is <region1>?")

    # A wrong setting is restored, with a message.
    notebook.button("settings").click()
    fields = {name: notebook.chat.locator(f"input[data-setting='{name}']") for name in ("temperature", "seed")}
    fields["temperature"].fill("0.7")
    fields["seed"].fill("5")
    fields["seed"].press("Tab")
    fields["temperature"].fill("")
    fields["temperature"].press("Tab")
    expect(fields["temperature"]).to_have_value("0.7")
    expect(notebook.chat.locator(".panel .wrong").first).to_contain_text("from 0 to 2; the old value was restored")
    notebook.page.screenshot(path=shots / "conversation_settings.png")
    notebook.button("settings").click()
    enter(notebook, "What is <region1>?")
    expect(notebook.turn(3)).to_be_visible()
    assert printed(notebook, "gpt4roi.settings[-1]") == "(256, 0.7, 5)"
    notebook.button("settings").click()
    expect(notebook.chat.locator(".panel .wrong").first).to_be_hidden()  # of the setting that was wrong before


def test_a_conversation_is_kept_and_outlives_its_kernel(lab: Lab, fake_chat: Open, shots: Path) -> None:
    notebook = fake_chat(height=900)
    page, chat = notebook.page, notebook.chat
    file = lab.files / page.url.split("/")[-1].split("?")[0]
    saved = notebook.panel.locator(".gpt4roi-saved")
    notebook.draw((40, 40, 120, 120), SIZE, 1)
    notebook.ask("What is <region1>, <b>really</b>?", turn=1)
    expect(saved).to_contain_text("You: What is region 1, <b>really</b>?", use_inner_text=False)
    expect(saved).to_be_hidden()  # while the live view is there

    notebook.button("keep").click()
    with page.expect_download() as download:
        notebook.button("html").click()
    handout = download.value.path().read_text(encoding="utf-8")
    assert "data:image/jpeg" in handout and "&lt;b&gt;really&lt;/b&gt;" in handout
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    notebook.button("copy").click()
    expect(chat.locator(".panel").get_by_text("Copied.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()").startswith("You: What is region 1, <b>really</b>?\nModel: ")
    # A large image takes seconds to save, and may fail: either shows.
    kept = chat.locator(".panel[data-panel='keep'] .hint")
    notebook.run_cell(
        "import time\ndef full(): time.sleep(3); raise OSError('no space left on the disk')\nchat.save = full"
    )
    notebook.button("save").click()
    expect(kept).to_have_text("Saving…")
    expect(chat.locator(".problem").first).to_contain_text("No space left on the disk.")
    expect(kept).to_have_text("")
    notebook.run_cell("chat.save = lambda: 'talk.json'")
    notebook.button("save").click()
    expect(kept).to_contain_text("Saved as talk.json")
    expect(chat.locator(".problem").first).to_be_hidden()
    page.screenshot(path=shots / "conversation_kept.png")

    # The line keeps no key from the notebook that means "save".
    dirty = page.locator(".lm-TabBar-tab.jp-mod-current.jp-mod-dirty")
    expect(dirty).to_have_count(1)
    notebook.until_saved(lambda: notebook.line.press("Control+s"))

    # A restarted kernel: it says so, and what cannot work is disabled.
    notebook.restart_kernel()
    expect(chat.locator(".gpt4roi-gone")).to_contain_text(
        "The kernel was restarted: run this cell again, after those above it"
    )
    expect(notebook.button("ask")).to_be_disabled()
    expect(notebook.turn(1).locator("button[data-action='inspect']")).to_be_disabled()
    for part in (".gpt4roi-canvas", ".toolbar"):
        assert chat.locator(part).evaluate("part => part.closest('[inert]') !== null")
    expect(notebook.turn(1)).to_be_visible()
    page.screenshot(path=shots / "conversation_restarted.png")

    # The next day: no kernel knows of it, and the notebook still shows the conversation.
    notebook.open_the_next_day(lab.address(file.name))
    expect(saved).to_be_visible()
    expect(saved).to_contain_text("You: What is region 1, <b>really</b>?")
    expect(saved.locator("img")).not_to_have_js_property("naturalWidth", 0)
    expect(notebook.panel.get_by_text("model not found")).to_be_hidden()
    page.screenshot(path=shots / "conversation_next_day.png")
    notebook.forgive_missing_widgets()
    exported, _ = HTMLExporter().from_filename(file)
    assert "<b>You:</b> What is " in exported and "&lt;b&gt;really&lt;/b&gt;" in exported


@pytest.mark.slow
def test_image_and_question_line_fit_the_window(fake_chat: Open, shots: Path) -> None:
    notebook = fake_chat(height=768, width=1366)
    notebook.run_cell(
        "chat.ask('What is <region1>?', [(40, 40, 120, 120)]); chat.ask('And why, in many words? ' * 8)\n"
        "chat.set_boxes([(200, 60, 300, 160)])"
    )
    expect(notebook.turn(2)).to_be_visible()
    notebook.hide_files()
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.page.set_viewport_size({"width": 1366, "height": 768})
        notebook.choose_theme(theme)
        for width, height in WINDOWS:
            notebook.page.set_viewport_size({"width": width, "height": height})
            notebook.page.wait_for_function(SCROLLED_TO, arg=notebook.chat.element_handle())
            notebook.page.screenshot(path=shots / f"conversation_{theme[-5:].strip()}_{width}.png")
            line, image = notebook.line.bounding_box(), notebook.chat.locator(".image svg").bounding_box()
            assert line is not None and image is not None
            assert line["y"] + line["height"] <= height - STATUS_BAR, f"at {width} × {height}"
            assert image["y"] >= 0 and image["width"] >= 150
    # A question that needs three lines on a narrow page needs one on a wide one.
    notebook.line.fill("Is the large red cup to the left of the small green cylinder, or behind it?")
    high = notebook.line.bounding_box()
    notebook.page.set_viewport_size({"width": 1366, "height": 768})
    one_line = "([line, high]) => line.offsetHeight < high / 2"
    assert high is not None
    notebook.page.wait_for_function(one_line, arg=[notebook.line.element_handle(), high["height"]])
