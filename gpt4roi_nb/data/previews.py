"""Show records: each image with its numbered boxes, and the conversation with the trained text marked.

A notebook displays the value of `preview(dataset, 4)`.
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

from gpt4roi_nb.data.mixture import WithImages
from gpt4roi_nb.data.record import Record
from gpt4roi_nb.draw import draw_regions, region_color
from gpt4roi_nb.prompt import IGNORE
from gpt4roi_nb.tokenizer import IMAGE_TOKEN, REGION_TOKEN

if TYPE_CHECKING:
    from gpt4roi_nb.processor import GPT4RoIProcessor

MAX_SIDE = 640  # pixels of an image as shown
_REGION = re.compile(r"(&lt;region(\d+)&gt;|\bregion(\d+)\b)")
_STYLE = """<style>
.g4r-record {display: flex; gap: 16px; align-items: flex-start; flex-wrap: wrap; margin: 0 0 20px}
.g4r-record img {max-width: 100%; height: auto}
.g4r-text {flex: 1 1 320px; min-width: 280px; line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere}
.g4r-text mark {background: rgba(128, 128, 128, .28); color: inherit; border-bottom: 2px solid currentColor}
.g4r-region {font-weight: 600; border-bottom: 3px solid}
.g4r-note {opacity: .75; font-size: 90%}
</style>"""


class Preview:
    """Drawn records. `images`: RGB images with their boxes; `records`; `html`: what a notebook shows."""

    def __init__(self, images: Sequence[Image.Image], records: Sequence[Record], html_text: str) -> None:
        self.images = list(images)
        self.records = list(records)
        self.html = html_text

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return (
            f"Preview of {len(self.records)} records; `.images` are the drawn images, a notebook shows their text too"
        )


def preview(dataset: WithImages, n: int = 4, *, seed: int = 0, processor: GPT4RoIProcessor | None = None) -> Preview:
    """Show some random records of a data set, to check it by eye.

    Args:
        dataset: a data set loaded with its image folder, or a mixture of such data sets.
        n: how many records; fewer if the data set is smaller. Records whose image is damaged are skipped.
        seed: decides which records.
        processor: with it, the prompt is shown token by token as a model reads it, with the trained tokens marked;
            without it, the conversation, with the assistant's turns marked, which are what is trained.

    Returns:
        A `Preview`, which a notebook displays. Its `images` are the images with boxes, at most 640 pixels wide and
        high.

    Raises:
        ValueError: the data set does not know where its images are.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from gpt4roi_nb.data import load, preview
        >>> Path("images").mkdir()
        >>> Image.new("RGB", (100, 80)).save("images/a.jpg")
        >>> turns = [{"from": "human", "value": "What is <region1>?"}, {"from": "gpt", "value": "a cup"}]
        >>> entry = {"id": "1", "image": "a.jpg", "boxes": [[10, 20, 50, 60]], "conversations": turns}
        >>> _ = Path("mine.json").write_text(json.dumps([entry]))
        >>> shown = preview(load("conversations", "mine.json", "images", cache="cache"), 4)
        >>> len(shown.records), shown.images[0].size
        (1, (100, 80))
    """
    images: list[Image.Image] = []
    records: list[Record] = []
    blocks: list[str] = []
    for number in random.Random(seed).sample(range(len(dataset)), len(dataset)):
        if len(records) >= n:
            break
        found = dataset.read(number)
        if found is None:
            continue
        image, record = found
        drawn = draw_regions(image, record.boxes)
        drawn.thumbnail((MAX_SIDE, MAX_SIDE))
        images.append(drawn)
        records.append(record)
        text = _conversation(record) if processor is None else _tokens(record, processor)
        blocks.append(_block(drawn, record, text))
    note = '<p class="g4r-note">Marked: what the model is trained to say.</p>'
    return Preview(images, records, _STYLE + note + "".join(blocks))


def _block(image: Image.Image, record: Record, text: str) -> str:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    data = base64.b64encode(stream.getvalue()).decode()
    name = html.escape(f"{record.source} · {record.id} · {record.image}")
    alt = html.escape(f"{record.image} with {len(record.boxes)} numbered boxes", quote=True)
    return (
        f'<div class="g4r-record"><img alt="{alt}" width="{image.width}" src="data:image/jpeg;base64,{data}">'
        f'<div class="g4r-text"><span class="g4r-note">{name}</span>\n{text}</div></div>'
    )


def _conversation(record: Record) -> str:
    lines = []
    for role, text in record.turns:
        shown = _escaped(text)
        lines.append(f"<b>{role}</b>: " + (f"<mark>{shown}</mark>" if role == "assistant" else shown))
    return "\n".join(lines)


def _tokens(record: Record, processor: GPT4RoIProcessor) -> str:
    """The prompt as a model reads it, in runs of tokens that are trained and of tokens that are not."""
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
        # Decoding with a vocabulary that begins words with "▁" drops the first blank.
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
