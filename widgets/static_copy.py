"""A copy of a view that needs no kernel: what a saved notebook shows later, and what exports of it print."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from uuid import uuid4

from IPython.display import display
from ipywidgets import Widget

DELAY = 0.3  # seconds: several changes in a row are copied once
# Only one of the two outputs shows: the live view if it exists, else the copy, without "model not found" above it.
_STYLE = """<style>
.jp-OutputArea-child:has(.{live}) + .jp-OutputArea-child:has(.{live}-saved),
.jp-OutputArea-child:not(:has(.{live})):has(+ .jp-OutputArea-child .{live}-saved) {{ display: none }}
</style>"""


class StaticCopy:
    """An output below a view's own, which the notebook stores, and which is hidden while the view is alive.

    The view's own output cannot contain it: changing an output recreates its view while somebody uses it.

    Args:
        live: class of the view's element.
        render: the copy as (HTML, plain text).
    """

    def __init__(self, live: str, render: Callable[[], tuple[str, str]]) -> None:
        self._live = live
        self._render = render
        self._id = f"gpt4roi-{uuid4().hex}"
        self._shown = False
        self._state: Hashable = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def show(self, widget: Widget, name: str) -> None:
        """Display a view and the copy below it. name: of the view, for front ends that show neither."""
        bundle = widget._repr_mimebundle_()
        if isinstance(bundle, tuple):  # anywidget's, with its metadata
            bundle = bundle[0]
        display({**bundle, "text/plain": f"{name}; run this cell again to continue."}, raw=True)
        self._shown = True
        display(self._bundle(), raw=True, display_id=self._id)

    def changed(self, state: Hashable) -> None:
        """Update the copy if the view's appearance has changed. state: equal values mean that it has not."""
        with self._lock:
            same, self._state = state == self._state, state
            if self._shown and not same and self._timer is None:
                self._timer = threading.Timer(DELAY, self._update)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        """Leave the copy as it is from now on."""
        with self._lock:
            self._shown = False
            if self._timer is not None:
                self._timer.cancel()

    def _update(self) -> None:
        with self._lock:
            self._timer = None
        display(self._bundle(), raw=True, display_id=self._id, update=True)

    def _bundle(self) -> dict[str, str]:
        page, text = self._render()
        note = '<p style="margin:0 0 10px;font-size:85%">This is a saved copy. Run this cell again to continue.</p>'
        style = _STYLE.format(live=self._live)
        return {
            "text/html": f'{style}\n<div class="gpt4roi-saved {self._live}-saved">\n{note}\n{page}\n</div>',
            "text/plain": text,
        }
