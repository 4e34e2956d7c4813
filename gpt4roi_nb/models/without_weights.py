"""What a model would read of a question about boxes, without its weights."""

from __future__ import annotations

import os
from functools import partial

from numpy.typing import ArrayLike

from gpt4roi_nb.checkpoint.check import check_what_is_loaded
from gpt4roi_nb.checkpoint.hub import locate
from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.draw import draw_regions
from gpt4roi_nb.images import ImageLike, load_image
from gpt4roi_nb.models.families import (
    GPT4ROI,
    check_askable,
    family_of,
    other_way_of_gpt4roi,
    pieces_of,
    point,
    rendered_text_of,
    task_of,
    way_of,
)
from gpt4roi_nb.models.images import prepare
from gpt4roi_nb.models.load import JSON_FILES, check_kind, model_type_of, read_processor
from gpt4roi_nb.models.loaded_family import pointing_for
from gpt4roi_nb.models.prompts import build
from gpt4roi_nb.models.ways.settings import settings_of
from gpt4roi_nb.session.references import read_question
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
    whole = load_image(image)
    text, given = read_question(text, boxes, *whole.size)
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
    check_askable(text, len(given), way, model_type)
    if source is None:
        pointing = point(whole, given, way, model_type, pen=pen, margin=margin)
        return Rendered(
            pointing.images, "".join(words for words, _ in pieces_of(text, pointing, way, "")), pointing.note
        )
    processor = read_processor(source)
    format = family_of(model_type).format
    prepared = partial(prepare, processor, format)
    pointing = pointing_for(processor, prepared, whole, given, way, model_type, pen=pen, margin=margin)
    pieces = pieces_of(text, pointing, way, model_type)
    prompt = ""
    if format != "chat":
        task = task_of(text, way, model_type) is not None
        ids = [prepared(shown).ids for shown in pointing.images]
        prompt = build(format, processor, [("user", pieces)], ids, task=task).rendered_text
    return Rendered(pointing.images, rendered_text_of(format, pieces, prompt), pointing.note)
