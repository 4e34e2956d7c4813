"""The FiftyOne App for one dataset: on its own port, and reached through JupyterHub if there is one."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gpt4roi_nb.failures.database import connect
from gpt4roi_nb.logs import quiet

# Only programs on this machine can reach the App; a browser needs the hub's proxy or a tunnel.
ADDRESS = "127.0.0.1"
START_SECONDS = 300
CONNECT_SECONDS = 120
HUB_PREFIX = "JUPYTERHUB_SERVICE_PREFIX"
START_PAGE = Path(__file__).with_name("app_start.html")
NO_LOGIN = (
    "The App has no login of its own. The hub lets only you in, but anyone who runs programs on the same host can "
    "reach its port {port}, and through it every file that you can read. If users share this host, close the App when "
    "you are done."
)


class App:
    """The App on a free port of 127.0.0.1, without a login.

    Args:
        dataset: to show.
        view: of the dataset; None shows all of it.
        port: None chooses a free one.

    Attributes:
        session: FiftyOne's session.
        url: address for the user's browser; on a JupyterHub, a path below the hub.
        start_url: the same, through a page that marks FiftyOne's notice about its paid version as seen.
        note: a warning for users of a shared host; "" elsewhere.

    Raises:
        NoDatabase: no MongoDB answers.
        RuntimeError: the App did not start or does not answer.
    """

    def __init__(self, dataset: Any, view: Any = None, port: int | None = None) -> None:
        fo = connect()
        import fiftyone.core.context as context

        self.port = free_port() if port is None else port
        prefix = os.environ.get(HUB_PREFIX)
        config = fo.app_config.copy()
        if prefix:
            # Else the frame would look for the port on the browser's machine.
            config.proxy_url = f"{prefix.rstrip('/')}/proxy/{self.port}/"
        with _quietly(), _patiently():
            self.session = fo.launch_app(
                dataset,
                view=view,
                port=self.port,
                address=ADDRESS,
                remote=not context.is_notebook_context(),  # else FiftyOne opens a browser on this machine
                auto=False,  # else the App disappears when a callback sets its view
                config=config,
            )
        try:
            _wait_until_connected(self.session)
        except RuntimeError:
            self.close()
            raise
        self.url: str = self.session.url
        address, mark, query = self.url.partition("?")
        self.start_url = f"{address}media?filepath={quote(str(START_PAGE))}#{mark}{query}"
        self.note = NO_LOGIN.format(port=self.port) if prefix else ""

    @property
    def selected(self) -> tuple[list[str], list[str]]:
        """(ids of labels, ids of samples or patches) selected in the App, in the order of the clicks."""
        return [label["label_id"] for label in self.session.selected_labels], list(self.session.selected)

    def show(self, dataset: Any, view: Any = None) -> None:
        """Show another dataset, or a view of it.

        Args:
            dataset: to show.
            view: of the dataset; None shows all of it.

        Raises:
            RuntimeError: the App does not answer.
        """
        # While the connection is broken, FiftyOne raises, but keeps what is set and sends it after reconnecting, which
        # never works with a deleted dataset.
        if view is None or self.session.dataset is not dataset:
            with suppress(RuntimeError):
                self.session.dataset = dataset
        with suppress(RuntimeError):
            self.session.view = view
        _wait_until_connected(self.session)

    def refresh(self) -> None:
        """Make the App read the dataset again. Raises RuntimeError if the App does not answer."""
        _wait_until_connected(self.session)
        self.session.refresh()

    def close(self) -> None:
        """Stop the App's server."""
        with _quietly():
            self.session.close()


def free_port() -> int:
    """Return a port of 127.0.0.1 that no program listens on."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


def _wait_until_connected(session: Any) -> None:
    """Wait until the session is connected to the App's server; setting a view or a selection earlier fails.

    FiftyOne connects in a thread, and again 10 s after the connection broke.
    """
    deadline = time.monotonic() + CONNECT_SECONDS
    while not session._client._connected:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the App did not answer within {CONNECT_SECONDS} seconds; close it and open it again")
        time.sleep(0.05)


@contextmanager
def _patiently() -> Iterator[None]:
    """Wait longer for the App's server than FiftyOne's one minute, since it imports all of FiftyOne."""
    from fiftyone.core import service

    plain = service.Service._wait_for_child_port

    def wait(self: Any, port: int | None = None, timeout: float = START_SECONDS) -> int:
        return int(plain(self, port=port, timeout=timeout))

    service.Service._wait_for_child_port = wait
    try:
        yield
    except service.ServiceListenTimeout as error:
        raise RuntimeError(
            f"the App's server did not start within {START_SECONDS} seconds; the machine may be very busy; try again"
        ) from error
    finally:
        service.Service._wait_for_child_port = plain


def _quietly() -> AbstractContextManager[None]:
    """Suppress FiftyOne's banner and its advice on `session.show()`."""
    return quiet("fiftyone", logging.WARNING)
