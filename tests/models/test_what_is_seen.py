"""What a processor really makes of an image: nothing that was pointed at is lost on the way to the model."""

import copy
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pointing_oracle import answer_from_pixels, seen, shade_at, strip
from tiny_families import tiny_family

from gpt4roi_nb.models import PromptedModel
from gpt4roi_nb.models import images as images_module
from gpt4roi_nb.models.images import crops_to_square, prepare

SIDE = 336  # as the real ones, so that a line is to be seen


def as_large_as_real(name: str, way: str) -> PromptedModel:
    model, processor = tiny_family(name)
    processor = copy.deepcopy(processor)
    own = processor.image_processor
    processor.image_processor = type(own)(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_mean=own.image_mean
    )
    return PromptedModel(model, processor, way, "tiny")


def score(name: str, way: str, tall: bool) -> float:
    """The share of things that an oracle finds in the pixels that the processor made."""
    world, model = strip(tall), as_large_as_real(name, way)
    images = model.processor.image_processor
    right = []
    for thing, box in world.things:
        prompt = model.prompt(model.images(), world.image, [("user", "What is <region1>?")], {1: box})
        pixels = seen(prompt.shown[0].values["pixel_values"][0].numpy(), images.image_mean, images.image_std)
        assert pixels.shape == (SIDE, SIDE, 3)
        found = answer_from_pixels(pixels, world) if way == "draw" else shade_at(prompt.told, pixels)
        right.append(found == thing)
    return sum(right) / len(right)


WAYS = [("vipllava", "draw"), ("llava", "draw"), ("llava", "text")]


@pytest.mark.parametrize("tall", [False, True])
@pytest.mark.parametrize(("name", "way"), WAYS)
def test_a_box_at_the_far_edge_reaches_the_model(name: str, way: str, tall: bool) -> None:
    assert score(name, way, tall) == 1


@pytest.mark.parametrize("tall", [False, True])
@pytest.mark.parametrize(("name", "way"), WAYS)
def test_without_padding_it_would_not(monkeypatch: pytest.MonkeyPatch, name: str, way: str, tall: bool) -> None:
    monkeypatch.setattr(images_module, "padded", lambda image, colour: image)
    assert score(name, way, tall) < 0.5


@pytest.mark.parametrize(
    ("name", "crops"),
    [("vipllava", True), ("llava", True), ("llava_next", False), ("kosmos-2", False), ("paligemma", False),
     ("qwen3_vl", False), ("florence2", False), ("internvl", False)],
)  # fmt: skip
def test_only_what_is_cropped_is_padded_and_the_note_says_so(name: str, crops: bool) -> None:
    model = PromptedModel(*tiny_family(name), None, "tiny")
    assert crops_to_square(model.processor) is crops
    wide, square = Image.new("RGB", (140, 100)), Image.new("RGB", (100, 100))
    question: Any = model.tasks[0] if model.tasks else "What is <region1>?"
    note = model.render(wide, question, [(0, 0, 50, 50)]).note
    assert ("padded to a square with RGB (122, 116, 104)" in str(note.get("frame"))) is crops
    assert prepare(model.processor, model.family.format, wide).padded is crops
    assert not prepare(model.processor, model.family.format, square).padded


def test_padding_is_the_makers() -> None:
    """In the middle, on a side of odd length a pixel nearer to the beginning, in the mean colour."""
    image = Image.fromarray(np.full((3, 8, 3), 7, dtype=np.uint8))
    square = np.asarray(images_module.padded(image, (1, 2, 3)))
    assert square.shape == (8, 8, 3) and (square[2:5] == 7).all()
    assert (square[:2] == (1, 2, 3)).all() and (square[5:] == (1, 2, 3)).all()
