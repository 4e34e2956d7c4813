"""The ES modules of the widgets: anywidget knows modules of one file only, so what several share is put in front."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def module(*files: str) -> str:
    """One ES module out of `page.js` and several files beside this one."""
    return "\n".join((_HERE / name).read_text() for name in ("page.js", *files))
