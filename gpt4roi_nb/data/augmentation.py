"""Images mirrored and shifted, with their boxes and words, in two variants.

- "mild" leaves every conversation true. A mirrored image turns left into right, so the words are exchanged; where
  "left" or "right" may mean something else, and where the image's writing or a clock is spoken of, it is not mirrored.
- "published" is what GPT4RoI's authors did to COCO's images, whose answers are category names.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from gpt4roi_nb.boxes import Boxes
from gpt4roi_nb.data.instruction_texts import LETTER_REQUEST
from gpt4roi_nb.data.record import Record, regions_of, renumbered

# As published (the authors' gpt4roi/datasets/coco_det.py, in pixels of the tower's 224): an image is flipped with this
# probability, and with this one shifted by up to so much of its sides along each; boxes that are then no larger than
# the last are left out.
PUBLISHED_FLIP, PUBLISHED_SHIFT = 0.5, 0.5
PUBLISHED_SIDE, PUBLISHED_PIXELS, PUBLISHED_LEAST = 224, 32, 2

FLIP = 0.5  # chance that a picture which may be mirrored is
MAX_SHIFT = 0.05  # of the picture's sides
MIN_KEPT = 0.9  # share of every box's area that a shift must leave inside the picture

_SIDE = re.compile(r"\b(left|right)", re.IGNORECASE)
_S = r"(?:left|right)\b"
_NO_SIDE_BEFORE = (
    r"(?![ -](?:over|behind|alone|now|away|there|here|in|at|thing|time|way|before|after|then|ahead|answer|handed|on|up|"
    r"off|to|next|beside|under|above|against|outside|by|near|where|when|through)\b)"
)
_AT = r"\b(?:on|to|at|from|towards?)"
_GOES_ON = (
    r"$|[.,;:!?)]"
    r"| (?:and|is|are|was|were|has|have|with|who|that|which|wearing|holding|standing|sitting|facing|as|in|of)\b"
)
# Where the words mean sides.
_MEANS_SIDE = re.compile(
    rf"\b(?:far|top|bottom|upper|lower|front|back|middle|center|centre)[ -]{_S}{_NO_SIDE_BEFORE}"
    rf"|{_AT} {_S}(?={_GOES_ON})"
    rf"|{_AT} (?:the|her|his|its|their) {_S}(?={_GOES_ON}| (?:a|an|the|there|next|near|by|looking)\b)"
    r"|\b(?:left|right)(?:-?most\b|[ -]?(?:hand|side)\b| (?:corner|edge|arm|leg|foot|eye|ear|shoulder|wing|of)\b)"
    rf"|^{_S}(?= \w+$|$){_NO_SIDE_BEFORE}",
    re.IGNORECASE,
)
# Where they do not, although it looks so; and where a side is what law or custom make it.
_OTHER_MEANING = re.compile(
    r"\b(?:has|have|had|was|were|be|been|being|not|he|she|it|they|who|(?:he|she|it|who|there|that|what)'s|\w+'ve)"
    r" left\b"
    r"|\b(?:what|all|most|half|some|one|much|little|nothing|anything|rest|food|bits?|pieces?|slices?)\b"
    r"[^.,;]{0,20} left of\b"
    r"|(?<!\bon )(?<!\bto )(?<!\bat )(?<!\bfrom )\bthe right of\b"
    r"|\bright of (?:way|passage|entry|return|access|appeal)\b"
    r"|\bright[ -]side[ -](?:up|out)\b|\bright[ -]hand (?:man|woman)\b|\bon the right foot\b"
    r"|^(?=.*\b(?:left|right))(?=.*\b(?:rings?|married|wedding|roads?|streets?|traffic|steering)\b)",
    re.IGNORECASE | re.DOTALL,
)
_NOT_MIRRORED = re.compile(
    r"\b(?:says?|said|reads?|reading|written|writing|writes?|words?|letters?|texts?|signs?|logos?|labels?|numbers?|digits?|spell\w*|"
    r"title\w*|clock\w*|counterclockwise|o'clock|east\w*|west\w*|drives?|driving|lanes?|mirror\w*|[lr]h?s?|lft|lt|rt|rgt|rght|rite)\b|[\"“”\d]",
    re.IGNORECASE,
)
_EXCHANGED = {"left": "right", "right": "left"}


def augment(
    picture: Image.Image, record: Record, seed: int, *, epoch: int = 0, flip: float = FLIP, max_shift: float = MAX_SHIFT
) -> tuple[Image.Image, Record]:
    """A picture and its record, mirrored or not and shifted a little, by (seed, epoch, source, id) alone.

    Args:
        picture: RGB, upright; record's boxes are pixels of it.
        flip: the chance that it is mirrored, if it may be.
        max_shift: at most this share of the sides; 0 for none.
    """
    rng = random.Random(f"augment/{seed}/{epoch}/{record.source}/{record.id}")
    mirrors = rng.random() < flip
    shares = rng.uniform(-max_shift, max_shift), rng.uniform(-max_shift, max_shift)
    if mirrors and may_be_mirrored(record):
        picture, record = mirror(picture, record)
    return shift(picture, record, round(shares[0] * picture.width), round(shares[1] * picture.height))


def augment_as_published(
    picture: Image.Image, record: Record, seed: int, *, epoch: int = 0
) -> tuple[Image.Image, Record]:
    """An image and its record, flipped with probability 0.5, and with 0.5 shifted by up to 32 pixels of 224.

    Black comes in where the image was. Regions of which the shift leaves no more than 2 pixels of 224 are left out with
    the turns that ask about them; where none is left, or a turn speaks of several, the image stays where it was. One of
    which "left" or "right" is said is not flipped; everything else is, also what is written in it.

    Args:
        picture: RGB, upright; record's boxes are pixels of it.
        seed, epoch: decide, with source and id of the record.
    """
    rng = random.Random(f"augment/{seed}/{epoch}/{record.source}/{record.id}")
    moves, flips = rng.random() < PUBLISHED_SHIFT, rng.random() < PUBLISHED_FLIP
    right, down = (rng.randint(-PUBLISHED_PIXELS, PUBLISHED_PIXELS) / PUBLISHED_SIDE for _ in range(2))
    if moves:
        picture, record = _shift_and_drop(picture, record, round(right * picture.width), round(down * picture.height))
    if flips and not any(_SIDE.search(text) for _, text in record.turns):
        picture, record = mirror(picture, record)
    return picture, record


# By the names that `train` knows.
AUGMENTATIONS: dict[str, Callable[..., tuple[Image.Image, Record]]] = {
    "published": augment_as_published,
    "mild": augment,
}


def may_be_mirrored(record: Record) -> bool:
    """Whether what is said of a picture can be made true of its mirror image by exchanging left and right."""
    return all(_may_be_exchanged(text) for _, text in record.turns)


def mirror(picture: Image.Image, record: Record) -> tuple[Image.Image, Record]:
    """The mirror image, with boxes and words that fit it. Ask `may_be_mirrored` before."""
    boxes = record.boxes.copy()
    boxes[:, [0, 2]] = picture.width - record.boxes[:, [2, 0]]
    turns = tuple((role, _SIDE.sub(_exchange, text)) for role, text in record.turns)
    return ImageOps.mirror(picture), Record(record.image, boxes, turns, record.source, record.id)


def shift(picture: Image.Image, record: Record, right: int, down: int) -> tuple[Image.Image, Record]:
    """The picture moved by whole pixels, its mean colour where it was; unmoved where a box would lose too much."""
    moved = record.boxes + np.array([right, down, right, down], np.float32)
    cut = _cut(moved, picture)
    if (right, down) == (0, 0) or (_areas(cut) < MIN_KEPT * _areas(moved)).any():
        return picture, record
    mean = picture.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    return _pasted(picture, right, down, mean), replace(record, boxes=cut)


def _shift_and_drop(picture: Image.Image, record: Record, right: int, down: int) -> tuple[Image.Image, Record]:
    """As `shift` into black, but what a box loses counts only where too little is left of it: then it goes."""
    boxes = _cut(record.boxes + np.array([right, down, right, down], np.float32), picture)
    least = PUBLISHED_LEAST / PUBLISHED_SIDE * np.array(picture.size, np.float32)
    kept = [index + 1 for index, side in enumerate(boxes[:, 2:] - boxes[:, :2]) if (side > least).all()]
    turns = _only(record, kept)
    if turns is None:
        return picture, record
    boxes = boxes[[number - 1 for number in kept]]
    return _pasted(picture, right, down, 0), replace(record, boxes=boxes, turns=turns)


def _only(record: Record, kept: list[int]) -> tuple[tuple[str, str], ...] | None:
    """The turns about the regions that are kept, renumbered; None where these cannot be told apart, or are none."""
    if len(record.turns) % 2 or (len(record.boxes) and not kept):
        return None
    numbers = {old: new for new, old in enumerate(kept, 1)}
    turns: list[tuple[str, str]] = []
    for asked, answered in zip(record.turns[::2], record.turns[1::2], strict=True):
        spoken_of = set(regions_of((asked[1], answered[1])))
        if spoken_of <= set(kept):
            turns += [(role, renumbered(text, numbers)) for role, text in (asked, answered)]
        elif len(spoken_of) > 1:
            return None
    return tuple(turns) or None


def _cut(boxes: Boxes, picture: Image.Image) -> Boxes:
    size = np.array([picture.width, picture.height] * 2, np.float32)
    inside: Boxes = np.clip(boxes, 0, size).astype(np.float32)
    return inside


def _pasted(picture: Image.Image, right: int, down: int, colour: Any) -> Image.Image:
    """The image moved, with a colour where it was."""
    canvas = Image.new(picture.mode, picture.size, colour)
    canvas.paste(picture, (right, down))
    return canvas


def _areas(boxes: Boxes) -> Boxes:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _may_be_exchanged(text: str) -> bool:
    """Both ways, or what is said of left and right would be learnt more often of one of them."""
    text = re.sub(r"<region\d+>", "it", text).replace(LETTER_REQUEST, "")
    return not _NOT_MIRRORED.search(text) and _means_sides(text) and _means_sides(_SIDE.sub(_exchange, text))


def _means_sides(text: str) -> bool:
    sides = [match.span() for match in _MEANS_SIDE.finditer(text)]
    return not _OTHER_MEANING.search(text) and all(
        any(start <= word.start() < end for start, end in sides) for word in _SIDE.finditer(text)
    )


def _exchange(word: re.Match[str]) -> str:
    found = word.group()
    other = _EXCHANGED[found.lower()]
    return other.upper() if found.isupper() else other.capitalize() if found[0].isupper() else other
