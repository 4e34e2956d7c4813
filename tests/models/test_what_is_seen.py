"""What a processor really makes of an image: nothing that was pointed at is lost on the way to the model."""

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
from einops import rearrange
from PIL import Image
from pointing_oracle import answer_from_pixels, seen, shade_at, strip
from tiny_families import FAMILIES as TINY
from tiny_families import tiny_family

from gpt4roi_nb.models import CONVENTIONS, FAMILIES, PromptedModel
from gpt4roi_nb.models import images as images_module
from gpt4roi_nb.models.images import crops_to_square, prepare

SIDE = 336  # as the real ones, so that a line is to be seen


def as_large_as_real(name: str, way: str) -> PromptedModel:
    model, processor = tiny_family(name)
    processor = copy.deepcopy(processor)
    own = processor.image_processor
    if name.startswith("qwen"):
        own.size = {"shortest_edge": 56 * 56, "longest_edge": SIDE * SIDE}
    else:
        processor.image_processor = type(own)(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_mean=own.image_mean
        )
    return PromptedModel(model, processor, way, "tiny")


def as_image(name: str, values: Any) -> np.ndarray:
    """What a processor made of an image, (3, H, W): the same whether it comes whole, in patches or in tiles."""
    pixels = values["pixel_values"].numpy()
    if name not in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "video_llama_3"):
        tiles = pixels.reshape(-1, *pixels.shape[-3:])
        assert (tiles == tiles[:1]).all()
        return tiles[0]
    _, rows, columns = values["image_grid_thw"][0].tolist()
    # Qwen's patches come in cells of two by two, each as two frames of a film that are the same.
    cell, frames = (1, 1) if name == "video_llama_3" else (2, 2)
    axes = {"h": rows // cell, "w": columns // cell, "a": cell, "b": cell, "t": frames, "p": 14, "q": 14}
    film = rearrange(pixels, "(h w a b) (c t p q) -> t c (h a p) (w b q)", **axes)
    assert (film == film[:1]).all()
    return film[0]


def score(name: str, way: str, tall: bool) -> float:
    """The share of things that an oracle finds in the pixels that the processor made."""
    world, model = strip(tall), as_large_as_real(name, way)
    images = model.processor.image_processor
    right = []
    for thing, box in world.things:
        prompt = model.prompt(model.images(), world.image, [("user", "What is <region1>?")], {1: box})
        pixels = seen(as_image(name, prompt.shown[0].values), images.image_mean, images.image_std)
        height, width, _ = pixels.shape
        assert (height == width == SIDE) != name.startswith("qwen")
        units = {"qwen2_5_vl": (1, 1), "qwen3_vl": (width / 1000, height / 1000), "llava": (width, height)}
        found = (
            answer_from_pixels(pixels, world) if way == "draw" else shade_at(prompt.rendered_text, pixels, units[name])
        )
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


@pytest.mark.parametrize("tall", [False, True])
@pytest.mark.parametrize(("name", "wrong"), [("qwen2_5_vl", {"frame": "original"}), ("qwen3_vl", {"parts": None})])
def test_coordinates_are_those_of_the_pixels_that_the_model_gets(
    monkeypatch: pytest.MonkeyPatch, name: str, wrong: dict, tall: bool
) -> None:
    """Of 900 × 300 pixels Qwen's processor leaves 560 × 168."""
    assert score(name, "text", tall) == 1
    monkeypatch.setitem(CONVENTIONS, name, dataclasses.replace(CONVENTIONS[name], **wrong))
    assert score(name, "text", tall) < 0.5


# A box of one colour in an image of another, whose 56 pixels a side most processors in miniature leave as they are.
AROUND, INSIDE, RED, ORANGE, WHITE = (240, 230, 20), (20, 100, 200), (255, 0, 0), (201, 77, 10), (255, 255, 255)
BOX = (7, 14, 42, 49)
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NORMALISED = {"paligemma": HALF, "perception_lm": HALF, "video_llama_3": HALF}  # mean and deviation; CLIP's for others


def two_colours(shape: tuple[int, ...], box: tuple[int, ...] = BOX, size: tuple[int, int] = (56, 56)) -> np.ndarray:
    """An image (H, W, 3) of AROUND with INSIDE in a box of an image of a size; NaN where resizing blends the two."""
    rows, columns = ((np.arange(made) + 0.5) * side / made for made, side in zip(shape[-2:], size[::-1], strict=True))
    blend = 0.0 if shape[-2:] == size[::-1] else 3.0
    deep = np.minimum(
        np.minimum(columns - box[0], box[2] - columns)[None], np.minimum(rows - box[1], box[3] - rows)[:, None]
    )
    made = np.where((deep > 0)[..., None], INSIDE, AROUND).astype(float)
    made[np.abs(deep) < blend] = np.nan
    return made


def by_hand(way: str, shape: tuple[int, ...]) -> list[np.ndarray]:
    """What each image of a way shows, (H, W, 3) of 0 to 255 or a single colour; NaN where nothing is said."""
    whole = two_colours(shape)
    if way in ("text", "native"):
        return [whole]
    if way == "draw":  # 3 pixels of 336 are half a pixel of 56, so one, within the box
        whole[14:49, 7:42] = RED
        whole[15:48, 8:41] = INSIDE
        return [whole]
    if way == "marks":  # white, two pixels of the colour, white, around the box; the number is above row 30
        for out, paint in ((4, WHITE), (3, ORANGE), (1, WHITE), (0, INSIDE)):
            whole[14 - out : 49 + out, 7 - out : 42 + out] = paint
        whole[:30] = np.nan
        return [whole]
    cut = np.array(INSIDE, dtype=float)
    if way == "context":  # as far as the image has room on both sides: 7 pixels
        return [two_colours(shape, (7, 7, 42, 42), (49, 49))]
    return [whole, cut] if way == "full+crop" else [cut]


@pytest.mark.parametrize(("name", "way"), [(name, way) for name in TINY for way in FAMILIES[name].ways])
def test_pixels_are_those_worked_out_by_hand(name: str, way: str) -> None:
    model = PromptedModel(*tiny_family(name), way, "tiny")
    image = Image.new("RGB", (56, 56), AROUND)
    image.paste(INSIDE, BOX)
    question = model.tasks[0] if model.tasks else "What is <region1>?"
    prompt = model.prompt(model.images(), image, [("user", question)], {1: BOX})
    mean, deviation = NORMALISED.get(name, CLIP)
    made = [as_image(name, one.values) for one in prompt.shown]
    for pixels, wanted in zip(made, by_hand(way, made[0].shape), strict=True):
        expected = np.broadcast_to((wanted / 255 - mean) / deviation, (*pixels.shape[1:], 3))
        said = ~np.isnan(expected)
        assert said.mean() > 0.4
        np.testing.assert_allclose(pixels.transpose(1, 2, 0)[said], expected[said], atol=1e-5)


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
