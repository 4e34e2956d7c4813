"""The failure browser with a real MongoDB, the real App and a real browser: in JupyterLab, and through a JupyterHub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
from bare import bare_python
from browser.hub import PROXY, Hub
from browser.lab import HERE, Lab, Notebook
from lessons import NOTEBOOKS, RUN_THROUGH_A_HUB, check, solved
from mongo import Mongo
from playwright.sync_api import Browser, FrameLocator, Locator, Page, Route, expect

from gpt4roi_nb.data.scenes.scene import make_scene

pytestmark = [pytest.mark.slow, pytest.mark.browser]

TESTS = Path(__file__).resolve().parents[1]
APP_SECONDS = 240  # FiftyOne's server imports all of FiftyOne
CHAT = ".gpt4roi-chat img[alt='annotate me']"
SHOWN = dict.fromkeys(RUN_THROUGH_A_HUB, CHAT) | {"06_measure": "img.widget-image"}  # its gallery
# The App requests its makers' pages and fonts, which a closed network does not have; it works without them.
MAKERS = re.compile(
    r"^https://([a-z0-9-]+\.)*"
    r"(voxel51\.com|fiftyone\.ai|segment\.io|segment\.com|posthog\.com|gravatar\.com|googleapis\.com|gstatic\.com)/"
)


def cells(folder: Path, name: str, mongo: Mongo) -> list[str]:
    return [
        # Set here: the lab may have been started before the database, and FiftyOne would then use the user's own, with
        # the leftovers of earlier runs.
        f"import os, sys\nos.environ['FIFTYONE_DATABASE_URI'] = {mongo.uri!r}\n"
        f"sys.path[:0] = [{str(TESTS)!r}, {str(TESTS / 'widgets')!r}]\n"
        "from pathlib import Path\nfrom fakes import FakeGPT4RoI\n"
        "from predictions import make_images, make_predictions\n"
        "from gpt4roi_nb.widgets import FailureBrowser",
        f"result = make_predictions(make_images(Path({str(folder)!r}), 6), benchmark={name!r})\n"
        "browser = FailureBrowser(result, FakeGPT4RoI())\nbrowser",
        "# for the test",
    ]


class Failures(Notebook):
    """A notebook with a `FailureBrowser` in the variable `browser`."""

    @property
    def browser(self) -> Locator:
        return self.page.locator(".gpt4roi-browser")

    def press(self, action: str) -> None:
        self.browser.locator(f".gpt4roi-failures button[data-action='{action}']").click()

    def idle(self, seconds: float = 60) -> None:
        expect(self.browser.locator(".gpt4roi-failures .status.busy")).to_have_count(0, timeout=seconds * 1000)
        expect(self.browser.locator(".gpt4roi-failures .problem")).to_be_hidden()

    @property
    def app(self) -> FrameLocator:
        return self.page.frame_locator(".gpt4roi-app iframe")

    def until(self, expression: str) -> None:
        """Wait in the kernel until a Python expression holds."""
        self.run_cell(
            f"import time; [time.sleep(0.2) for _ in range(300) if not ({expression})]; "
            f"print('HELD', {expression}, browser.loaded, browser._slices._tags)"
        )
        said = self.panel.locator(".jp-CodeCell").last.locator("pre").last
        expect(said).to_contain_text("HELD True", timeout=120_000)

    def card(self, fact: int) -> str:
        return self.browser.locator(".gpt4roi-failures dd").nth(fact).inner_text()


def browse(notebook: Failures, shots: Path) -> None:
    """Filter, open the App, click a failure there, load it, ask again, tag it."""
    page = notebook.page
    panel = notebook.browser.locator(".gpt4roi-failures")
    panel.locator(".chart[data-dimension='error_kind'] .bar[data-value='wrong region']").click()
    expect(panel.locator("[aria-pressed='true']")).to_have_count(1)
    notebook.press("open")
    expect(notebook.browser.locator(".gpt4roi-app iframe")).to_be_visible(timeout=APP_SECONDS * 1000)
    notebook.idle(APP_SECONDS)
    looker = notebook.app.locator("[data-cy=looker]")
    expect(looker.first).to_be_visible(timeout=APP_SECONDS * 1000)
    shown = looker.count()
    # FiftyOne's notice about its paid version takes every click, and on a narrow page its button cannot be reached.
    expect(notebook.app.get_by_text("Explore Enterprise")).to_have_count(1)  # in the bar, and not in a notice
    expect(notebook.app.get_by_role("button", name="Dismiss")).to_have_count(0)

    notebook.browser.locator(".gpt4roi-app").scroll_into_view_if_needed()
    page.screenshot(path=shots / "app.png")
    looker.first.hover()
    looker.first.click(position={"x": 12, "y": 12})  # the box in the tile's corner; the rest of the tile opens it
    notebook.until("len(browser.app.selected[1]) == 1")
    notebook.press("load")
    card = panel.locator(".card")
    expect(card).to_be_visible()
    notebook.idle()
    assert shown >= 1 and "wrong region" in notebook.card(3)
    question = notebook.line
    expect(question).to_have_value("What is <region1>?")
    expect(notebook.row(1)).to_be_attached()

    question.click()
    page.keyboard.press("Enter")
    expect(notebook.turn(1)).to_be_visible()
    assert "You asked: What is region 1?" in notebook.turn(1).locator(".model .bubble").inner_text()

    panel.locator(".tagging input[type=text]").fill("looks next door")
    notebook.press("tag")
    expect(panel.locator(".chart[data-dimension='tag'] .bar[data-value='looks next door']")).to_be_visible()
    notebook.idle()
    notebook.until("browser.tags == {'looks next door': len(browser.loaded)}")
    panel.scroll_into_view_if_needed()
    page.screenshot(path=shots / "loaded.png")


def test_from_the_chart_to_the_app_and_back_into_the_conversation(
    mongo: Mongo, lab: Lab, browser: Browser, tmp_path: Path
) -> None:
    page = browser.new_page(viewport={"width": 1440, "height": 1100})
    notebook = Failures(page, lab.address(lab.write("failures.ipynb", cells(tmp_path / "images", "lab", mongo))))
    try:
        browse(notebook, tmp_path)
        notebook.run_cell("browser.close()")
        assert [url for url in notebook.outside_requests if not MAKERS.match(url)] == []
    finally:
        notebook.shut_down()
        page.close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, mongo: Mongo) -> Iterator[Hub]:
    if not PROXY.is_file():
        pytest.skip("no configurable-http-proxy: `make hub-proxy` brings it, with npm")
    with Hub(tmp_path_factory.mktemp("hub"), bare_python()) as running:
        yield running


class Visitor:
    """A logged-in page that can reach only the hub; `refused` and `sockets` are addresses."""

    def __init__(self, page: Page, hub: Hub, user: str) -> None:
        self.page = page
        self.refused: list[str] = []
        self.sockets: list[str] = []
        self._own = f"{HERE}:{hub.port}"
        page.route("**/*", self._only_the_hub)
        page.on("websocket", lambda socket: self.sockets.append(socket.url))
        page.set_default_timeout(APP_SECONDS * 1000)
        page.goto(f"http://{self._own}/hub/login")
        page.locator("input[name=username]").fill(user)
        page.locator("input[name=password]").fill("any")
        page.locator("#login_submit, input[type=submit], button[type=submit]").first.click()
        page.wait_for_url(re.compile(f"/user/{user}/"), timeout=APP_SECONDS * 1000)

    def _only_the_hub(self, route: Route) -> None:
        url = route.request.url
        if urlsplit(url).netloc == self._own or url.startswith(("data:", "blob:")):
            route.continue_()
        else:
            self.refused.append(url)
            route.abort()

    def check(self) -> None:
        """Nothing was requested from anybody else, except FiftyOne's requests to its makers."""
        assert [url for url in self.refused if not MAKERS.match(url)] == []
        assert {urlsplit(url).netloc for url in self.sockets} == {self._own}


@pytest.fixture()
def visitor(hub: Hub, browser: Browser) -> Iterator[Visitor]:
    page = browser.new_page(viewport={"width": 1440, "height": 1100})
    try:
        yield Visitor(page, hub, "ada")
    finally:
        page.close()
        print(hub.log())  # which pytest shows if the test fails


def test_through_a_hub_nothing_else_is_reached(hub: Hub, mongo: Mongo, visitor: Visitor, tmp_path: Path) -> None:
    hub.write("failures.ipynb", cells(tmp_path / "images", "hub", mongo))
    notebook = Failures(visitor.page, hub.address("ada", "failures.ipynb"))
    browse(notebook, tmp_path)
    frame = notebook.browser.locator(".gpt4roi-app iframe").get_attribute("src")
    assert frame is not None and frame.startswith("/user/ada/proxy/")
    expect(notebook.browser.locator(".gpt4roi-app")).to_be_visible()
    visitor.check()
    notebook.run_cell("browser.close()")
    notebook.shut_down()


def draw_and_ask(notebook: Notebook) -> None:
    """Do what section 2 of notebook 01 asks for, after all its cells have run: the reader's chat is still untouched."""
    thing = make_scene(7_000_000).objects[0]
    expect(notebook.row(1)).not_to_be_attached()
    notebook.draw(thing.box, (336, 336), 1)
    answer = notebook.ask("What is <region1>?", turn=1)
    assert thing.colour in answer and thing.category in answer


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", RUN_THROUGH_A_HUB)
def test_a_notebook_runs_through_a_hub(hub: Hub, visitor: Visitor, shots: Path, name: str) -> None:
    file = hub.files / f"{name}.ipynb"
    nbformat.write(solved(NOTEBOOKS[name]), file)
    notebook = Notebook(visitor.page, hub.address("ada", file.name), seconds=900)
    shown = visitor.page.locator(SHOWN[name]).first
    shown.scroll_into_view_if_needed()
    expect(shown).to_be_visible()
    visitor.page.screenshot(path=shots / f"hub_{name}.png")
    if name == "01_point_and_ask":
        draw_and_ask(notebook)
    visitor.check()
    notebook.save()
    check(nbformat.read(file, as_version=4))
    notebook.shut_down()
