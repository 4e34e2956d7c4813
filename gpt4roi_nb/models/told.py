"""What a model would read of a question about boxes, without its weights."""

from __future__ import annotations

import os

from numpy.typing import ArrayLike

from gpt4roi_nb.boxes import Box, check_boxes
from gpt4roi_nb.checkpoint.check import check_what_is_loaded
from gpt4roi_nb.checkpoint.hub import locate
from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.draw import draw_regions
from gpt4roi_nb.images import ImageLike, load_image
from gpt4roi_nb.models.families import (
    GPT4ROI,
    check_question,
    convention_of,
    family_of,
    other_way_of_gpt4roi,
    pieces_of,
    point,
    task_of,
    told_of,
    way_of,
)
from gpt4roi_nb.models.images import frame_of, prepare, resized_size
from gpt4roi_nb.models.load import JSON_FILES, check_kind, model_type_of, read_processor
from gpt4roi_nb.models.prompts import build
from gpt4roi_nb.models.ways.settings import settings_of
from gpt4roi_nb.prompt import check_references, references
from gpt4roi_nb.session.references import read_references
from gpt4roi_nb.session.region_model import Rendered


def render_without_weights(
    path: str | os.PathLike[str] | None,
    regions: str | None,
    image: ImageLike,
    text: str,
    boxes: ArrayLike,
    *,
    colour: str | None = None,
    width: float | None = None,
    margin: float | None = None,
) -> Rendered:
    """Return what a model would read, as its `render` does, from its configuration and its processor alone.

    For a GPT4RoI in its own way, whose regions are tokens, the image is returned with numbered boxes, which the model
    does not see, and the text as it was given.

    Args:
        path: a folder or a hub id, as `load_model` takes it; for a hub id, the small files are downloaded. None takes a
            GPT4RoI, or with `regions` any chat model that can be shown images.
        regions: how boxes are presented to it, as `load_model` takes it.
        image: as `session` takes it.
        text: a question with `<regionN>`.
        boxes: (N, 4) pixel xyxy in the original image.
        colour, width, margin: as `load_model` takes them.

    Raises:
        ValueError: for bad boxes, references that do not match them, a way, a setting or a question that the model
            cannot take, or a checkpoint of a kind that `load_model` does not load.
        OSError: if there is no such checkpoint (`FileNotFoundError`), or its processor cannot be read.

    Examples:
        >>> from PIL import Image
        >>> from gpt4roi_nb.models import render_without_weights
        >>> image = Image.new("RGB", (64, 64))
        >>> render_without_weights(None, "draw", image, "What is <region1>?", [(8, 8, 40, 40)]).text
        'What is the object within the red rectangle?'
    """
    whole, text = load_image(image), read_references(text, 0)
    given: dict[int, Box] = {
        number: tuple(box) for number, box in enumerate(check_boxes(boxes, *whole.size).tolist(), 1)
    }
    check_references(references(text), list(given))
    source = None if path is None else locate(path, "checkpoint")
    model_type = "" if source is None else model_type_of(source.folder)
    is_gpt4roi = model_type == GPT4RoIConfig.model_type
    if (is_gpt4roi and other_way_of_gpt4roi(regions) is None) or (path is None and regions in (None, GPT4ROI.way)):
        settings_of(GPT4ROI.way, colour=colour, width=width, margin=margin)
        drawn = draw_regions(whole, list(given.values()), list(given)) if given else whole
        note = {"way": "region tokens: the model sees the image without what is drawn here", "status": "its own"}
        return Rendered((drawn,), text, note)
    if source is not None:
        check_what_is_loaded(source.folder, JSON_FILES)
        if not is_gpt4roi:
            check_kind(model_type, source.name)
    way = way_of(model_type, regions)
    pen, margin = settings_of(way, colour=colour, width=width, margin=margin)
    check_question(text, len(given), way, model_type)
    if source is None:
        pointing = point(whole, given, way, model_type, pen=pen, margin=margin)
        return Rendered(
            pointing.images, "".join(words for words, _ in pieces_of(text, pointing, way, "")), pointing.note
        )
    processor = read_processor(source)
    family, convention, resized = family_of(model_type), convention_of(model_type, way), None
    if convention is not None and convention.frame == "resized":
        resized = resized_size(processor, prepare(processor, family.format, whole))
    pointing = point(whole, given, way, model_type, resized=resized, frame=frame_of(processor), pen=pen, margin=margin)
    pieces = pieces_of(text, pointing, way, model_type)
    prompt = ""
    if family.format != "chat":
        task = task_of(text, way, model_type) is not None
        ids = [prepare(processor, family.format, shown).ids for shown in pointing.images]
        prompt = build(family.format, processor, [("user", pieces)], ids, task=task).told
    return Rendered(pointing.images, told_of(family.format, pieces, prompt), pointing.note)
