"""A paged view of predictions: the image with its regions as in the chat, the question, the answer and the target."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable
from typing import Any

import ipywidgets
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from gpt4roi_nb.arguments import whole_number
from gpt4roi_nb.data.protocol_texts import LETTERS
from gpt4roi_nb.draw import draw_regions
from gpt4roi_nb.images import load_image

PAGE_SIZE = 8
COLUMNS = 4
SORTS: dict[str, tuple[str, bool]] = {  # shown name → column, ascending
    "surest first": ("logprob", False),
    "least sure first": ("logprob", True),
    "largest margin first": ("margin", False),
    "smallest margin first": ("margin", True),
    "lowest score first": ("score", True),
    "highest score first": ("score", False),
}
VERDICTS = ("all", "right", "wrong")
ANY = "any"
RIGHT, WRONG, NEUTRAL = "#1a7f37", "#b42318", "#57606a"  # readable on white; marks repeat the verdict
SIDE = 480  # pixels of an image's longest side, as drawn
WIDTH = 34  # characters per line of a caption
LINES = 3  # per question or answer
CELL = (3.0, 3.9)  # inches
DPI = 90


class Gallery(ipywidgets.VBox):
    """Pages of predictions, filtered by verdict and slice, sorted by confidence.

    Args:
        predictions: rows of a result's table.
        sort: one of `SORTS`. How sure the model was is the mean log-probability of the answer's tokens.
        verdict: "all", "right" or "wrong".
        page_size: predictions per page.
        columns: predictions per row.

    Attributes:
        predictions: all rows that were given.
        rows: the rows that pass the filters, in sort order.
        page: number of the current page, from 0.

    Raises:
        ValueError: an argument is invalid.
        TypeError: page_size or columns is not a whole number.
    """

    def __init__(
        self,
        predictions: pd.DataFrame,
        *,
        sort: str = "surest first",
        verdict: str = "all",
        page_size: int = PAGE_SIZE,
        columns: int = COLUMNS,
    ) -> None:
        if sort not in SORTS:
            raise ValueError(f"sort must be one of {', '.join(map(repr, SORTS))}, but is {sort!r}")
        if verdict not in VERDICTS:
            raise ValueError(f"verdict must be one of {', '.join(map(repr, VERDICTS))}, but is {verdict!r}")
        self.predictions = predictions
        self.page_size = whole_number(page_size, "page_size", least=1)
        self.columns = whole_number(columns, "columns", least=1)
        self.page = 0
        self._verdict = _choice("show", VERDICTS, verdict)
        self._sort = _choice("order", tuple(SORTS), sort)
        self._kind = _choice("slice", (ANY, *_values(predictions, "kind")), ANY)
        self._size = _choice("size", (ANY, *_values(predictions, "size_bin")), ANY)
        self._back = ipywidgets.Button(icon="arrow-left", tooltip="previous page", layout={"width": "42px"})
        self._forth = ipywidgets.Button(icon="arrow-right", tooltip="next page", layout={"width": "42px"})
        self._count = ipywidgets.Label()
        self._page_image = ipywidgets.Image(format="png", layout={"max_width": "100%", "object_fit": "contain"})
        for control in (self._verdict, self._sort, self._kind, self._size):
            control.observe(self._changed, "value")
        self._back.on_click(self._turn(-1))
        self._forth.on_click(self._turn(1))
        wrap = {"flex_flow": "row wrap", "align_items": "center"}
        filters = ipywidgets.HBox([self._verdict, self._kind, self._size, self._sort], layout=wrap)
        pages = ipywidgets.HBox([self._back, self._forth, self._count], layout=wrap)
        super().__init__([filters, pages, self._page_image])
        self._changed()

    @property
    def rows(self) -> pd.DataFrame:
        """The rows that pass the filters, in sort order."""
        frame = self.predictions
        if self._verdict.value != "all":
            right = frame["correct"].fillna(False).astype(bool)
            judged = frame["correct"].notna()
            frame = frame[judged & (right if self._verdict.value == "right" else ~right)]
        for control, column in ((self._kind, "kind"), (self._size, "size_bin")):
            if control.value != ANY:
                frame = frame[frame[column] == control.value]
        column, ascending = SORTS[self._sort.value]
        return frame.sort_values(column, ascending=ascending, kind="stable", na_position="last")

    @property
    def pages(self) -> int:
        """Number of pages."""
        return max(1, -(-len(self.rows) // self.page_size))

    def show(self, page: int) -> None:
        """Show a page, counted from 0; a number out of range shows the first or the last."""
        self.page = min(max(page, 0), self.pages - 1)
        rows = self.rows
        first = self.page * self.page_size
        shown = rows.iloc[first : first + self.page_size]
        count = "no prediction fits these filters"
        if len(rows):
            count = f"{first + 1}–{first + len(shown)} of {len(rows):,}"
        right = int(rows["correct"].fillna(False).sum())
        judged = int(rows["correct"].notna().sum())
        self._count.value = count + (f"; {right:,} of {judged:,} right" if judged else "")
        self._back.disabled = self.page == 0
        self._forth.disabled = self.page == self.pages - 1
        self._page_image.value = page_png(shown, self.columns)
        self._page_image.layout.display = "" if len(shown) else "none"

    def _changed(self, change: Any = None) -> None:
        self.show(0)

    def _turn(self, by: int) -> Callable[[Any], None]:
        return lambda button: self.show(self.page + by)


def page_png(rows: pd.DataFrame, columns: int = COLUMNS) -> bytes:
    """Draw predictions as one PNG, `columns` per row; b"" for no predictions."""
    if not len(rows):
        return b""
    across = min(columns, len(rows))
    down = -(-len(rows) // across)
    figure = Figure(figsize=(CELL[0] * across, CELL[1] * down), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False, gridspec_kw={"hspace": 0.75, "wspace": 0.12})
    figure.subplots_adjust(left=0.01, right=0.99, top=0.99, bottom=0.36 / down)
    for place, axis in enumerate(axes.flat):
        axis.axis("off")
        if place < len(rows):
            _draw(axis, rows.iloc[place])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(axis: Axes, row: pd.Series) -> None:
    try:
        axis.imshow(_image(row))
    except (OSError, ValueError) as error:  # the file was moved since
        axis.set(xlim=(0, 1), ylim=(1, 0))
        axis.text(0.5, 0.5, _wrapped(f"no image: {error}", 4), ha="center", va="center", fontsize=7, color=NEUTRAL)
    judged = not pd.isna(row["correct"])
    color = (RIGHT if row["correct"] else WRONG) if judged else NEUTRAL
    mark = ("✓ " if row["correct"] else "✗ ") if judged else ""
    said = _wrapped(mark + (_whole_option(row, row["answer"]) or "(no answer)"), LINES)
    lines = [(_wrapped(_short(row["question"]), LINES), "black"), (said, color)]
    if row["target"] and not (judged and row["correct"] and row["target"] == row["answer"]):
        lines.append((_wrapped(f"target: {_whole_option(row, row['target'])}", LINES), NEUTRAL))
    if not pd.isna(row["logprob"]):
        sure = f"log-prob. {row['logprob']:.2f}"
        score = "" if pd.isna(row["score"]) else f", score {row['score']:.2f}"
        lines.append((f"{sure}{score}", NEUTRAL))
    below = -0.03
    for text, paint in lines:
        axis.text(0, below, text, transform=axis.transAxes, va="top", fontsize=8, color=paint, linespacing=1.15)
        below -= 0.068 * (text.count("\n") + 1)


def _image(row: pd.Series) -> Image.Image:
    """Draw the regions on the image at `SIDE` pixels, so that lines and numbers stay visible."""
    image = load_image(row["image"])
    scale = SIDE / max(image.size)
    small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    boxes = [[side * scale for side in box] for box in row["boxes"]]
    return draw_regions(small, boxes)


def _short(question: str) -> str:
    """Drop from a question the list of all regions, whose numbers are drawn, and the options."""
    lines = question.split("\n")
    if len(lines) == 1:
        return question
    hidden = (*LETTERS, "Which option ", "<region1>,", "<region1> refers")
    kept = [line for line in lines if not line.startswith(hidden)]
    return " ".join(kept)


def _whole_option(row: pd.Series, text: str) -> str:
    """Return an answer or target; for a letter, the whole option."""
    lines = [line for line in row["question"].split("\n") if line.startswith(text)] if text in LETTERS else []
    return lines[0] if lines else text


def _wrapped(text: str, lines: int) -> str:
    text = " ".join(text.replace("$", r"\$").split())  # matplotlib reads text between dollars as a formula
    return "\n".join(textwrap.wrap(text, WIDTH, max_lines=lines, placeholder=" …"))


def _values(frame: pd.DataFrame, column: str) -> list[str]:
    return sorted({value for value in frame[column] if value})


def _choice(name: str, options: tuple[str, ...], value: str) -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(
        options=options, value=value, description=name, layout={"width": "230px"}, style={"description_width": "48px"}
    )
