"""The ES modules and style sheets of the widgets: anywidget takes one file of each, so shared parts go in front."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def module(*files: str) -> str:
    """Concatenate `page.js` and several files of this folder to one ES module."""
    return _joined("page.js", *files)


def style(*files: str) -> str:
    """Concatenate `page.css` and several files of this folder to one style sheet."""
    return _joined("page.css", *files)


def _joined(*files: str) -> str:
    return "\n".join((_HERE / name).read_text() for name in files)
