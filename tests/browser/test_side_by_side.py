"""A failure browser with two models in a real browser: a GPT4RoI, and a model of transformers in miniature."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from browser.lab import Notebook
from playwright.sync_api import Locator, expect

pytestmark = pytest.mark.browser

TESTS = Path(__file__).resolve().parents[1]
WIDTHS = (1366, 700, 390)


def cells(folder: Path, second: str, way: str) -> tuple[str, str]:
    """A browser on generated predictions on two scenes; its second model is a family in miniature."""
    return (
        f"import sys\nsys.path.insert(0, {str(TESTS)!r})\n"
        "from dataclasses import replace\nfrom pathlib import Path\nfrom PIL import Image\n"
        "from predictions import SIZE, make_predictions\nfrom tiny_families import tiny_family\n"
        "from gpt4roi_nb import GPT4RoI\nfrom gpt4roi_nb.data.scenes import make_scene\n"
        "from gpt4roi_nb.models import PromptedModel\nfrom gpt4roi_nb.widgets import FailureBrowser\n"
        f"folder = Path({str(folder)!r})\n"
        "for seed in (5, 7):\n"
        "    Image.fromarray(make_scene(seed).image).resize(SIZE).save(folder / f'{seed}.png')\n"
        f"model = PromptedModel(*tiny_family({second!r}), {way!r}, 'miniature')",
        "first, second = (\n"
        "    make_predictions(sorted(folder.glob('*.png')), seed=seed, checkpoint=name)\n"
        "    for seed, name in ((0, 'demo 0a1b2c3d'), (1, 'miniature 9f8e7d6c'))\n)\n"
        "second = replace(second, card=replace(second.card, way=model.way, told=model.note))\n"
        "browser = FailureBrowser([first, second], [GPT4RoI.from_pretrained(), model])\n"
        "browser.side_by_side.max_new_tokens = 6\nbrowser",
    )


class Pair:
    """The parts of the page that show two models."""

    def __init__(self, notebook: Notebook) -> None:
        self.panel = notebook.panel.locator(".gpt4roi-failures")
        self.root = notebook.panel.locator(".gpt4roi-beside")
        self.line = self.root.locator("textarea")

    def stored(self, letter: str) -> Locator:
        return self.root.locator(f".measured .cell[data-letter='{letter}']")

    def again(self, turn: int, letter: str) -> Locator:
        return self.root.locator(f".turn[data-turn='{turn}'] .cell[data-letter='{letter}']")

    def lefts_and_tops(self, cells: Locator) -> tuple[set[float], set[float]]:
        boxes = [cell.bounding_box() or {} for cell in cells.all()]
        return {box["x"] for box in boxes}, {box["y"] for box in boxes}


def test_one_failure_under_two_models_is_asked_again(
    open_notebook: Callable[..., Notebook], tmp_path: Path, shots: Path
) -> None:
    notebook = open_notebook(*cells(tmp_path, "qwen3_vl", "draw"))
    pair = Pair(notebook)
    expect(pair.panel.locator(".title")).to_have_text(
        "toys · A: demo (0a1b2c), region tokens · B: miniature (9f8e7d), draw, red, 3 pixels"
    )
    pair.panel.locator("button[data-action='load']").click()
    expect(pair.root).to_be_visible()
    expect(pair.panel.locator(".card dt")).to_have_text(["asked", "expected", "details"])
    notebook.page.wait_for_function("() => document.querySelector('.gpt4roi-beside > img').naturalWidth > 0")
    expect(pair.stored("A").locator(".way")).to_have_text("boxes as: region tokens")
    expect(pair.stored("B").locator(".way")).to_have_text("boxes as: draw, red, 3 pixels")
    verdicts = pair.root.locator(".verdict")
    expect(verdicts).to_have_count(2)
    assert any("✗ wrong: " in text for text in verdicts.all_inner_texts())

    expect(pair.line).to_have_value("What is <region1>?")
    pair.root.locator("button[data-action='ask']").click()
    for letter in "AB":  # states are those of unfinished answers
        expect(pair.again(1, letter).locator(".answer.done")).to_be_visible()
        expect(pair.again(1, letter).locator(".state")).to_have_count(0)
    lefts, tops = pair.lefts_and_tops(pair.root.locator(".turn[data-turn='1'] .cell"))
    assert len(lefts) == 2 and len(tops) == 1  # side by side

    pair.line.fill("Is <region1> red?")
    pair.line.press("Enter")
    expect(pair.again(2, "B").locator(".answer.done")).to_be_visible()
    expect(pair.root.locator(".turn[data-turn='2'] .question")).to_have_text("Is <region1> red?")

    pair.again(2, "B").locator("button[data-action='told']").click()
    told = pair.again(2, "B").locator(".told")
    expect(told.locator(".text")).to_have_text("Is the object within the red rectangle red?")
    expect(told.locator("img")).to_have_count(1)

    notebook.hide_files()
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.choose_theme(theme)
        for width in WIDTHS:
            notebook.page.set_viewport_size({"width": width, "height": 1600})
            notebook.page.wait_for_function(
                "() => { const root = document.querySelector('.gpt4roi-beside');"
                " return root.scrollWidth <= root.clientWidth && root.clientWidth < window.innerWidth; }"
            )
            lefts, _ = pair.lefts_and_tops(pair.root.locator(".measured .cell"))
            assert len(lefts) == (1 if width == 390 else 2)  # below one another where the page is narrow
            pair.root.scroll_into_view_if_needed()
            pair.root.screenshot(path=shots / f"beside_{theme.split()[1]}_{width}.png")
            notebook.page.screenshot(path=shots / f"beside_page_{theme.split()[1]}_{width}.png")
        notebook.page.set_viewport_size({"width": 1440, "height": 1000})


def test_a_model_without_free_questions_says_so_in_its_column(
    open_notebook: Callable[..., Notebook], tmp_path: Path, shots: Path
) -> None:
    notebook = open_notebook(*cells(tmp_path, "florence2", "native"), "ids = browser.load_selection()")
    pair = Pair(notebook)
    expect(pair.stored("B").locator(".note")).to_contain_text("Takes no free question, only “Describe <region1>.”")
    pair.line.fill("Why is <region1> there?")
    pair.line.press("Enter")
    expect(pair.again(1, "A").locator(".answer.done")).to_be_visible()
    expect(pair.again(1, "B").locator(".answer.cannot")).to_contain_text("answers tasks about one region")
    expect(pair.root.locator(".problem")).to_be_hidden()
    pair.line.fill("Describe <region1>.")
    pair.line.press("Enter")
    expect(pair.again(2, "B").locator(".answer.done")).to_be_visible()
    pair.root.screenshot(path=shots / "beside_cannot.png")
