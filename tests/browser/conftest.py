"""One JupyterLab and one Chromium for all browser tests."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from browser.lab import CHROMIUM_FLAGS, Lab, Notebook
from playwright.sync_api import Browser, Page, expect, sync_playwright

_numbers = count(1)
_PASSED = pytest.StashKey[bool]()
# An idle machine needs a tenth of a second for what is expected; on a busy one the test must not fail.
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
    """The folder for screenshots, for people to look at."""
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="session")
def pages(browser: Browser) -> list[Page]:
    """Pages on which a JupyterLab has started, without a notebook; a test that succeeds puts its page back."""
    return []


@pytest.fixture()
def open_notebook(
    lab: Lab, browser: Browser, pages: list[Page], request: pytest.FixtureRequest
) -> Iterator[OpenNotebook]:
    """Write cells into a new notebook, open it and run it.

    Afterwards the page must not have contacted other machines, and must have had no error.
    """
    taken: list[Page] = []
    opened: list[Notebook] = []

    def open_(*cells: str, width: int = 1440, height: int = 1000) -> Notebook:
        running = bool(pages)
        page = pages.pop() if running else browser.new_page()
        taken.append(page)
        page.set_viewport_size({"width": width, "height": height})
        name = lab.write(f"test{next(_numbers)}.ipynb", [*cells, "# for the test"])
        opened.append(Notebook(page, lab.address(name), in_running_lab=running))
        return opened[-1]

    yield open_
    for notebook in opened:
        notebook.close()
    content = all(notebook.reusable and not notebook.errors for notebook in opened)
    if content and request.node.stash.get(_PASSED, False):
        pages += taken
    else:  # one may have a menu open, or a dialog
        for page in taken:
            page.close()
    for notebook in opened:
        assert notebook.outside_requests == []
        assert notebook.errors == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, pytest.TestReport]:
    report: pytest.TestReport = yield
    if call.when == "call":
        item.stash[_PASSED] = report.passed
    return report


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
