"""Flickr30k Entities in MDETR's form: a caption of the image, each of whose phrases has one or several boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.coco import CocoFile
from gpt4roi_nb.data.problems import MISSING, OUT_OF_RANGE, WRONG_TYPE, BadRecord, Problems, shown, text_field
from gpt4roi_nb.data.record import GROUNDING, Annotation, as_boxes, unbracketed
from gpt4roi_nb.prompt import listed

Span = tuple[int, int]


def read_flickr(
    file: Path, problems: Problems, images: Path | None = None, *, name: str = "flickr30k"
) -> Iterator[Annotation]:
    """Yield one annotation per caption: `a man (<region1>) beside two dogs (<region2> and <region3>)`."""
    coco = CocoFile(file, problems, keep=_spans, keep_of_image=lambda entry: text_field(entry, "caption"))
    for image_id, image in coco.images.items():
        phrases: dict[Span, list[Box]] = {}
        for box, spans, annotation in coco.boxes_of(image_id):
            start, end = min(start for start, _ in spans), max(end for _, end in spans)
            if end > len(image.kept):
                detail = f"characters {start} to {end} lie beyond the caption, which has {len(image.kept)}"
                coco.note(BadRecord(OUT_OF_RANGE, detail), annotation)
                continue
            owned = phrases.setdefault((start, end), [])
            if box not in owned:
                owned.append(box)
        if not phrases:
            problems.leave_out("captions without a box")
            continue
        text, boxes = grounded(image.kept, phrases)
        yield Annotation(GROUNDING, image.file, as_boxes(boxes), (text,), name, str(image_id))


def grounded(caption: str, phrases: dict[Span, list[Box]]) -> tuple[str, list[Box]]:
    """Return a caption with its phrases' regions after them, numbered in reading order, and the boxes in that order."""
    caption = unbracketed(caption)
    pieces, boxes, at = [], list[Box](), 0
    for (_, end), owned in sorted(phrases.items(), key=lambda phrase: (phrase[0][1], -phrase[0][0])):
        numbers = range(len(boxes) + 1, len(boxes) + len(owned) + 1)
        pieces += [caption[at:end], f" ({listed(numbers)})"]
        boxes += owned
        at = end
    pieces.append(caption[at:])
    return " ".join("".join(pieces).split()), boxes


def _spans(entry: dict[str, Any]) -> tuple[Span, ...]:
    value = entry.get("tokens_positive")
    if not value:
        raise BadRecord(MISSING, "there is no 'tokens_positive'")
    if not isinstance(value, Sequence) or not all(_is_span(span) for span in value):
        raise BadRecord(WRONG_TYPE, f"'tokens_positive' must be a list of [start, end], but is {shown(value)}")
    return tuple((span[0], span[1]) for span in value)


def _is_span(span: Any) -> bool:
    return isinstance(span, list) and len(span) == 2 and all(type(i) is int for i in span) and 0 <= span[0] < span[1]
