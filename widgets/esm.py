"""The ES modules of the widgets: anywidget takes modules of one file only, so shared code is put in front of each."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def module(*files: str) -> str:
    """Concatenate `page.js` and several files of this folder to one ES module."""
    return "\n".join((_HERE / name).read_text() for name in ("page.js", *files))
