"""Coordinates as text, in the convention of a family of models."""

from __future__ import annotations

from PIL import Image

from gpt4roi_nb.models.ways.conventions import Convention, Size
from gpt4roi_nb.models.ways.pointing import Note, Pointing, Regions


def text(image: Image.Image, regions: Regions, *, convention: Convention, resized: Size | None = None) -> Pointing:
    """Write each region as coordinates.

    Args:
        image: RGB, upright.
        regions: by number, pixel xyxy.
        convention: of the model's family.
        resized: (width, height) to which the model's processor resizes the image, for conventions that count its
            pixels.

    Raises:
        ValueError: the convention needs `resized` and it was not given.
    """
    mentions = {number: convention.write(box, image.size, resized) for number, box in regions.items()}
    return Pointing((image,), mentions, note_of(convention, "text", resized), convention.lead)


def note_of(convention: Convention, way: str, resized: Size | None) -> Note:
    """What a card says of coordinates."""
    note: Note = {
        "way": way,
        "convention": f"{convention.family}: {convention.form}",
        "coordinates": convention.summary,
        "source": convention.source,
        "status": convention.status,
    }
    if convention.frame == "resized" and resized is not None:
        note["resized"] = f"{resized[0]} × {resized[1]}"
    return note
