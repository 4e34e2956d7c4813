"""Mirror and shift images together with their boxes and words, in two variants.

- "mild" keeps every conversation true. Mirroring swaps left and right, so these words are swapped too. An image is not
  mirrored where "left" or "right" may mean something else, or where its text mentions writing, numbers or clocks.
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

# As published (the authors' gpt4roi/datasets/coco_det.py): the probabilities of a flip and of a shift; then, in pixels
# of the tower's 224, the largest shift along each axis, and the side at or below which a shifted box is dropped.
PUBLISHED_FLIP, PUBLISHED_SHIFT = 0.5, 0.5
PUBLISHED_SIDE, PUBLISHED_PIXELS, PUBLISHED_LEAST = 224, 32, 2

FLIP = 0.5  # probability of mirroring an image that may be mirrored
MAX_SHIFT = 0.05  # share of the image's sides
MIN_KEPT = 0.9  # share of every box's area that a shift must leave inside the image

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
# Where they do not although they look so, and where law or custom decides the side.
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
    image: Image.Image, record: Record, seed: int, *, epoch: int = 0, flip: float = FLIP, max_shift: float = MAX_SHIFT
) -> tuple[Image.Image, Record]:
    """Mirror an image by chance and shift it a little, with its boxes and words: the "mild" variant.

    An image is mirrored only where swapping "left" and "right" keeps its record true, and shifted only where every box
    keeps nine tenths of its area. The image's mean colour fills the place that it leaves.

    Args:
        image: RGB and upright.
        record: its boxes are in pixels of the image.
        seed, epoch: decide, with the record's source and id, and nothing else does.
        flip: probability of mirroring an image that may be mirrored.
        max_shift: largest shift, as a share of each side; 0 for none.

    Returns:
        A new image of the same size and its record; or the ones given, where nothing changes.

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> from gpt4roi_nb.data import Record, augment
        >>> turns = (("user", "What is <region1>?"), ("assistant", "the cup on the left"))
        >>> record = Record("a.jpg", np.array([[10, 20, 50, 60]], np.float32), turns, "mine", "1")
        >>> _, mirrored = augment(Image.new("RGB", (100, 80)), record, seed=0, flip=1, max_shift=0)
        >>> mirrored.turns[1][1], mirrored.boxes.tolist()
        ('the cup on the right', [[50.0, 20.0, 90.0, 60.0]])
    """
    rng = random.Random(f"augment/{seed}/{epoch}/{record.source}/{record.id}")
    mirrors = rng.random() < flip
    shares = rng.uniform(-max_shift, max_shift), rng.uniform(-max_shift, max_shift)
    if mirrors and may_be_mirrored(record):
        image, record = mirror(image, record)
    return shift(image, record, round(shares[0] * image.width), round(shares[1] * image.height))


def augment_as_published(
    image: Image.Image, record: Record, seed: int, *, epoch: int = 0
) -> tuple[Image.Image, Record]:
    """Flip an image with probability 0.5, and shift it with probability 0.5 by up to 32 pixels of 224.

    Black fills the place that the image leaves. A shift drops regions of which it leaves no more than 2 pixels of 224
    in width or height, with the turns about them. An image is not shifted if no region would be left, or if a turn
    names a dropped region beside others. It is not flipped if its text says "left" or "right"; nothing else prevents a
    flip, not even writing in the image.

    Args:
        image: RGB and upright.
        record: its boxes are in pixels of the image.
        seed, epoch: decide, with the record's source and id, and nothing else does.

    Returns:
        A new image of the same size and its record; or the ones given, where nothing changes.
    """
    rng = random.Random(f"augment/{seed}/{epoch}/{record.source}/{record.id}")
    moves, flips = rng.random() < PUBLISHED_SHIFT, rng.random() < PUBLISHED_FLIP
    right, down = (rng.randint(-PUBLISHED_PIXELS, PUBLISHED_PIXELS) / PUBLISHED_SIDE for _ in range(2))
    if moves:
        image, record = _shift_and_drop(image, record, round(right * image.width), round(down * image.height))
    if flips and not any(_SIDE.search(text) for _, text in record.turns):
        image, record = mirror(image, record)
    return image, record


# By the names that `train` knows.
AUGMENTATIONS: dict[str, Callable[..., tuple[Image.Image, Record]]] = {
    "published": augment_as_published,
    "mild": augment,
}


def may_be_mirrored(record: Record) -> bool:
    """Whether swapping left and right makes what is said of an image true of its mirror image."""
    return all(_may_be_exchanged(text) for _, text in record.turns)


def mirror(image: Image.Image, record: Record) -> tuple[Image.Image, Record]:
    """Mirror an image, with its boxes and words. Ask `may_be_mirrored` first."""
    boxes = record.boxes.copy()
    boxes[:, [0, 2]] = image.width - record.boxes[:, [2, 0]]
    turns = tuple((role, _SIDE.sub(_exchange, text)) for role, text in record.turns)
    return ImageOps.mirror(image), Record(record.image, boxes, turns, record.source, record.id)


def shift(image: Image.Image, record: Record, right: int, down: int) -> tuple[Image.Image, Record]:
    """Move an image by whole pixels and fill in its mean colour; do nothing where a box would lose too much."""
    moved = record.boxes + np.array([right, down, right, down], np.float32)
    cut = _cut(moved, image)
    if (right, down) == (0, 0) or (_areas(cut) < MIN_KEPT * _areas(moved)).any():
        return image, record
    mean = image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    return _pasted(image, right, down, mean), replace(record, boxes=cut)


def _shift_and_drop(image: Image.Image, record: Record, right: int, down: int) -> tuple[Image.Image, Record]:
    """As `shift`, but fill in black, and drop each box of which too little is left."""
    boxes = _cut(record.boxes + np.array([right, down, right, down], np.float32), image)
    least = PUBLISHED_LEAST / PUBLISHED_SIDE * np.array(image.size, np.float32)
    kept = [index + 1 for index, side in enumerate(boxes[:, 2:] - boxes[:, :2]) if (side > least).all()]
    turns = _only(record, kept)
    if turns is None:
        return image, record
    boxes = boxes[[number - 1 for number in kept]]
    return _pasted(image, right, down, 0), replace(record, boxes=boxes, turns=turns)


def _only(record: Record, kept: list[int]) -> tuple[tuple[str, str], ...] | None:
    """The turns about the regions that are kept, renumbered; None where these cannot be separated, or are none."""
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


def _cut(boxes: Boxes, image: Image.Image) -> Boxes:
    size = np.array([image.width, image.height] * 2, np.float32)
    inside: Boxes = np.clip(boxes, 0, size).astype(np.float32)
    return inside


def _pasted(image: Image.Image, right: int, down: int, colour: Any) -> Image.Image:
    """The image moved, with a colour where it was."""
    canvas = Image.new(image.mode, image.size, colour)
    canvas.paste(image, (right, down))
    return canvas


def _areas(boxes: Boxes) -> Boxes:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _may_be_exchanged(text: str) -> bool:
    """Whether left and right may be swapped: both ways, or one side would be learnt more often than the other."""
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
