"""A model's own region tokens."""

from __future__ import annotations

from PIL import Image

from gpt4roi_nb.models.ways.conventions import Convention
from gpt4roi_nb.models.ways.pointing import Pointing, Regions
from gpt4roi_nb.models.ways.text import note_of


def native(image: Image.Image, regions: Regions, *, convention: Convention, mention: str = "{box}") -> Pointing:
    """Write each region in tokens of the model's own.

    Args:
        image: RGB, upright.
        regions: by number, pixel xyxy.
        convention: of the model's family.
        mention: what a sentence gets in place of the region, with `{box}` for the tokens: Kosmos-2 takes a phrase with
            them.
    """
    boxes = {number: convention.write(box, image.size) for number, box in regions.items()}
    mentions = {number: mention.format(box=box) for number, box in boxes.items()}
    return Pointing((image,), mentions, note_of(convention, "native", None), convention.lead, boxes)
