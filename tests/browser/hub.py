"""A real JupyterHub on 127.0.0.1: its proxy, a login without password, one server per user."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import IO

import nbformat
from browser.lab import HERE, PAGE_CONFIG

PROXY = Path(__file__).resolve().parents[2] / ".tools" / "hub" / "node_modules" / ".bin" / "configurable-http-proxy"
START_SECONDS = 180
CONFIG = """
import sys
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root", "--ServerApp.root_dir={files}"]
c.Spawner.environment = {environment}
c.Spawner.start_timeout = c.Spawner.http_timeout = {seconds}
c.SimpleLocalProcessSpawner.home_dir_template = "{folder}/home/{{username}}"
c.JupyterHub.bind_url = "http://{here}:{port}"
c.JupyterHub.hub_bind_url = "http://{here}:{hub_port}"
c.ConfigurableHTTPProxy.api_url = "http://{here}:{api_port}"
c.ConfigurableHTTPProxy.command = ["{proxy}"]
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie"
c.ConfigurableHTTPProxy.pid_file = "{folder}/proxy.pid"
c.JupyterHub.allow_named_servers = False
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        return int(probe.getsockname()[1])


class Hub:
    """Runs a hub of `python`'s environment in a folder; notebooks are served from `files`."""

    def __init__(self, folder: Path, python: str) -> None:
        self._python = python
        self._folder = folder
        self.files = folder / "files"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def __enter__(self) -> Hub:
        self.files.mkdir(parents=True)
        config = self._folder / "jupyterhub_config.py"
        settings = self._folder / "jupyter" / "labconfig"
        settings.mkdir(parents=True)
        (settings / "page_config.json").write_text(json.dumps(PAGE_CONFIG))
        passed = ("FIFTYONE_DATABASE_URI", "FIFTYONE_DO_NOT_TRACK", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "PATH")
        environment = {name: os.environ[name] for name in passed if name in os.environ}
        environment["JUPYTER_CONFIG_DIR"] = str(self._folder / "jupyter")
        config.write_text(
            CONFIG.format(
                files=self.files,
                environment=environment,
                folder=self._folder,
                here=HERE,
                port=self.port,
                hub_port=free_port(),
                api_port=free_port(),
                proxy=PROXY,
                seconds=START_SECONDS,
            )
        )
        self._log = (self._folder / "hub.log").open("wb")
        self._process = subprocess.Popen(
            [self._python, "-m", "jupyterhub", "-f", str(config)],
            cwd=self._folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end()
                raise RuntimeError("JupyterHub did not start:\n" + self.log())
            time.sleep(0.3)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def log(self) -> str:
        """The end of the log of the hub and its servers."""
        return (self._folder / "hub.log").read_text(errors="replace")[-4000:]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HERE}:{self.port}/hub/health", timeout=2):
                return True
        except OSError:
            return False

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()  # the hub ends its servers and its proxy
            try:
                self._process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._log is not None:
            self._log.close()

    def write(self, name: str, cells: list[str]) -> str:
        """Write a notebook of code cells into `files`; returns its name."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.files / name)
        return name

    def address(self, user: str, notebook: str) -> str:
        """The URL of a notebook, once the user is logged in."""
        return f"http://{HERE}:{self.port}/user/{user}/lab/tree/{notebook}?reset"
