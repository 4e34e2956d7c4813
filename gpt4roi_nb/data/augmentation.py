"""Pictures mirrored and shifted, with their boxes and words, where that leaves the conversation true.

A mirrored picture turns left into right, so the words are exchanged; where "left" or "right" may mean something else,
and where the picture's writing or a clock is spoken of, it is not mirrored.
"""

from __future__ import annotations

import random
import re

import numpy as np
from PIL import Image, ImageOps

from gpt4roi_nb.boxes import Boxes
from gpt4roi_nb.data.instruction_texts import LETTER_REQUEST
from gpt4roi_nb.data.record import Record

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
    size = np.array([picture.width, picture.height] * 2, np.float32)
    cut = np.clip(moved, 0, size).astype(np.float32)
    if (right, down) == (0, 0) or (_areas(cut) < MIN_KEPT * _areas(moved)).any():
        return picture, record
    mean = picture.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    canvas = Image.new(picture.mode, picture.size, mean)
    canvas.paste(picture, (right, down))
    return canvas, Record(record.image, cut, record.turns, record.source, record.id)


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
