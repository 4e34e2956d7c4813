"""Lessons run from top to bottom in a real JupyterLab, and what they print and show is right."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from browser.lab import Lab, Notebook
from lessons import NOTEBOOKS, RUN_IN_LAB, check, solved
from playwright.sync_api import Browser, expect

SECONDS = 900  # an idle machine needs 200
TALL = 16_000  # pixels, so that Lab draws all cells at once


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("name", "shown", "least"),
    zip(
        RUN_IN_LAB,
        (".g4r-record img", ".gpt4roi-monitor[data-state='done']", ".jp-RenderedImage img"),
        (6, 2, 2),
        strict=True,
    ),
)
def test_a_lesson_runs_in_the_browser(
    lab: Lab, browser: Browser, shots: Path, name: str, shown: str, least: int
) -> None:
    file = lab.files / f"{name}.ipynb"
    nbformat.write(solved(NOTEBOOKS[name]), file)
    page = browser.new_page(viewport={"width": 1300, "height": TALL})
    notebook = Notebook(page, lab.address(file.name), SECONDS)
    try:
        assert notebook.panel.locator(shown).count() >= least
        for image in notebook.panel.locator(".jp-OutputArea img").all():
            expect(image).not_to_have_js_property("naturalWidth", 0)
        page.screenshot(path=shots / f"{name}.png")
        notebook.save()
        check(nbformat.read(file, as_version=4))
        assert notebook.outside_requests == [] and notebook.errors == []
    finally:
        notebook.shut_down()
        page.close()
