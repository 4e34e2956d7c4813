"""What a way of pointing makes of an image and its regions, and of a text that names them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.prompt import REFERENCE

Regions = Mapping[int, Box]  # by number: pixel xyxy in the original image, checked
NOUN = "the object "  # with which most ways name a region
NAMELESS = NOUN.strip()  # a region that is not pointed at
_NOUNS = re.compile(r"^the (?:object|region) ")
Note = dict[str, str | int | float]


@dataclass(frozen=True)
class Pointing:
    """How regions are presented to a model.

    Attributes:
        images: RGB, in the order in which the model gets them.
        mentions: by the number of a region, what replaces `<regionN>`. Special tokens in it keep their meaning.
        note: what a card says of it: the way, and all that could move a figure.
        lead: a line that follows a question which names a region; "" for none.
        boxes: by the number of a region, its box alone in the convention of the model, where that is part of a mention.
        frames: of each image, the part of the original that it shows, pixel xyxy; () where each shows all of it.
    """

    images: tuple[Image.Image, ...]
    mentions: Mapping[int, str]
    note: Note = field(default_factory=dict)
    lead: str = ""
    boxes: Mapping[int, str] = field(default_factory=dict)
    frames: tuple[Box, ...] = ()

    def pieces(self, text: str) -> list[tuple[str, bool]]:
        """Split a text into pieces (words, whether the way wrote them), with mentions in the place of `<regionN>`.

        A reference to a region that was not given stays as it is. After "the object", as in Ferret's question, a
        mention does not begin with a noun again.
        """
        found: list[tuple[str, bool]] = []
        position = 0
        for reference in REFERENCE.finditer(text):
            mention = self.mentions.get(int(reference.group(1)))
            if mention is not None:
                before = text[position : reference.start()]
                found.append((before, False))
                found.append((_NOUNS.sub("", f"{mention} ").rstrip() if before.endswith(NOUN) else mention, True))
                position = reference.end()
        found.append((text[position:], False))
        if self.lead and any(own for _, own in found):
            found.append((f"\n{self.lead}", True))
        return [piece for piece in found if piece[0]]
