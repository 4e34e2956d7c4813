"""Records to look at: the picture with its numbered boxes, and the conversation with what is trained marked.

In a notebook the value of `preview(dataset, 4)` shows itself.
"""

from __future__ import annotations

import base64
import html
import io
import random
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from gpt4roi_nb.data.mixture import Pictured
from gpt4roi_nb.data.record import Record
from gpt4roi_nb.draw import draw_regions, region_color
from gpt4roi_nb.prompt import IGNORE
from gpt4roi_nb.tokenizer import IMAGE_TOKEN, REGION_TOKEN

if TYPE_CHECKING:
    from gpt4roi_nb.processor import GPT4RoIProcessor

MAX_SIDE = 640  # pixels of a picture as shown
_REGION = re.compile(r"(&lt;region(\d+)&gt;|\bregion(\d+)\b)")
_STYLE = """<style>
.g4r-record {display: flex; gap: 16px; align-items: flex-start; flex-wrap: wrap; margin: 0 0 20px}
.g4r-record img {max-width: 100%; height: auto}
.g4r-talk {flex: 1 1 320px; min-width: 280px; line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere}
.g4r-talk mark {background: rgba(128, 128, 128, .28); color: inherit; border-bottom: 2px solid currentColor}
.g4r-region {font-weight: 600; border-bottom: 3px solid}
.g4r-note {opacity: .75; font-size: 90%}
</style>"""


class Preview:
    """Drawn records. `pictures`: RGB images with boxes; `records`; `html`: what a notebook shows."""

    def __init__(self, pictures: Sequence[Image.Image], records: Sequence[Record], html_text: str) -> None:
        self.pictures = list(pictures)
        self.records = list(records)
        self.html = html_text

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"Preview of {len(self.records)} records; `.pictures` has them drawn, a notebook shows their text too"


def preview(dataset: Pictured, n: int = 4, *, seed: int = 0, processor: GPT4RoIProcessor | None = None) -> Preview:
    """Some records of a data set, drawn by chance, for checking it by eye.

    Args:
        dataset: loaded with its pictures' folder, or a mixture of such.
        n: how many; fewer where the data set is smaller. Records whose picture is damaged are passed over.
        seed: which.
        processor: with it the prompt is shown token by token as a model reads it, trained tokens marked; without it,
            the conversation, of which the assistant's turns are trained.
    """
    pictures: list[Image.Image] = []
    records: list[Record] = []
    blocks: list[str] = []
    for number in random.Random(seed).sample(range(len(dataset)), len(dataset)):
        if len(records) >= n:
            break
        found = dataset.read(number)
        if found is None:
            continue
        picture, record = found
        drawn = draw_regions(picture, record.boxes)
        drawn.thumbnail((MAX_SIDE, MAX_SIDE))
        pictures.append(drawn)
        records.append(record)
        talk = _conversation(record) if processor is None else _tokens(record, processor)
        blocks.append(_block(drawn, record, talk))
    note = '<p class="g4r-note">Marked: what the model is trained to say.</p>'
    return Preview(pictures, records, _STYLE + note + "".join(blocks))


def _block(picture: Image.Image, record: Record, talk: str) -> str:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=85)
    data = base64.b64encode(stream.getvalue()).decode()
    name = html.escape(f"{record.source} · {record.id} · {record.image}")
    alt = html.escape(f"{record.image} with {len(record.boxes)} numbered boxes", quote=True)
    return (
        f'<div class="g4r-record"><img alt="{alt}" width="{picture.width}" src="data:image/jpeg;base64,{data}">'
        f'<div class="g4r-talk"><span class="g4r-note">{name}</span>\n{talk}</div></div>'
    )


def _conversation(record: Record) -> str:
    lines = []
    for role, text in record.turns:
        shown = _escaped(text)
        lines.append(f"<b>{role}</b>: " + (f"<mark>{shown}</mark>" if role == "assistant" else shown))
    return "\n".join(lines)


def _tokens(record: Record, processor: GPT4RoIProcessor) -> str:
    """The prompt as a model reads it; neighbouring tokens that are trained, or are not, run together."""
    prompt = processor.prompt(record.turns)
    tokenizer: Any = processor.tokenizer
    image_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    runs: list[tuple[bool, list[int]]] = []
    images = 0
    for token_id, label in zip(prompt.input_ids, prompt.labels, strict=True):
        if token_id == image_id:
            images += 1
            if images > 1:  # one stands for all
                continue
        if not runs or runs[-1][0] != (label != IGNORE):
            runs.append((label != IGNORE, []))
        runs[-1][1].append(token_id)
    pieces = []
    for in_loss, ids in runs:
        # A vocabulary that begins words with "▁" loses the first blank in decoding.
        blank = " " if tokenizer.convert_ids_to_tokens(ids[0]).startswith("▁") else ""
        text = blank + tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        shown = _escaped(text.replace(IMAGE_TOKEN, f"{IMAGE_TOKEN} × {images}"))
        pieces.append(f"<mark>{shown}</mark>" if in_loss else shown)
    return "".join(pieces).replace(html.escape(REGION_TOKEN), f"<b>{html.escape(REGION_TOKEN)}</b>")


def _escaped(text: str) -> str:
    def colored(match: re.Match[str]) -> str:
        color = region_color(int(match.group(2) or match.group(3)))
        return f'<span class="g4r-region" style="border-color: {color}">{match.group()}</span>'

    return _REGION.sub(colored, html.escape(text))
