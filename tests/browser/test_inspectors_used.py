"""Problems that users had with the inspectors, the failure browser and the lessons, with a real mouse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
from browser.lab import Lab, Notebook, assert_readable
from lessons import NOTEBOOKS
from playwright.sync_api import Browser, Locator, expect

from gpt4roi_nb.data.scenes.scene import make_scene

Open = Callable[..., Notebook]
TESTS = Path(__file__).resolve().parents[1]
SEED = 5
BOXES = [thing.box for thing in make_scene(SEED).objects[:2]]
KERNEL_MS = 120_000  # for the model's first computations; an idle machine needs a second
LAPTOP = {"width": 1366, "height": 768}
LOAD = (
    f"import sys, tempfile\nfrom pathlib import Path\nsys.path[:0] = [{str(TESTS)!r}, {str(TESTS / 'widgets')!r}]\n"
    "from gpt4roi_nb import GPT4RoI\nfrom gpt4roi_nb.data.scenes import make_scene\n"
    "from gpt4roi_nb.widgets import FailureBrowser, RegionChat, RoIInspector\n"
    "from predictions import make_images, make_predictions\n"
    f"gpt4roi = GPT4RoI.from_pretrained()\nscene = make_scene({SEED})"
)


# Collects the places of an element's upper edge, in pixels, as the page is drawn.
WATCH_TOPS = """name => {
    const element = document.querySelector(name), seen = new Set();
    const look = () => { seen.add(element.offsetTop); window.tops = [...seen]; requestAnimationFrame(look); };
    look();
}"""


def middle(notebook: Notebook, canvas: Locator, box: tuple[float, ...]) -> tuple[float, float]:
    """The position on the screen of the middle of a box of the scene."""
    svg = canvas.locator(".image svg")
    svg.scroll_into_view_if_needed()
    notebook.page.wait_for_timeout(300)
    frame = svg.bounding_box()
    scale = frame["width"] / make_scene(SEED).image.shape[1]
    return frame["x"] + (box[0] + box[2]) / 2 * scale, frame["y"] + (box[1] + box[3]) / 2 * scale


def assert_arrived(notebook: Notebook, place: Locator, view: Locator, name: str) -> None:
    """The opened inspector is at the top of the page, has the focus, and was announced."""
    expect(view).to_be_focused(timeout=KERNEL_MS)
    expect(view).to_have_attribute("aria-label", name)
    expect(view.locator(".gpt4roi-heard[role='status']")).to_have_text(f"{name} is open.")
    height = notebook.page.viewport_size["height"]
    assert 0 <= place.bounding_box()["y"] < height / 2


def test_the_region_inspector_follows_the_hand_and_keeps_its_image_in_sight(open_notebook: Open, shots: Path) -> None:
    notebook = open_notebook(LOAD, f"RoIInspector(gpt4roi.session(scene.image), {BOXES})", **LAPTOP)
    whole = notebook.panel.locator(".gpt4roi-roi-inspector")
    page, canvas = whole.locator(".gpt4roi-roi[data-ready]"), whole.locator(".gpt4roi-canvas")
    expect(page).to_be_visible(timeout=KERNEL_MS)
    expect(canvas.locator(".notice")).to_have_text("Draw a box, or move one, to see what it is made of.")
    pressed = page.locator(".chips button[aria-pressed='true']")
    expect(pressed).to_have_text("region 1")
    x, y = middle(notebook, canvas, BOXES[1])
    notebook.drag((x, y), (x + 25, y + 12))
    expect(pressed).to_have_text("region 2")
    expect(page.locator(".summary")).to_contain_text("Region 2 is")
    expect(page.locator(".control span")).to_have_text("“What is region 2?” ")
    notebook.page.mouse.click(*middle(notebook, canvas, BOXES[0]))
    expect(pressed).to_have_text("region 1")

    # Nothing jumps while the features are computed, and a key pressed again speaks to the same button.
    notebook.page.evaluate(WATCH_TOPS, ".gpt4roi-roi .bars")
    page.locator("button[data-action='control']").focus()
    notebook.page.keyboard.press("Enter")
    expect(page.locator(".control li")).to_have_count(3, timeout=KERNEL_MS)
    expect(page.locator("button[data-action='control']")).to_be_focused()
    page.locator(".chips button[data-region='2']").focus()
    notebook.page.keyboard.press("Enter")
    expect(pressed).to_have_text("region 2")
    expect(pressed).to_be_focused()
    expect(page.locator(".summary")).to_contain_text("Region 2 is")
    assert len(notebook.page.evaluate("window.tops")) == 1

    page.locator(".multiples").last.scroll_into_view_if_needed()
    page.locator("figure").last.scroll_into_view_if_needed()
    notebook.page.wait_for_timeout(300)
    image, maps = canvas.locator(".image svg").bounding_box(), page.locator("figure").last.bounding_box()
    assert maps["y"] + maps["height"] <= LAPTOP["height"] + 1
    assert image["y"] >= 0 and image["y"] + image["height"] <= LAPTOP["height"]
    notebook.page.screenshot(path=shots / "roi_scrolled.png")

    canvas.get_by_role("button", name="Clear").click()
    expect(page.locator(".summary")).to_have_text("Draw a box to see what it is made of.")
    expect(page.locator(".inside")).to_be_hidden()  # it was about "region 0"
    notebook.drag(middle(notebook, canvas, BOXES[0]), middle(notebook, canvas, BOXES[1]))
    expect(page.locator(".control span")).to_have_text("“What is region 1?” ")


def test_what_a_click_opens_comes_to_the_reader(open_notebook: Open, shots: Path) -> None:
    notebook = open_notebook(
        LOAD,
        "chat = RegionChat(gpt4roi, scene.image)\nchat",
        f"answer = chat.ask('What is <region1>, and is it the same colour as <region2>?', boxes={BOXES})\n"
        "opened_by_a_cell = chat.inspect_answer()",
        "result = make_predictions(make_images(Path(tempfile.mkdtemp()), 3))\n"
        "browser = FailureBrowser(result, gpt4roi)\nloaded = browser.load_selection()\nbrowser",
        **LAPTOP,
    )
    inside = notebook.chat.locator(".gpt4roi-inspections")
    attention = inside.locator(".gpt4roi-attention[data-ready]:not(.gpt4roi-roi)")
    expect(attention).to_be_attached(timeout=KERNEL_MS)
    expect(attention).not_to_be_focused()  # whoever runs all cells stays where he is
    expect(attention.locator(".group", has_text="opacity").locator("input[type=range]")).to_be_attached()
    expect(attention.locator(".verdicts li:visible").first).to_contain_text("log-probability of")
    expect(attention.locator(".verdicts").first).not_to_contain_text("0.00")

    notebook.turn(1).locator("button[data-action='inspect']").dblclick()
    assert_arrived(notebook, inside, attention, "Where the answer looked")
    expect(notebook.chat.locator(".gpt4roi-conversation .status")).to_be_hidden()
    expect(attention).to_be_focused()  # not replaced by a second one
    tokens = attention.locator(".tokens:visible button")
    tokens.first.click()
    outer = notebook.panel.locator(".jp-WindowedPanel-outer").first
    scrolled = outer.evaluate("outer => outer.scrollTop")
    for key, token in (
        ("End", tokens.last),
        ("ArrowDown", tokens.last),
        ("Home", tokens.first),
        ("ArrowDown", tokens.nth(1)),
    ):
        notebook.page.keyboard.press(key)
        expect(token).to_be_focused()
        expect(token).to_have_attribute("aria-checked", "true")
    assert outer.evaluate("outer => outer.scrollTop") == scrolled  # the keys are not the page's
    notebook.page.screenshot(path=shots / "arrived.png")
    notebook.chat.locator(".gpt4roi-table summary").click()
    notebook.row(2).locator("button[data-action='inspect']").click()
    assert_arrived(notebook, inside, inside.locator(".gpt4roi-roi[data-ready]"), "What the region is made of")

    failures = notebook.panel.locator(".gpt4roi-browser")
    for chart in failures.locator(".chart").all():
        tracks = [track.bounding_box() for track in chart.locator(".track").all()]
        assert len({round(track["x"]) for track in tracks}) <= 1, "bars begin at several edges"
        assert len({round(track["width"]) for track in tracks}) <= 1
    facts = failures.locator(".facts").bounding_box()
    for fact in failures.locator(".facts dd").all():  # they have all the room, although Lab's style gives them a part
        assert round(fact.bounding_box()["x"] + fact.bounding_box()["width"]) == round(facts["x"] + facts["width"])
    following = failures.locator("button[data-action='next']")
    following.focus()
    for place in (2, 3):
        notebook.page.keyboard.press("Enter")
        expect(failures.locator(".place")).to_have_text(f"{place} of 6", timeout=KERNEL_MS)
        expect(following).to_be_focused()
    failures.locator("button[data-action='inspect-regions']").click()
    below = failures.locator(".gpt4roi-inspections")
    assert_arrived(notebook, below, below.locator(".gpt4roi-roi[data-ready]"), "What the region is made of")
    notebook.page.screenshot(path=shots / "arrived_failure.png")
    failures.locator("button[data-action='inspect-attention']").click()  # asks first
    looked = below.locator(".gpt4roi-attention[data-ready]:not(.gpt4roi-roi)")
    assert_arrived(notebook, below, looked, "Where the answer looked")
    expect(failures.locator(".turn[data-turn='1']")).to_be_attached()
    expect(looked.locator(".verdicts li:visible").first).to_contain_text("log-probability of", timeout=KERNEL_MS)


MONITOR = """
from types import SimpleNamespace
from gpt4roi_nb.train import Probes
from gpt4roi_nb.widgets import TrainingMonitor
boxes = [thing.box for thing in scene.objects]
said = [(step, [f"a thing at {step}, number {number}" for number in range(len(boxes))]) for step in range(0, 60, 10)]
history = [{"step": step, "loss": 2.0 / step, "learning_rate": 1.478e-3} for step in range(1, 60)]
known = dict(history=history, step=59, max_steps=60, state="running", running=True, error=None, output_dir=Path("."))
known["stopping"] = False
known |= dict(problems=SimpleNamespace(counts=dict), listen=lambda follow: None)
run = SimpleNamespace(probes=Probes(scene.image, boxes, [""] * len(boxes)), answers=said, **known)
bare = SimpleNamespace(probes=None, answers=[], **known)
TrainingMonitor(run)
"""


def test_after_a_restart_and_the_next_day(lab: Lab, open_notebook: Open, shots: Path) -> None:
    """Both inspectors, the failure browser and the monitor, each in a cell of its own."""
    notebook = open_notebook(
        f"{LOAD}\nfrom fake_inside import fake_answer\nfrom fakes import FakeGPT4RoI\n"
        "from gpt4roi_nb.widgets import AttentionInspector",
        "AttentionInspector(fake_answer())",
        f"inspector = RoIInspector(gpt4roi.session(scene.image), {BOXES})\nwords = inspector.features\ninspector",
        "result = make_predictions(make_images(Path(tempfile.mkdtemp()), 3))\n"
        "browser = FailureBrowser(result, FakeGPT4RoI())\nloaded = browser.load_selection()\nbrowser",
        MONITOR,
        height=8000,  # pixels, so that Lab draws all cells at once
    )
    page, panel = notebook.page, notebook.panel
    file = page.evaluate("window.jupyterapp.shell.currentWidget.context.path")
    saved, gone = panel.locator(".gpt4roi-saved"), panel.locator(".gpt4roi-gone:visible")
    attention = panel.locator(".gpt4roi-attention[data-ready]:not(.gpt4roi-roi)")
    canvas = attention.locator("canvas[data-side='0']")
    roi, failures = panel.locator(".gpt4roi-roi-inspector"), panel.locator(".gpt4roi-failures")
    monitor = panel.locator(".gpt4roi-monitor")
    expect(attention).to_be_visible(timeout=KERNEL_MS)
    attention.locator("button[data-token='2']:visible").click()
    told = [
        "of “star” (token 3 of 7). Colours: from 0 to",
        "Region 1 is ",
        "asked",
        "Training, running: step 59 of 60",
    ]
    for index, words in enumerate(told):
        copy = saved.nth(index)
        expect(copy).to_contain_text(words, use_inner_text=False, timeout=KERNEL_MS)
        expect(copy).to_be_hidden()  # while the live view is there
    expect(gone).to_have_count(0)
    notebook.save()

    notebook.restart_kernel()
    expect(gone).to_have_count(5)  # one more of the chat in the failure browser
    for words in gone.all():
        expect(words).to_contain_text("The kernel was restarted: run this cell again")
    attention.locator("button[data-token='5']:visible").hover()  # its map is in the page
    expect(canvas).to_have_attribute("data-token", "5")
    assert attention.locator("[data-choice='method'] option:disabled").count() == 2
    expect(attention.locator("[data-choice='how']:visible")).to_be_disabled()
    assert roi.locator(".gpt4roi-canvas").evaluate("canvas => canvas.inert")
    for part in (roi.locator(".gpt4roi-roi"), failures):
        assert part.locator("button:enabled, select:enabled, input:enabled").count() == 0
    expect(monitor.locator(".badge")).to_have_text("ended")
    expect(monitor.locator("[data-action='stop']")).to_be_disabled()
    expect(monitor.locator(".gpt4roi-gone")).to_contain_text("continues from the last checkpoint")
    page.screenshot(path=shots / "restarted.png")

    notebook.open_the_next_day(lab.address(file))
    expect(saved).to_have_count(4)
    for copy in saved.all():
        expect(copy).to_be_visible()
        expect(copy).to_contain_text("This is a saved copy. Run this cell again to continue.")
        for image in copy.locator("img").all():
            expect(image).not_to_have_js_property("naturalWidth", 0)
    assert [copy.locator("img").count() for copy in saved.all()] == [1, 1, 0, 2]
    expect(saved.first).to_contain_text("Test (remove): without region 1 the log-probability of ' star'")
    expect(saved.nth(2).get_by_role("cell", name="What is region 1?")).to_be_visible()
    expect(panel.get_by_text("model not found").locator("visible=true")).to_have_count(0)
    page.screenshot(path=shots / "next_day.png")
    notebook.forgive_missing_widgets()


def test_the_monitor_fills_its_place_at_every_width(open_notebook: Open, shots: Path) -> None:
    notebook = open_notebook(LOAD, MONITOR, "TrainingMonitor(bare)", width=1366, height=1600)
    probed, bare = (notebook.panel.locator(".gpt4roi-monitor").nth(index) for index in (0, 1))
    expect(probed.locator(".probe")).to_have_count(len(make_scene(SEED).objects), timeout=KERNEL_MS)
    notebook.hide_files()  # their list would leave no room on a narrow page
    for width in (1366, 820, 700, 390):
        notebook.page.set_viewport_size({"width": width, "height": 1600})
        notebook.page.wait_for_timeout(500)
        for monitor in (probed, bare):
            stop, whole = monitor.locator("[data-action='stop']").bounding_box(), monitor.bounding_box()
            assert stop["x"] + stop["width"] <= whole["x"] + whole["width"]
            inner = monitor.locator(".sides").bounding_box()
            curves = monitor.locator("svg.curves")
            assert curves.bounding_box()["height"] == 324  # letters are as large as elsewhere
            assert float(curves.get_attribute("viewBox").split()[2]) == round(curves.bounding_box()["width"])
            edges = [tick.bounding_box()["x"] for tick in monitor.locator("svg .tick").all()]
            assert min(edges) >= curves.bounding_box()["x"]  # no number is cut off
            parts = [part.bounding_box() for part in monitor.locator(".sides > :visible").all()]
            covered = sum(part["width"] * part["height"] for part in parts)
            assert covered > 0.75 * inner["width"] * inner["height"], (width, parts, inner)
        last = probed.locator(".probe").nth(1).bounding_box()
        assert width < 1000 or last["y"] == probed.locator(".probe").first.bounding_box()["y"]  # side by side
        notebook.page.screenshot(path=shots / f"monitor_{width}.png")
    notebook.page.set_viewport_size({"width": 700, "height": 1600})
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.choose_theme(theme)
        assert_readable(notebook.panel.locator(".gpt4roi-monitor :is(.badge, .chip)"))
        notebook.page.screenshot(path=shots / f"monitor_700_{theme[-5:].strip()}.png")


def test_a_lesson_leads_to_the_next_and_keeps_its_answers_folded(lab: Lab, browser: Browser, shots: Path) -> None:
    """The last words of notebook 06, and one of its checks; they link to a file beside it."""
    lesson = nbformat.read(NOTEBOOKS["06_measure"], as_version=4)
    checks = [cell for cell in lesson.cells if cell.cell_type == "code" and "not tried yet" in cell.source]
    lesson.cells = [
        nbformat.v4.new_code_cell("my_share, apart, evasive = None, None, None"), checks[-1], lesson.cells[-1]
    ]  # fmt: skip
    nbformat.write(lesson, lab.files / "06_measure.ipynb")
    nbformat.write(nbformat.v4.new_notebook(), lab.files / "07_browse_failures.ipynb")
    page = browser.new_page(viewport=LAPTOP)
    notebook = Notebook(page, lab.address("06_measure.ipynb"))
    try:
        check = notebook.panel.locator(".jp-CodeCell").nth(1)
        expect(check.locator(".jp-Placeholder")).to_be_visible()
        expect(check.locator(".jp-OutputArea-output")).to_contain_text("Exercise 3: not tried yet.")
        expect(check.locator(".jp-Placeholder")).to_contain_text("# The check of exercise 3.")
        assert "len(apart)" not in check.inner_text()
        page.screenshot(path=shots / "folded.png")
        notebook.panel.get_by_role("link", name="Browse failures").click()
        expect(page.locator(".lm-TabBar-tab.lm-mod-current", has_text="07_browse_failures.ipynb")).to_be_visible()
    finally:
        notebook.shut_down()
        page.close()
