"""The attention inspector under a real mouse: the map on the canvas is the array, and it comes quickly."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from browser.lab import Notebook
from matplotlib import colormaps
from playwright.sync_api import Locator, expect

FAKES = Path(__file__).resolve().parents[1] / "widgets"
sys.path.insert(0, str(FAKES))
from fake_inside import GRID, SINKS, TOKENS, FakeAttention  # noqa: E402

Open = Callable[..., Notebook]
VIRIDIS = np.round(colormaps["viridis"](np.arange(256))[:, :3] * 255).astype(int)
SINK_CELL = SINKS[1] - 2
HOVER_MS = 50


@pytest.fixture()
def open_inspector(open_notebook: Open) -> Open:
    """Open an inspector with these `arguments`, answers that need no model."""

    def open_(arguments: str = "fake_answer()", before: str = "", **size: int) -> Notebook:
        return open_notebook(
            f"import sys\nsys.path.insert(0, {str(FAKES)!r})\n"
            "from fake_inside import fake_answer\nfrom gpt4roi_nb.widgets import AttentionInspector, attention_data",
            f"{before}\ninspector = AttentionInspector({arguments})\ninspector",
            **size,
        )

    return open_


def inspector(notebook: Notebook) -> Locator:
    found = notebook.panel.locator(".gpt4roi-attention[data-ready]")
    expect(found).to_be_visible(timeout=120_000)  # a busy machine; a quiet one needs a second
    return found


def token(notebook: Notebook, index: int, side: int = 0) -> Locator:
    return inspector(notebook).locator(f".side[data-side='{side}'] button[data-token='{index}']")


def canvas(notebook: Notebook, side: int = 0) -> Locator:
    return inspector(notebook).locator(f"canvas[data-side='{side}']")


def pixels(notebook: Notebook, side: int = 0) -> np.ndarray:
    """The canvas's pixels in the browser, (grid, grid, RGBA)."""
    read = "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    return np.array(canvas(notebook, side).evaluate(read)).reshape(GRID, GRID, 4)


def expected(cells: np.ndarray, high: float) -> np.ndarray:
    return VIRIDIS[np.round(np.clip(cells / high, 0, 1) * 255).astype(int)]


def assert_shows(notebook: Notebook, cells: np.ndarray, high: float, side: int = 0) -> None:
    shown = pixels(notebook, side)
    assert np.abs(shown[..., :3] - expected(cells, high)).max() <= 2  # a step of the table, where a value lies between
    assert (shown[..., 3] == 255).all()
    assert len(np.unique(shown.reshape(-1, 4), axis=0)) > 3


def test_hover_click_and_sliders_show_the_right_map(open_inspector: Open, shots: Path) -> None:
    notebook = open_inspector()
    attention = FakeAttention()
    means = np.stack([attention.to_image(index).numpy() for index in range(len(TOKENS))])
    assert_shows(notebook, means[0], means.max())  # one scale for all tokens

    token(notebook, 3).hover()
    expect(canvas(notebook)).to_have_attribute("data-token", "3")
    assert_shows(notebook, means[3], means.max())
    expect(inspector(notebook).locator(".mass").first).to_contain_text(f"{100 * means[3].sum():.0f} %")
    expect(inspector(notebook).locator(".verdicts li").first).to_contain_text("' and' changes by -1.2")
    times = []
    for index in (1, 2, 4, 5, 6):
        token(notebook, index).hover()
        expect(canvas(notebook)).to_have_attribute("data-token", str(index))
        times.append(float(inspector(notebook).get_attribute("data-redraw-ms")))
    assert min(times) < HOVER_MS  # the quickest: other programs only ever add

    token(notebook, 5).click()  # the second "red"
    notebook.page.mouse.move(5, 5)
    expect(canvas(notebook)).to_have_attribute("data-token", "5")
    expect(inspector(notebook).locator(".summary").first).to_contain_text("“red” (token 6 of 7, occurrence 2 of 2)")
    assert_shows(notebook, means[5], means.max())
    notebook.run_cell("print(inspector.view.token)")
    expect(notebook.panel.locator(".jp-OutputArea-output pre").last).to_have_text("5\n")

    inspector(notebook).locator("input[data-choice='layer']").fill("2")
    expect(canvas(notebook)).to_have_attribute("data-layer", "1")
    one_layer = np.stack([attention.to_image(5, layer).numpy() for layer in attention.layers])
    high = max(float(attention.to_image(t, layer).max()) for t in range(len(TOKENS)) for layer in attention.layers)
    assert_shows(notebook, one_layer[1], high)

    inspector(notebook).locator(".matrix button[data-layer='0'][data-head='2']").first.click()
    expect(canvas(notebook)).to_have_attribute("data-head", "2")
    single = attention.to_image(5, 0, 2).numpy()
    assert_shows(notebook, single, float(attention.weights[..., attention.spans["image"]].max()))
    inspector(notebook).locator("select[data-choice='scale']").select_option("relative")
    expect(canvas(notebook)).to_have_attribute("data-high", str(float(single.max())))
    assert_shows(notebook, single, single.max())
    notebook.page.screenshot(path=shots / "attention.png")

    inspector(notebook).locator("input[data-choice='hide_sinks']").check()
    expect(inspector(notebook).locator(".shares .hint").first).to_contain_text("hidden")
    shown = pixels(notebook).reshape(-1, 4)
    assert (shown[:, 3] == 0).nonzero()[0].tolist() == [SINK_CELL]
    plain = single.copy().ravel()
    plain[SINK_CELL] = 0
    assert np.abs(np.delete(shown[:, :3] - expected(plain, plain.max()), SINK_CELL, axis=0)).max() <= 2


def test_what_is_not_there_comes_from_the_kernel_or_says_why(open_inspector: Open) -> None:
    notebook = open_inspector(before="attention_data.EAGER_BYTES = 100")
    attention = FakeAttention()
    inspector(notebook).locator(".matrix button[data-layer='1'][data-head='0']").first.click()
    expect(canvas(notebook)).to_have_attribute("data-head", "0")
    assert_shows(notebook, attention.to_image(0, 1, 0).numpy(), float(attention.weights[..., 2:18].max()))

    inspector(notebook).locator("select[data-choice='method']").select_option("relevancy")
    expect(canvas(notebook)).to_have_attribute("data-method", "relevancy")
    relevancy = attention.relevancy(0).numpy()
    cells = relevancy[2:18].reshape(GRID, GRID) / relevancy.sum()
    assert_shows(notebook, cells, cells.max())
    token(notebook, 3).click()
    expect(inspector(notebook).locator(".problem").first).to_contain_text("This model gives no gradients")
    inspector(notebook).locator("select[data-choice='how']").first.select_option("blur")
    expect(inspector(notebook).locator(".verdicts li").first).to_contain_text("The model would say: a blue star")


def test_two_answers_side_by_side_in_dark_and_saved(open_inspector: Open, shots: Path) -> None:
    notebook = open_inspector("fake_answer(0), fake_answer(1)")
    both = [FakeAttention(0), FakeAttention(1)]
    token(notebook, 2, side=1).click()
    expect(canvas(notebook, 1)).to_have_attribute("data-token", "2")
    high = max(float(one.to_image(t).max()) for one in both for t in range(len(TOKENS)))
    assert_shows(notebook, both[0].to_image(0).numpy(), high)
    assert_shows(notebook, both[1].to_image(2).numpy(), high, side=1)
    notebook.choose_theme("JupyterLab Dark")
    notebook.page.screenshot(path=shots / "attention_dark.png")

    inspector(notebook).locator("input[data-choice='compare']").uncheck()
    expect(canvas(notebook, 1)).to_be_hidden()
    saved = {}
    for kind in ("data", "svg", "png"):
        with notebook.page.expect_download() as arriving:
            inspector(notebook).locator(f"button[data-action='save-{kind}']").click()
        saved[kind] = Path(arriving.value.path()).read_bytes()
    (shots / "saved.png").write_bytes(saved["png"])
    content = json.loads(saved["data"])
    assert np.allclose(np.array(content["map"]).reshape(GRID, GRID), both[0].to_image(0))
    assert sum(content["shares"].values()) == pytest.approx(1, abs=1e-5)
    assert saved["svg"].count(b"rgb(") == GRID**2 and b"without region 1" in saved["svg"]
    assert saved["png"].startswith(b"\x89PNG")
