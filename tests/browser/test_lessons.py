"""The lessons on data and training run from top to bottom in a real JupyterLab, and show what they promise."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from browser.lab import Lab, Notebook
from playwright.sync_api import Browser, expect

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SECONDS = 900  # a quiet machine needs 200
TALL = 16_000  # pixels, so that Lab draws all cells at once


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("name", "shown", "least"),
    [("02_the_data", ".g4r-record img", 6), ("03_train_it_yourself", ".gpt4roi-monitor[data-state='done']", 2)],
)
def test_a_lesson_runs_in_the_browser(
    lab: Lab, browser: Browser, shots: Path, name: str, shown: str, least: int
) -> None:
    shutil.copy(NOTEBOOKS / f"{name}.ipynb", lab.files / f"{name}.ipynb")
    page = browser.new_page(viewport={"width": 1300, "height": TALL})
    notebook = Notebook(page, lab.address(f"{name}.ipynb"), SECONDS)
    try:
        assert notebook.panel.locator(shown).count() >= least
        for picture in notebook.panel.locator(".jp-OutputArea img").all():
            expect(picture).not_to_have_js_property("naturalWidth", 0)
        page.screenshot(path=shots / f"{name}.png")
        assert notebook.strangers == [] and notebook.errors == []
    finally:
        notebook.shut_down()
        page.close()
