"""A separate JupyterLab on a free port, and a notebook in it as a user sees it: cells, image, question line."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import nbformat
from playwright.sync_api import ConsoleMessage, Locator, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

HERE = "127.0.0.1"
FORKED_KERNEL = Path(__file__).with_name("forked_kernel.py")
# The tests' own figures need no screen (conftest.py); a notebook's are shown in it, as they are to its users.
SHOWN_INLINE = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
START_SECONDS = 180  # an idle machine takes 3; on a busy one the test must not fail
RUN_SECONDS = 240
SAVES, SAVE_SECONDS = 4, 20  # attempts, and how long one may take
# No question about news, and no debugger, whose requests to a kernel that a test ends count as errors of the page; and
# the page's own state can be asked (`window.jupyterapp`).
PAGE_CONFIG = {
    "disabledExtensions": {
        "@jupyterlab/apputils-extension:announcements": True,
        "@jupyterlab/debugger-extension": True,
    },
    "exposeAppInBrowser": True,
}
# Contrast of an element's text to its background, as WCAG 2 computes it, with opacity; 0 with a filter.
CONTRASTS = """elements => elements.map((element) => {
    const style = (one) => getComputedStyle(one);
    const parse = (color) => {
        const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number);
        return { rgb: [r, g, b].map((value) => value * (color.startsWith("color(") ? 255 : 1)), a };
    };
    const behind = (one) => {
        for (; one; one = one.parentElement) {
            const { rgb, a } = parse(style(one).backgroundColor);
            if (a === 1) return rgb;
        }
        return [255, 255, 255];
    };
    let opacity = 1;
    for (let one = element; one; one = one.parentElement) {
        if (style(one).filter !== "none") return 0;
        opacity *= Number(style(one).opacity);
    }
    const under = behind(element.parentElement);
    const luminance = (rgb) => {
        const seen = rgb.map((value, i) => (value * opacity + under[i] * (1 - opacity)) / 255);
        const [r, g, b] = seen.map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const [dark, light] = [parse(style(element).color).rgb, behind(element)].map(luminance).sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
})"""
# Prompts of cells that show their source; a folded cell has no number.
PROMPTS = (
    "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt:not(.jp-Placeholder-prompt)')]"
    ".map(prompt => prompt.textContent.trim())"
)
OPEN = "async path => { await window.jupyterapp.commands.execute('docmanager:open', { path }); }"
CLOSE = """async () => {
    for (const widget of [...window.jupyterapp.shell.widgets('main')].filter(widget => widget.context)) {
        widget.context.model.dirty = false;  // otherwise it would ask whether to save
        await widget.sessionContext.shutdown();
        widget.dispose();
    }
}"""
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # No other machine can even be looked up: a page that works needs nothing from elsewhere.
    f"--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE {HERE}",
)


def assert_readable(chips: Locator) -> None:
    """White on a region's colour, or the like: the contrast of each is at least what WCAG 2 (AA) wants of text."""
    found = chips.evaluate_all(CONTRASTS)
    assert found and min(found) >= 4.5, found


def finger(page: Page, *way: tuple[float, float]) -> None:
    """Move one finger from place to place on the screen; at a single place, tap."""
    touch = page.context.new_cdp_session(page)
    points = [[{"x": x, "y": y, "id": 0}] for x, y in way]
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": points[0]})
    for point in points[1:]:
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": point})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


class Lab:
    """A JupyterLab server without the user's own configuration. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.files = folder / "files"
        self.files.mkdir(parents=True)
        self._folder = folder
        self._token = secrets.token_hex(8)
        with socket.socket() as free:
            free.bind((HERE, 0))
            self._port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._kernels: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Lab:
        config = self._folder / "config"
        (config / "labconfig").mkdir(parents=True)
        (config / "labconfig" / "page_config.json").write_text(json.dumps(PAGE_CONFIG))
        # Extensions that the tests do not use only cost time at the start.
        unused = dict.fromkeys(("jupyter_server_terminals", "notebook"), False)
        (config / "jupyter_server_config.json").write_text(json.dumps({"ServerApp": {"jpserver_extensions": unused}}))
        isolated = {
            "JUPYTER_CONFIG_DIR": config,
            "JUPYTER_DATA_DIR": self._folder / "data",
            "JUPYTER_RUNTIME_DIR": self._folder / "runtime",
            "IPYTHONDIR": self._folder / "ipython",
            "JUPYTERLAB_WORKSPACES_DIR": self._folder / "workspaces",
            "JUPYTERLAB_SETTINGS_DIR": self._folder / "settings",
        }
        self._serve_kernels(self._folder / "data" / "kernels" / "python3")
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ip={HERE}"]
        command += [f"--port={self._port}", f"--IdentityProvider.token={self._token}", "--ServerApp.port_retries=0"]
        with (self._folder / "lab.log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.files,
                env={**os.environ, **SHOWN_INLINE, **{name: str(path) for name, path in isolated.items()}},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end()
                raise RuntimeError("JupyterLab did not start:\n" + (self._folder / "lab.log").read_text()[-3000:])
            time.sleep(0.2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _serve_kernels(self, spec: Path) -> None:
        """Start the process that forks kernels, and register it as the server's Python kernel."""
        address = str(self._folder / "kernels.socket")
        spec.mkdir(parents=True)
        argv = [sys.executable, "-S", str(FORKED_KERNEL), address, "{connection_file}"]
        (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
        with (self._folder / "kernels.log").open("wb") as log:
            serve = [sys.executable, str(FORKED_KERNEL), "serve", address]
            environment = {**os.environ, **SHOWN_INLINE}
            self._kernels = subprocess.Popen(serve, env=environment, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_SECONDS
        while not Path(address).exists():
            if self._kernels.poll() is not None or time.monotonic() > deadline:
                self._end()
                raise RuntimeError("no kernels are served:\n" + (self._folder / "kernels.log").read_text()[-3000:])
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HERE}:{self._port}/api?token={self._token}", timeout=2):
                return True
        except OSError:
            return False

    def _end(self) -> None:
        for process in (self._process, self._kernels):
            if process is None:
                continue
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def address(self, notebook: str) -> str:
        """The URL of a notebook in `files`."""
        return f"http://{HERE}:{self._port}/lab/tree/{notebook}?reset&token={self._token}"

    def write(self, name: str, cells: list[str]) -> str:
        """Write a notebook of code cells into `files`; returns its name."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.files / name)
        return name


class Notebook:
    """An open notebook that has run from top to bottom.

    Args:
        page: a new one, or one of the same server on which a notebook was closed.
        address: of `Lab.address` or `Hub.address`.
        seconds: the time limit for all cells.
        in_running_lab: whether the page is one on which a notebook was closed.
    """

    def __init__(self, page: Page, address: str, seconds: float = RUN_SECONDS, *, in_running_lab: bool = False) -> None:
        self.page = page
        self.reusable = True  # whether another notebook may be opened on its page
        self.outside_requests: list[str] = []
        self.errors: list[str] = []
        self._listeners: dict[Any, Callable[[Any], object]] = {
            "request": lambda request: self._note_request(request.url),
            "console": lambda message: message.type == "error" and self._note_error(message),
            "pageerror": lambda error: self._note_page_error(str(error)),
        }
        for event, listener in self._listeners.items():
            page.on(event, listener)
        page.set_default_timeout(START_SECONDS * 1000)
        if in_running_lab:  # loading and starting it takes most of the time of most tests
            page.mouse.move(0, 0)
            page.evaluate(OPEN, urlsplit(address).path.split("/lab/tree/")[1])
        else:
            page.goto(address)
        self.panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
        self.run_all(seconds)

    def _note_request(self, url: str) -> None:
        if not url.startswith((f"http://{HERE}:", f"ws://{HERE}:", "data:", "blob:")):
            self.outside_requests.append(url)

    def _note_error(self, message: ConsoleMessage) -> None:
        self.errors.append(f"{message.text} at {message.location}")

    def _note_page_error(self, text: str) -> None:
        # Now and then Lab cannot read a message of a kernel, since a topic stands where its header should. Where it
        # comes from, the server or ipykernel, is not known; what a page then lacks, its test finds.
        if not re.search(
            r'Kernel message validation error: .*"(stream\.stderr"|kernel\.[\da-f]+"?\.\.\.) is not valid JSON', text
        ):
            self.errors.append(text)

    def _wait_for_kernel(self) -> None:
        """Wait until the kernel has answered the notebook.

        Lab's status bar says `Idle` even before there is a kernel; cells run then are lost.
        """
        context = "window.jupyterapp?.shell.currentWidget?.sessionContext"
        self.page.wait_for_function(f"() => {context}?.isReady && {context}.session?.kernel && true")
        self.page.evaluate(f"async () => {{ await {context}.session.kernel.info; }}")

    def _wait_for_prompts(self, numbered: str, timeout: float) -> None:
        """Wait until a condition on `prompts` holds. A kernel may be `idle` for seconds before it runs."""
        holds = f"() => {{ const prompts = {PROMPTS}; return {numbered}; }}"
        try:
            self.page.wait_for_function(holds, timeout=timeout * 1000)
        except PlaywrightTimeout:
            prompts = self.page.evaluate(PROMPTS)
            raise RuntimeError(f"after {timeout:g} s the cells' prompts are {prompts}") from None

    def run_all(self, seconds: float = RUN_SECONDS) -> None:
        """Run every cell, and wait until each has its number or one has failed."""
        self.panel.wait_for()
        self._wait_for_kernel()
        self.page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
        self.page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()
        failed = ".jp-OutputArea-output[data-mime-type*='error']"
        self._wait_for_prompts(
            rf"""prompts.every(text => /^\[\d+\]:$/.test(text)) || document.querySelector("{failed}")""", seconds
        )
        if self.panel.locator(failed).count():
            raise AssertionError("a cell failed:\n" + self.panel.locator(failed).first.inner_text())

    def save(self) -> None:
        """Save the notebook with its outputs."""

        def choose_save() -> None:
            self.page.locator(".lm-MenuBar-itemLabel", has_text="File").first.click()
            self.page.locator(".lm-Menu-item[data-command='docmanager:save']").click()

        self.until_saved(choose_save)

    def until_saved(self, save: Callable[[], object]) -> None:
        """Call `save`, again while the tab still marks unsaved changes, as a person would.

        On a machine with more to do than it can, Lab has left the mark for half a minute after saving; why is not
        known.
        """
        dirty = self.page.locator(".lm-TabBar-tab.jp-mod-current.jp-mod-dirty")
        for _ in range(SAVES):
            save()
            try:
                expect(dirty).to_have_count(0, timeout=SAVE_SECONDS * 1000)
            except AssertionError:
                pass
            else:
                return
        said = self.page.locator(".jp-Dialog").all_inner_texts()
        raise AssertionError(f"the notebook stays unsaved; dialogs: {said}")

    def shut_down(self) -> None:
        """End the kernel, which would hold memory until the last test."""
        self.page.evaluate(
            """async () => {
                const lab = JSON.parse(document.getElementById("jupyter-config-data").textContent);
                const token = new URL(document.location).searchParams.get("token") ?? lab.token;
                const xsrf = document.cookie.match(/_xsrf=([^;]*)/)?.[1];  // behind a hub, a cookie identifies the user
                const headers = { ...(token && { Authorization: `token ${token}` }), "X-XSRFToken": xsrf };
                const ask = (path, method) => fetch(`${lab.baseUrl}api/sessions${path}`, { method, headers });
                for (const { id } of await (await ask("", "GET")).json()) await ask(`/${id}`, "DELETE");
            }"""
        )

    def restart_kernel(self) -> None:
        """Restart the kernel in the menu, as a user does, without running a cell."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text="Kernel").first.click()
        self.page.locator(".lm-Menu-item[data-command='kernelmenu:restart']").click()
        self.page.locator(".jp-Dialog .jp-mod-accept").click()

    def open_the_next_day(self, address: str) -> None:
        """End the kernel and open the notebook's saved file again, when no kernel knows its widgets."""
        expect(self.page.locator("#jp-main-statusbar")).to_contain_text("| Idle")  # one that restarts cannot be ended
        self.reusable = False  # the page keeps missing the widgets
        self.shut_down()
        self.page.goto(address)

    def forgive_missing_widgets(self) -> None:
        """Forget the page's errors about widgets of a kernel that is gone."""
        self.errors[:] = [error for error in self.errors if "widget model not found" not in error]

    def close(self) -> None:
        """End the kernel and close the notebook, so that another can be opened on the page."""
        self.page.evaluate(CLOSE)
        for event, listener in self._listeners.items():
            self.page.remove_listener(event, listener)

    def hide_files(self) -> None:
        """Close the file browser at the side, if it is open."""
        opened = self.page.locator(".jp-SideBar.jp-mod-left .lm-TabBar-tab.lm-mod-current")
        if opened.count():
            opened.click()

    def run_cell(self, source: str) -> None:
        """Put code into the last cell, which is reserved for this, and run it."""
        before = self.page.evaluate(PROMPTS)[-1]
        cell = self.panel.locator(".jp-CodeCell").last
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Control+Enter")
        self._wait_for_prompts(rf"/\d/.test(prompts.at(-1)) && prompts.at(-1) !== '{before}'", RUN_SECONDS)

    def choose_theme(self, name: str) -> None:
        """Choose a theme in the menu, as a user does."""
        menu = self.page.locator(".lm-Menu-itemLabel")
        self.page.locator(".lm-MenuBar-itemLabel", has_text="Settings").first.click()
        menu.get_by_text("Theme", exact=True).first.hover()
        menu.get_by_text(name, exact=True).first.click()
        light = str("Dark" not in name).lower()
        self.page.wait_for_function(f"document.body.dataset.jpThemeLight === '{light}'")
        expect(self.page.locator(".lm-Menu")).to_have_count(0)  # an open one would take the next click
        expect(self.page.locator("#jupyterlab-splash")).to_have_count(0)  # it dims the page while the theme changes

    # ------------------------------------------------------------------------------------------- the widget

    @property
    def chat(self) -> Locator:
        """The first chat of the notebook."""
        return self.panel.locator(".gpt4roi-chat").first

    @property
    def image(self) -> Locator:
        """The area where the mouse draws, once the image has loaded."""
        self.page.wait_for_function(
            "() => document.querySelector(\".gpt4roi-chat img[alt='annotate me']\")?.naturalWidth > 0", timeout=20000
        )
        svg = self.chat.locator(".image svg")
        svg.scroll_into_view_if_needed()
        before, frame = None, svg.bounding_box()
        while frame != before:  # on a busy machine the page may still move
            self.page.wait_for_timeout(100)
            before, frame = frame, svg.bounding_box()
        return svg

    def place(self, x: float, y: float, size: tuple[int, int]) -> tuple[float, float]:
        """The position on the screen of pixel (x, y) of an image of that size."""
        frame = self.image.bounding_box()
        assert frame is not None
        return frame["x"] + x * frame["width"] / size[0], frame["y"] + y * frame["height"] / size[1]

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Move from one place on the screen to another, with the button down, as a hand does."""
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, steps=4)
        self.page.mouse.move(*end, steps=4)
        self.page.mouse.up()

    def draw(self, box: tuple[float, float, float, float], size: tuple[int, int], number: int) -> None:
        """Draw region `number`; box in pixels of an image of that size."""
        self.drag(self.place(*box[:2], size), self.place(*box[2:], size))
        expect(self.row(number)).to_be_attached()

    def row(self, number: int) -> Locator:
        """The region's row in the table of numbers."""
        return self.chat.locator(f".gpt4roi-table .row[data-region='{number}']")

    def box(self, number: int) -> list[int]:
        """The region's corners as the table shows them."""
        return [int(field.input_value()) for field in self.row(number).locator("input[type=number]").all()]

    @property
    def line(self) -> Locator:
        """The question line."""
        return self.chat.locator("textarea")

    def button(self, action: str) -> Locator:
        """One of the conversation's buttons."""
        return self.chat.locator(f"button[data-action='{action}']")

    def turn(self, number: int) -> Locator:
        """A finished turn, counted from 1."""
        return self.chat.locator(f".turn[data-turn='{number}']")

    def ask(self, text: str, turn: int) -> str:
        """Type a question, press Enter, and wait for the answer; returns it."""
        self.line.click()
        self.page.keyboard.type(text)
        self.page.keyboard.press("Enter")
        expect(self.turn(turn)).to_be_visible(timeout=60000)
        return self.turn(turn).locator(".model .bubble").inner_text()
