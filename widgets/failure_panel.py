"""The charts, buttons and texts of a `FailureBrowser`, and the frame for the FiftyOne App."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from gpt4roi_nb.widgets.esm import module, style
from gpt4roi_nb.widgets.worker import WorkingView


class FailurePanel(WorkingView):
    """Counts by slice, which filter, and buttons for the selection. It holds only values; `FailureBrowser` acts.

    title: of the result. summary: how many of the filtered predictions are wrong.
    charts: [{"name", "title", "bars": [{"value", "total", "wrong", "chosen"}]}].
    filtered: whether a filter is on. app_open: whether the App is open.
    loaded: [{"id", "question", "answer": None if it is shown elsewhere, "target", "wrong", "verdict", "facts"}] of the
    loaded predictions; current: which one is in the conversation, from 0; -1 for none. inspectors: [{"name", "title"}]
    that can be opened now.
    busy, problem, notice: texts, "" for none.

    Messages from the browser: {"type": "toggle", "dimension", "value"}, {"type": "clear"}, {"type": "open"},
    {"type": "close"}, {"type": "load"}, {"type": "show", "index"}, {"type": "tag", "name", "all"},
    {"type": "inspect", "name"}.
    """

    _esm = module("failure_panel.js")
    _css = style("failure_panel.css")

    title = traitlets.Unicode().tag(sync=True)
    summary = traitlets.Unicode().tag(sync=True)
    charts: traitlets.List[Any] = traitlets.List().tag(sync=True)
    filtered = traitlets.Bool(False).tag(sync=True)
    app_open = traitlets.Bool(False).tag(sync=True)
    loaded: traitlets.List[Any] = traitlets.List().tag(sync=True)
    current = traitlets.Int(-1).tag(sync=True)
    inspectors: traitlets.List[Any] = traitlets.List().tag(sync=True)
    notice = traitlets.Unicode().tag(sync=True)


class AppFrame(anywidget.AnyWidget):
    """A frame in the notebook that shows the page at `url`; hidden if that is "". height: in pixels."""

    _esm = module("app_frame.js")
    _css = style("failure_panel.css")

    url = traitlets.Unicode().tag(sync=True)
    height = traitlets.Int(640).tag(sync=True)
