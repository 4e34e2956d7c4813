"""A page of images, sentences and tables as HTML and as text, for a `StaticCopy`."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_CELL = "padding:0 16px 0 0;text-align:left;border:none"


class StaticPage:
    """Is filled part by part. All words stay text: none of them becomes markup."""

    def __init__(self) -> None:
        self._html: list[str] = []
        self._text: list[str] = []

    def heading(self, words: str) -> None:
        """Add a line in bold."""
        self._html.append(f'<p style="margin:8px 0 4px"><b>{html.escape(words)}</b></p>')
        self._text.append(words)

    def say(self, words: str) -> None:
        """Add a paragraph; an empty one is left out."""
        if words:
            self._html.append(f'<p style="margin:0 0 6px;overflow-wrap:anywhere">{html.escape(words)}</p>')
            self._text.append(words)

    def image(self, address: str, words: str) -> None:
        """Add an image. address: a data URL. words: what it shows, for those who do not see it."""
        style = "display:block;max-width:100%;height:auto;margin:0 0 8px"
        self._html.append(f'<img alt="{html.escape(words)}" src="{html.escape(address)}" style="{style}">')
        self._text.append(f"[{words}]")

    def table(self, rows: Iterable[Sequence[str]]) -> None:
        """Add a table; one without rows is left out."""
        lines = [list(map(str, row)) for row in rows]
        if not lines:
            return
        cells = ("".join(f'<td style="{_CELL}">{html.escape(cell)}</td>' for cell in line) for line in lines)
        body = "".join(f'<tr style="background:none">{line}</tr>' for line in cells)
        self._html.append(f'<table style="margin:0 0 8px;border:none">{body}</table>')
        self._text += ["  ".join(line) for line in lines]

    def both(self) -> tuple[str, str]:
        """Return the page as (HTML, plain text)."""
        return "\n".join(self._html), "\n".join(self._text)


def percent(share: float) -> str:
    """Write a share in percent, with as many digits as are meaningful, as `percent` of map_canvas.js does."""
    value = 100 * share
    if 0 < value < 0.005:
        return "< 0.01 %"
    digits = 0 if value <= 0 or value >= 9.995 else 1 if value >= 0.9995 else 2
    return f"{max(value, 0):.{digits}f} %"
