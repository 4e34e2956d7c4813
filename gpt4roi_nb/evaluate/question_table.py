"""Read a CSV table of questions, and write the table of answers. Imports nothing slow."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.image_files import Folder
from gpt4roi_nb.data.problems import relative_path
from gpt4roi_nb.files import check_regular_file, replacing
from gpt4roi_nb.prompt import check_question
from gpt4roi_nb.session.references import read_references

IMAGE, QUESTION, BOXES = "image", "question", "boxes"
EDGES = ("x1", "y1", "x2", "y2")  # columns in place of `boxes`, for one box per row
ADDED = ("answer", "problem")
DELIMITERS = ",;\t"
_BETWEEN = re.compile(r"[\s,;|()\[\]]+")


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        cells: as many as the header has.
        image: absolute path of the file.
        question: in the user's grammar, with `<regionN>`.
        boxes: pixel xyxy; region k + 1 is `boxes[k]`.
        problem: why the row cannot be asked; "" if it can, as far as is known without opening the image.
    """

    cells: tuple[str, ...]
    image: str
    question: str
    boxes: tuple[Box, ...]
    problem: str = ""


@dataclass(frozen=True)
class QuestionTable:
    """The rows of a table of questions, with the header and delimiter of its file."""

    header: tuple[str, ...]
    delimiter: str
    rows: tuple[Row, ...]


def read_table(file: Path, images: Path) -> QuestionTable:
    """Read a table of questions.

    Args:
        file: CSV in UTF-8 with a header; cells are separated by comma, semicolon or tab. Columns: `image`, `question`,
            and `boxes` or x1, y1, x2, y2; others are kept. Empty lines are skipped.
        images: the folder that image names are relative to; nothing outside it is read.

    Returns:
        All rows. What is wrong with a single row is in its `problem`.

    Raises:
        ValueError: the file is no such table; the message says what is missing.
        OSError: the file cannot be read.
    """
    check_regular_file(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(file)!r} is not UTF-8 text ({error}); save it as “CSV UTF-8”") from error
    first = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    try:
        lines = [cells for cells in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if cells]
    except csv.Error as error:
        raise ValueError(f"{str(file)!r} cannot be read as a table: {error}") from error
    header = tuple(name.strip() for name in lines[0]) if lines else ()
    _check_header(header, file)
    folder = Folder(images)
    rows = tuple(_row(cells, header, folder) for cells in lines[1:])
    if not rows:
        raise ValueError(f"{str(file)!r} has a header but no rows, so there is nothing to ask")
    return QuestionTable(header, delimiter, rows)


def write_table(file: Path, table: QuestionTable, answers: Sequence[tuple[str, str]]) -> None:
    """Write the table with the columns `answer` and `problem`, atomically.

    Args:
        file: to write.
        table: the questions.
        answers: (answer, problem) for each row.
    """
    with replacing(file) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=table.delimiter)
        writer.writerow([*table.header, *ADDED])
        writer.writerows([*row.cells, *both] for row, both in zip(table.rows, answers, strict=True))


def _check_header(header: tuple[str, ...], file: Path) -> None:
    missing = [name for name in (IMAGE, QUESTION) if name not in header]
    if BOXES not in header and not set(EDGES) <= set(header):
        missing.append(f"{BOXES} (or {', '.join(EDGES)})")
    if missing:
        found = f"its first line has {', '.join(map(repr, header))}" if header else "it is empty"
        raise ValueError(f"{str(file)!r} has no column {' and no column '.join(missing)}; {found}")
    taken = [name for name in ADDED if name in header]
    if taken:
        raise ValueError(f"{str(file)!r} already has a column {taken[0]!r}, which the answers need; rename it")
    doubled = [name for name in (IMAGE, QUESTION, BOXES, *EDGES) if header.count(name) > 1]
    if doubled:
        raise ValueError(f"{str(file)!r} has two columns {doubled[0]!r}; rename one")


def _row(cells: list[str], header: tuple[str, ...], images: Folder) -> Row:
    kept = tuple([*cells, *[""] * len(header)][: len(header)])
    named = dict(zip(header, kept, strict=True))
    image, question = named[IMAGE].strip(), named[QUESTION].strip()
    path = str((images.root / image).absolute())
    try:
        if len(cells) > len(header):
            raise ValueError(
                f"this row has {len(cells)} cells, but the header {len(header)}; quote cells that hold a separator"
            )
        boxes = _boxes(named)
        if not image:
            raise ValueError("the row names no image")
        if not images.file(relative_path(image, IMAGE)).is_file():
            raise ValueError(f"there is no image {image!r} in {str(images)!r}")
        question = read_references(question, 0)
        check_question(question, len(boxes))
    except ValueError as error:
        return Row(kept, path, question, (), str(error))
    return Row(kept, path, question, boxes)


def _boxes(named: dict[str, str]) -> tuple[Box, ...]:
    text = named[BOXES] if BOXES in named else " ".join(named[edge] for edge in EDGES)
    words = [word for word in _BETWEEN.split(text) if word]
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != len(words) or len(numbers) % 4 or not all(map(math.isfinite, numbers)):
        raise ValueError(
            "each box must be four numbers, x1 y1 x2 y2 in finite pixels, with semicolons between boxes, but got "
            f"{text!r}"
        )
    edges = iter(numbers)
    return tuple(zip(edges, edges, edges, edges, strict=True))
