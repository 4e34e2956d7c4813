"""A region that is asked about and not pointed at: what shows whether a model needs the pointing."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from gpt4roi_nb.models.ways import SPECS, Way
from gpt4roi_nb.models.ways.crop import whole_frame
from gpt4roi_nb.models.ways.draw import RED, Pen
from gpt4roi_nb.models.ways.pointing import NAMELESS, Pointing, Regions


def without(made: Pointing, image: Image.Image, regions: Regions, region: int, way: Way, *, pen: Pen = RED) -> Pointing:
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
        pen: what boxes were drawn with.
    """
    spec = SPECS[way]
    if spec.can_leave_out:
        drawn_with = {"pen": pen} if "pen" in spec.takes else {}
        return replace(made, images=spec.function(image, regions, without=region, **drawn_with).images)
    if made.frames:  # crops, in the order of the regions, after the whole image if the way shows that too
        images, frames = list(made.images), list(made.frames)
        place = len(images) - len(regions) + list(regions).index(region)
        images[place], frames[place] = image, whole_frame(image)
        return replace(made, images=tuple(images), frames=tuple(frames))
    mention = made.mentions[region]
    rest = mention.replace(made.boxes.get(region, mention), "").strip()
    return replace(
        made,
        mentions={**made.mentions, region: rest or NAMELESS},
        boxes={**made.boxes, region: ""},
    )
