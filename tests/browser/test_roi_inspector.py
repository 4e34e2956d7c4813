"""The region inspector under a real mouse, and both inspectors opened from the chat, with the demo checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from browser.lab import Notebook, assert_readable, finger
from matplotlib import colormaps
from playwright.sync_api import expect

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data.scenes.scene import make_scene

Open = Callable[..., Notebook]
SEED = 5
KERNEL_MS = 120_000  # for the model's first computations; an idle machine needs a second
LOAD = (
    "from gpt4roi_nb import GPT4RoI\nfrom gpt4roi_nb.data.scenes import make_scene\n"
    "from gpt4roi_nb.widgets import RegionChat, RoIInspector\n"
    f"gpt4roi = GPT4RoI.from_pretrained()\nscene = make_scene({SEED})"
)
# The content of a canvas, as rows of RGBA.
PIXELS = "canvas => [canvas.width, [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]]"


@pytest.fixture(scope="module")
def demo() -> GPT4RoI:
    return GPT4RoI.from_pretrained()


def pixels(canvas) -> np.ndarray:
    width, flat = canvas.evaluate(PIXELS)
    return np.array(flat).reshape(-1, width, 4)[..., :3]


def colors(values: np.ndarray, low: float, high: float, name: str) -> np.ndarray:
    steps = np.round(255 * np.clip((values - low) / (high - low), 0, 1)).astype(int)
    return np.round(colormaps[name](steps)[..., :3] * 255)


def test_maps_are_the_features_and_follow_the_box(open_notebook: Open, demo: GPT4RoI, shots: Path) -> None:
    box = make_scene(SEED).objects[0].box
    notebook = open_notebook(
        LOAD, f"inspector = RoIInspector(gpt4roi.session(scene.image), [{box}])\ninspector", height=1500
    )
    page = notebook.panel.locator(".gpt4roi-roi[data-ready]")
    expect(page).to_be_visible(timeout=KERNEL_MS)
    session = demo.session(make_scene(SEED).image)
    features = session.roi_features([box])
    levels = [level.norm(dim=0).numpy() for level in features.levels]
    high = max(level.max() for level in levels)
    for number, level in enumerate(levels):
        shown = pixels(page.locator(f"canvas[data-of='levels'][data-level='{number}']"))
        assert np.abs(shown - colors(level, 0, high, "viridis")).max() <= 2
    shares = features.shares()
    for name, share in shares.items():
        value = page.locator(f"[data-part='{name}'] .value")
        expect(value).to_contain_text("%")
        number, _ = value.inner_text().split()
        assert float(number) == pytest.approx(100 * float(share[0]), abs=0.06)

    # The place under the mouse, and the places similar to it.
    grid = levels[0].shape[0]
    canvas = page.locator("canvas[data-of='levels'][data-level='0']")
    frame = canvas.bounding_box()
    canvas.hover(position={"x": frame["width"] * 3.5 / grid, "y": frame["height"] * 5.5 / grid})
    expect(canvas).to_have_attribute("data-similarity", "5 3")
    centred = features.levels[0] - features.levels[0].mean((1, 2), keepdim=True)
    units = (centred / centred.norm(dim=0)).numpy()
    assert np.abs(pixels(canvas) - colors(np.einsum("chw,c->hw", units, units[:, 5, 3]), -1, 1, "cividis")).max() <= 2
    page.locator("h4").first.hover()
    expect(canvas).not_to_have_attribute("data-similarity", "5 3")
    # A finger chooses a place by a tap, and leaves it by a tap elsewhere.
    frame = canvas.bounding_box()
    finger(notebook.page, (frame["x"] + frame["width"] * 2.5 / grid, frame["y"] + frame["height"] * 1.5 / grid))
    expect(canvas).to_have_attribute("data-similarity", "1 2")
    expect(page.get_by_text("(row 2, column 3)")).to_be_visible()
    title = page.locator("h4").first.bounding_box()
    finger(notebook.page, (title["x"] + 5, title["y"] + 5))
    expect(canvas).not_to_have_attribute("data-similarity", "1 2")

    page.locator("button[data-action='control']").click()
    expect(page.locator(".control li")).to_have_count(3, timeout=KERNEL_MS)
    expect(page.locator(".control li").first).to_contain_text(session.describe([box])[0].text)
    page.locator("select[data-choice='coloring']").select_option("similarity")
    expect(page.get_by_text("similarity to the region, -1").first).to_be_visible()
    expect(page.locator(".control li")).to_have_count(3)  # they are about the same box
    notebook.page.screenshot(path=shots / "roi.png")

    before = pixels(page.locator("canvas[data-of='pooled'][data-level='0']"))
    words = page.locator(".summary").inner_text()
    svg = notebook.panel.locator(".gpt4roi-canvas .image svg")
    at = svg.bounding_box()
    scale = at["width"] / 336
    middle = [at["x"] + (box[0] + box[2]) / 2 * scale, at["y"] + (box[1] + box[3]) / 2 * scale]
    notebook.drag(tuple(middle), (at["x"] + at["width"] / 2, at["y"] + at["height"] * 0.4))
    expect(page.locator(".summary")).not_to_have_text(words)
    notebook.run_cell("print([round(float(part['share']), 3) for part in inspector.view.bars])")
    moved = [float(edge) for edge in page.locator("rect[data-region='1']").first.evaluate(
        "rect => ['x', 'y', 'width', 'height'].map(name => rect.getAttribute(name))"
    )]  # fmt: skip
    place = [moved[0], moved[1], moved[0] + moved[2], moved[1] + moved[3]]
    assert place != list(box)
    pooled = session.roi_features([place]).pooled
    high = max(float(level.norm(dim=1).max()) for level in pooled)
    shown = pixels(page.locator("canvas[data-of='pooled'][data-level='0']"))
    assert np.abs(shown - colors(pooled[0][0].norm(dim=0).numpy(), 0, high, "viridis")).max() <= 2
    assert not np.array_equal(shown, before)


def test_both_inspectors_open_from_the_chat(open_notebook: Open, shots: Path) -> None:
    boxes = [thing.box for thing in make_scene(SEED).objects[:2]]
    notebook = open_notebook(
        LOAD,
        "chat = RegionChat(gpt4roi, scene.image)\nchat",
        f"answer = chat.ask('What is <region1>, and is it the same colour as <region2>?', boxes={boxes})",
        height=1900,
    )
    inside = notebook.chat.locator(".gpt4roi-inspections")
    notebook.turn(1).locator("button[data-action='inspect']").click()
    attention = inside.locator(".gpt4roi-attention[data-ready]:not(.gpt4roi-roi)")
    expect(attention).to_be_visible(timeout=KERNEL_MS)
    expect(attention.locator(".verdicts li")).to_have_count(2)
    expect(attention.locator(".verdicts li").first).to_contain_text("region 1")
    for index in range(attention.locator("button[data-token]:visible").count()):
        attention.locator(f".side[data-side='0'] button[data-token='{index}']").hover()
    attention.locator("select[data-choice='method']").select_option("relevancy")
    expect(attention.locator("canvas[data-side='0']")).to_have_attribute("data-method", "relevancy", timeout=KERNEL_MS)
    notebook.page.screenshot(path=shots / "chat_attention.png")
    assert_readable(attention.locator(".number:visible"))
    notebook.choose_theme("JupyterLab Dark")

    notebook.chat.locator(".gpt4roi-table summary").click()
    notebook.row(2).locator("button[data-action='inspect']").click()
    roi = inside.locator(".gpt4roi-roi[data-ready]")
    expect(roi).to_be_visible(timeout=KERNEL_MS)
    expect(attention).not_to_be_attached()
    expect(roi.locator(".chips button[aria-pressed='true']")).to_have_text("region 2")
    notebook.page.screenshot(path=shots / "chat_roi_dark.png")
    chips = roi.locator(".chips .chip, .number:visible")
    assert_readable(chips)
    notebook.choose_theme("JupyterLab Light")
    assert_readable(chips)
    inside.get_by_text("Close").click()
    expect(roi).not_to_be_attached()
