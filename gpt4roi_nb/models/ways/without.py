"""A region that is asked about and not pointed at: what shows whether a model needs the pointing."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from gpt4roi_nb.models.ways.crop import whole_frame
from gpt4roi_nb.models.ways.draw import RED, Pen, draw
from gpt4roi_nb.models.ways.marks import marks
from gpt4roi_nb.models.ways.pointing import NAMELESS, Pointing, Regions


def without(made: Pointing, image: Image.Image, regions: Regions, region: int, way: str, *, pen: Pen = RED) -> Pointing:
    """Take away how one region is pointed at, and leave the others as they are.

    - Coordinates, as text or as tokens of the model's own: the region becomes "the object", or what stood around its
      tokens.
    - A drawing is left out; the words that name it stay.
    - A crop becomes the whole image; the words that name it stay.

    Args:
        made: what the way made of image and regions.
        image: RGB, upright.
        regions: by number, pixel xyxy, all of them.
        region: the number of the one to take away.
        way: one of `WAYS`.
        pen: what `draw` drew with.
    """
    if way == "draw":
        return replace(made, images=draw(image, regions, pen=pen, without=region).images)
    if way == "marks":
        return replace(made, images=marks(image, regions, without=region).images)
    if way in ("crop", "context", "full+crop"):
        place = list(regions).index(region) + (way == "full+crop")
        images, frames = list(made.images), list(made.frames)
        images[place], frames[place] = image, whole_frame(image)
        return replace(made, images=tuple(images), frames=tuple(frames))
    mention = made.mentions[region]
    rest = mention.replace(made.boxes.get(region, mention), "").strip()
    return replace(
        made,
        mentions={**made.mentions, region: rest or NAMELESS},
        boxes={**made.boxes, region: ""},
    )
