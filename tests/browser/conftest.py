"""One JupyterLab and one Chromium for all browser tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from browser.lab import CHROMIUM_FLAGS, Lab, Notebook
from playwright.sync_api import Browser, expect, sync_playwright

_numbers = count(1)
# A quiet machine needs a tenth of a second for what is expected; a busy one is no failure.
expect.set_options(timeout=30_000)
FAKES = Path(__file__).resolve().parents[1] / "widgets"

OpenNotebook = Callable[..., Notebook]


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_FLAGS))
        yield started
        started.close()


@pytest.fixture()
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go, for people to look at."""
    return tmp_path_factory.getbasetemp()


@pytest.fixture()
def open_notebook(lab: Lab, browser: Browser) -> Iterator[OpenNotebook]:
    """Writes cells into a new notebook, opens it in a new page and runs it.

    Afterwards the page must have asked nothing of other machines, and have had no error.
    """
    opened: list[Notebook] = []

    def open_(*cells: str, width: int = 1440, height: int = 1000) -> Notebook:
        page = browser.new_page(viewport={"width": width, "height": height})
        name = lab.write(f"test{next(_numbers)}.ipynb", [*cells, "# for the test"])
        opened.append(Notebook(page, lab.address(name)))
        return opened[-1]

    yield open_
    for notebook in opened:
        notebook.shut_down()
        notebook.page.close()
        assert notebook.strangers == []
        assert notebook.errors == []


@pytest.fixture()
def fake_chat(open_notebook: OpenNotebook) -> Callable[..., Notebook]:
    """A chat with a stand-in for the model, in the variable `chat`; `model` are the stand-in's arguments."""

    def open_(model: str = "", image: str = "None", **size: int) -> Notebook:
        return open_notebook(
            f"import sys\nsys.path.insert(0, {str(FAKES)!r})\n"
            "from fakes import FakeGPT4RoI\nfrom gpt4roi_nb.widgets import RegionChat",
            f"gpt4roi = FakeGPT4RoI({model})\nchat = RegionChat(gpt4roi, {image})\nchat",
            **size,
        )

    return open_
