"""Export a conversation to share: its image with numbered regions and its turns, as text, Markdown or HTML.

What people or models wrote stays text: none of it becomes markup.
"""

from __future__ import annotations

import base64
import html
import io
import os
import re
from collections.abc import Callable, Sequence

from PIL import Image

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.draw import draw_regions, region_color
from gpt4roi_nb.files import given_path, replacing
from gpt4roi_nb.session.conversation import Turn
from gpt4roi_nb.session.references import MENTION, mentioned

MAX_SIDE = 640  # pixels of the exported image
JPEG_QUALITY = 88
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|~$&])")
_LINE_START = re.compile(r"^(\s*\d*)([-+=#.)])", re.MULTILINE)  # of a list or a heading
_SAID_STYLE = "margin:0 0 10px;white-space:pre-wrap;overflow-wrap:anywhere"
_DOCUMENT = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Conversation about an image</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 680px; margin: 24px auto; padding: 0 16px }}</style>
{content}
</html>
"""


def as_text(turns: Sequence[Turn], names: Sequence[str] = ()) -> str:
    """Return the turns as plain text. names: the user's for the regions by number, "" for none."""
    return "\n\n".join("\n".join(f"{who}: {_named(text, names)}" for who, text in _said(turn)) for turn in turns)


def as_markdown(
    image: Image.Image, boxes: Sequence[Box], turns: Sequence[Turn], about: str = "", names: Sequence[str] = ()
) -> str:
    """Return the conversation as Markdown, with the image in it.

    Args:
        image: upright RGB.
        boxes: of the regions by number, pixel xyxy in `image`.
        turns: oldest first.
        about: a sentence about the model.
        names: as `as_text` takes them.
    """
    lines = [f"![{_caption(boxes)}]({image_address(image, boxes)})"]
    lines += [f"**{who}:** {_without_markup(_named(text, names))}" for turn in turns for who, text in _said(turn)]
    return "\n\n".join([*lines, *([_without_markup(about)] if about else [])]) + "\n"


def as_html(
    image: Image.Image, boxes: Sequence[Box], turns: Sequence[Turn], about: str = "", names: Sequence[str] = ()
) -> str:
    """Return the same as a fragment of HTML that refers to no other files."""
    said = [
        f'<p style="{_SAID_STYLE}"><b>{who}:</b> {_marked(text, names)}</p>'
        for turn in turns
        for who, text in _said(turn)
    ]
    return "\n".join(
        [
            f'<img alt="{_caption(boxes)}" src="{image_address(image, boxes)}" '
            'style="max-width:100%;height:auto;margin:0 0 12px">',
            *said,
            *([f'<p style="margin:0;font-size:85%">{html.escape(about)}</p>'] if about else []),
        ]
    )


def as_document(fragment: str) -> str:
    """Make a whole HTML page of what `as_html` returned."""
    return _DOCUMENT.format(content=fragment)


def export_conversation(
    path: str | os.PathLike[str], image: Image.Image, boxes: Sequence[Box], turns: Sequence[Turn], about: str = ""
) -> None:
    """Write the conversation to one file; see `RegionSession.export`."""
    target = given_path(path)
    kind = target.suffix.lower()
    if kind in (".html", ".htm"):
        content = as_document(as_html(image, boxes, turns, about))
    elif kind == ".md":
        content = as_markdown(image, boxes, turns, about)
    else:
        raise ValueError(f"expected a name that ends with .html or .md, but got {str(path)!r}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(target.parent)!r} to write {target.name!r} in; make it first")
    with replacing(target) as partial:
        partial.write_text(content, encoding="utf-8")


def _said(turn: Turn) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return who spoke, and what, of a question and its answer."""
    return ("You", turn.question), ("Model", turn.answer.text + (" (stopped)" if turn.answer.stopped else ""))


def _label(number: int, names: Sequence[str]) -> str:
    """Return a region's number and name as a reader sees them: "region 1 · the kettle"."""
    name = names[number - 1] if 1 <= number <= len(names) else ""
    return f"region {number} · {name}" if name else f"region {number}"


def _named(text: str, names: Sequence[str]) -> str:
    return MENTION.sub(lambda match: _label(mentioned(match), names), text)


def _without_markup(text: str) -> str:
    """Escape a text so that Markdown finds no markup in it."""
    text = _LINE_START.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", text.strip()))
    return re.sub(r"\n+", "\\\\\n", text)  # a line break, in the same paragraph


def _marked(text: str, names: Sequence[str]) -> str:
    """Make HTML of a text, with each region underlined in its colour."""
    parts, end = [], 0
    for match in MENTION.finditer(text):
        number = mentioned(match)
        parts.append(html.escape(text[end : match.start()]))
        label = html.escape(_label(number, names))
        parts.append(f'<b style="border-bottom:3px solid {region_color(max(number, 1))}">{label}</b>')
        end = match.end()
    return "".join([*parts, html.escape(text[end:])])


def _caption(boxes: Sequence[Box]) -> str:
    count = len(boxes)
    return "The image" + (f" with {count} numbered region{'s' if count > 1 else ''}" if count else "")


def image_address(
    image: Image.Image, boxes: Sequence[Box] = (), paint: Callable[[Image.Image], Image.Image] | None = None
) -> str:
    """Return a small copy of the image with its regions as a data URL.

    Args:
        image: upright RGB.
        boxes: of the regions by number, pixel xyxy in `image`.
        paint: returns what to show instead of the small copy, below the regions.
    """
    scale = min(MAX_SIDE / max(image.size), 1.0)
    width, height = (max(round(side * scale), 1) for side in image.size)
    small = image.resize((width, height), Image.Resampling.LANCZOS) if scale < 1 else image
    across, down = width / image.width, height / image.height
    placed = [(x1 * across, y1 * down, x2 * across, y2 * down) for x1, y1, x2, y2 in boxes]
    stream = io.BytesIO()
    draw_regions(paint(small) if paint else small, placed).save(stream, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
