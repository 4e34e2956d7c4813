"""Ways to point: what a model is told, by hand; and an oracle that finds its way back from the words and the pixels."""

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from pointing_oracle import SIZE, World, answer
from tiny_families import tiny_family

from gpt4roi_nb import draw as draw_module
from gpt4roi_nb.models import PromptedModel, ways
from gpt4roi_nb.models.families import FAMILIES, family_of, pieces_of, point, task_of, way_of
from gpt4roi_nb.models.images import digest_of
from gpt4roi_nb.models.ways.conventions import CONVENTIONS, UNVERIFIED

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8))
ONE = {1: (52.0, 33.0, 210.0, 183.0)}
TWO = {**ONE, 2: (300.0, 200.0, 400.0, 300.0)}
QUESTION = "What is <region1>?"
BOTH = "Is <region2> larger than <region1>?"

# (family, way, question) → what the model reads, worked out by hand for an image of 640 × 480.
GOLDEN = {
    ("qwen3_vl", "text", QUESTION): "What is [81, 69, 328, 381]?",
    ("qwen2_5_vl", "text", QUESTION): "What is [52, 33, 211, 181]?",
    ("qwen3_vl", "text", BOTH): "Is [469, 417, 625, 625] larger than [81, 69, 328, 381]?",
    ("kosmos-2", "native", QUESTION): (
        "What is <phrase> the object</phrase><object><patch_index_0066><patch_index_0394></object>?"
    ),
    ("florence2", "native", "Describe <region1>."): "<REGION_TO_DESCRIPTION><loc_81><loc_68><loc_328><loc_381>",
    ("florence2", "native", "What category is <region1>?"): "<REGION_TO_CATEGORY><loc_81><loc_68><loc_328><loc_381>",
    ("florence2", "native", "what text is in <region1>"): "<REGION_TO_OCR><loc_81><loc_68><loc_328><loc_381>",
    ("paligemma", "native", "Caption <region1>."): "caption <loc0070><loc0083><loc0390><loc0336>",
    ("perception_lm", "text", "Please describe the region (<region1>) in details."): (
        "Please describe the region ([081,068,328,381]) in details.\n"
        "The region is in the format of [x1, y1, x2, y2]."
    ),
    ("video_llama_3", "text", "What is the license plate number of <region1>?"): (
        "What is the license plate number of [81, 68, 328, 381]?"
    ),
    ("internvl", "text", QUESTION): "What is <box>[[81, 69, 328, 381]]</box>?",
    ("llava", "text", QUESTION): "What is [0.08, 0.18, 0.33, 0.41]?",
    ("vipllava", "draw", BOTH): (
        "Is the object within the lime rectangle larger than the object within the red rectangle?"
    ),
    ("qwen3_vl", "marks", BOTH): "Is the object marked 2 larger than the object marked 1?",
    ("qwen3_vl", "crop", QUESTION): "What is the object in the image?",
    ("qwen3_vl", "draw", "Is the object <region1> of the image a cup or a mug?"): (
        "Is the object within the red rectangle of the image a cup or a mug?"
    ),
    ("qwen3_vl", "crop", BOTH): "Is the object in image 2 larger than the object in image 1?",
    ("qwen3_vl", "context", QUESTION): "What is the object in the middle of the image?",
    ("qwen3_vl", "full+crop", BOTH): "Is the object in image 3 larger than the object in image 2?",
}  # fmt: skip


@pytest.mark.parametrize(("family", "way", "question"), GOLDEN)
def test_a_question_is_told_as_the_source_says(family: str, way: ways.Way, question: str) -> None:
    pointing = point(IMAGE, TWO if "region2" in question else ONE, way, family, resized=(644, 476))
    told = "".join(words for words, _ in pieces_of(question, pointing, way, family))
    assert told == GOLDEN[family, way, question]


def test_every_documented_way_has_a_golden_text() -> None:
    told = {(family, way) for family, way, _ in GOLDEN}
    assert {(name, FAMILIES[name].way) for name in FAMILIES} - told == {
        ("qwen2_vl", "text"), ("qwen3_vl_moe", "text"), ("qwen3_5", "text"), ("qwen3_5_moe", "text"), ("llava", "draw")
    }  # fmt: skip  # which are those of qwen3_vl and vipllava


def test_only_what_the_way_wrote_may_hold_special_tokens() -> None:
    pointing = point(IMAGE, ONE, "native", "kosmos-2")
    assert pointing.pieces("Is </phrase> <region1>, or <region2>?") == [
        ("Is </phrase> ", False),
        ("<phrase> the object</phrase><object><patch_index_0066><patch_index_0394></object>", True),
        (", or <region2>?", False),
    ]


def test_a_drawn_box_is_a_line_in_its_colour_and_nothing_else() -> None:
    """Of ViP-LLaVA: 3 pixels where the longest side has 336, so 5 of 640, inside the box."""
    before = IMAGE.copy()
    (drawn,) = point(IMAGE, ONE, "draw", "vipllava").images
    changed = (np.asarray(drawn) != np.asarray(IMAGE)).any(-1)
    expected = np.zeros((480, 640), dtype=bool)
    expected[33:183, 52:210] = True
    expected[38:178, 57:205] = False
    red = (np.asarray(drawn) == (255, 0, 0)).all(-1)
    np.testing.assert_array_equal(red, expected)
    assert not (changed & ~expected).any()
    np.testing.assert_array_equal(np.asarray(before), np.asarray(IMAGE))


@pytest.mark.parametrize(("side", "painted"), [(10, True), (11, False)])
def test_an_object_that_its_line_paints_over_is_warned_of(side: int, painted: bool) -> None:
    """Two lines of 5 pixels fill a box of 10: nothing of the object is left; of 11 pixels one is."""
    box = (100.0, 50.0, 100.0 + side, 150.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (drawn,) = point(IMAGE, {2: box}, "draw", "vipllava").images
    inside = np.asarray(drawn)[50:150, 100 : 100 + side]
    assert (inside == (255, 0, 0)).all() == painted
    said = [str(one.message) for one in caught]
    assert [text.startswith("the line of 5 pixels paints over what is in <region2>") for text in said] == [
        True
    ] * painted


def test_crops_are_the_pixels_of_the_box() -> None:
    pixels = np.asarray(IMAGE)
    (tight,) = point(IMAGE, ONE, "crop", "llava").images
    np.testing.assert_array_equal(np.asarray(tight), pixels[33:183, 52:210])
    (wider,) = point(IMAGE, {1: (200.0, 100.0, 300.0, 180.0)}, "context", "llava").images
    np.testing.assert_array_equal(np.asarray(wider), pixels[60:220, 150:350])  # half a side more on each
    (narrow,) = point(IMAGE, ONE, "context", "llava").images
    np.testing.assert_array_equal(
        np.asarray(narrow), pixels[0:216, 0:262]
    )  # 33 above, 52 on the left, as much opposite
    whole, part = point(IMAGE, ONE, "full+crop", "qwen3_vl").images
    np.testing.assert_array_equal(np.asarray(whole), pixels)
    np.testing.assert_array_equal(np.asarray(part), pixels[33:183, 52:210])


@st.composite
def boxes(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int, int, int], float]:
    """A size of any shape, the pixels that a box touches, and how far inside them it begins and ends."""
    width, height = draw(st.integers(1, 700)), draw(st.integers(1, 700))
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x2, y2 = draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))
    return (width, height), (x1, y1, x2, y2), draw(st.sampled_from((0.0, 0.25, 0.49)))


def at_the_border(test: Callable[..., None]) -> Callable[..., None]:
    """Boxes of a pixel in two corners, beside what hypothesis finds."""
    for box in ((0, 0, 1, 1), (639, 479, 640, 480)):
        test = example(((640, 480), box, 0.0))(test)
    return example(((1, 1), (0, 0, 1, 1), 0.25))(test)


@given(boxes())
@at_the_border
def test_a_crop_holds_its_box_and_is_never_a_sliver(drawn: tuple) -> None:
    (width, height), (x1, y1, x2, y2), inset = drawn
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[y1:y2, x1:x2] = 255
    for way in ("crop", "context"):
        box = (x1 + inset, y1 + inset, x2 - inset, y2 - inset)
        (shown,) = point(Image.fromarray(pixels), {1: box}, way, "llava").images
        assert (np.asarray(shown)[..., 0] == 255).sum() == (x2 - x1) * (y2 - y1)
        least = 28 if way == "crop" else 1
        assert shown.width >= min(least, width) and shown.height >= min(least, height)


@given(boxes())
@at_the_border
def test_a_line_bounds_its_box_within_a_pixel(drawn: tuple) -> None:
    (width, height), (x1, y1, x2, y2), inset = drawn
    box = (x1 + inset, y1 + inset, x2 - inset, y2 - inset)
    (shown,) = ways.draw(Image.new("RGB", (width, height)), {1: box}, pen=ways.Pen(warns=False)).images
    rows, columns = np.nonzero((np.asarray(shown) == (255, 0, 0)).all(-1))
    assert [columns.min(), rows.min()] == [x1, y1]
    assert abs(columns.max() + 1 - box[2]) < 1 and abs(rows.max() + 1 - box[3]) < 1


def test_each_way_has_a_spec_that_fits_its_function() -> None:
    assert tuple(ways.SPECS) == ways.WAYS
    for spec in ways.SPECS.values():
        takes = set(inspect.signature(spec.function).parameters) - {"image", "regions"}
        assert takes == {*spec.takes, *(["without"] if spec.can_leave_out else [])}
        assert bool(spec.coordinates) == ("convention" in spec.takes)


@pytest.mark.parametrize("way", ways.WAYS)
def test_a_way_says_for_a_card_what_could_move_a_figure(way: ways.Way) -> None:
    family = {"native": "kosmos-2", "text": "qwen2_5_vl"}.get(way, "some_new_model" if way != "native" else "")
    note = point(IMAGE, ONE, way, family, resized=(644, 476)).note
    assert note["way"] == way and note["status"] == UNVERIFIED and note["source"]
    if way == "draw":
        assert note["colours"] == "red" and note["line"] == "5 pixels, opaque"
    if way == "text":
        assert note["resized"] == "644 × 476" and "pixels" in str(note["coordinates"])


def test_ways_are_refused_in_words() -> None:
    assert way_of("qwen3_vl", None) == "text" and way_of("a_new_model", None) == "draw"
    for family, way, why in (
        ("qwen3_vl", "arrows", "must be one of text, draw"),
        ("a_new_model", "text", "no convention is known for boxes as text"),
        ("qwen3_vl", "native", "tokens of its own"),
        ("florence2", "draw", "it answers tasks about a box"),
        ("vipllava", "full+crop", "one image at a time"),
    ):
        with pytest.raises(ValueError, match=why):
            way_of(family, way)
    with pytest.raises(ValueError, match="one image at a time; ask about one region"):
        point(IMAGE, TWO, "crop", "vipllava")
    many = {number: (number * 20.0, 10.0, number * 20.0 + 15, 40.0) for number in range(1, 11)}
    with pytest.raises(ValueError, match=r'has 9 colours, but there are 10 regions.*regions="marks"'):
        point(IMAGE, many, "draw", "qwen3_vl")
    with pytest.raises(ValueError, match="margin must be at least 0"):
        ways.context(IMAGE, ONE, margin=-1)


def test_what_is_no_task_is_refused_with_the_tasks() -> None:
    assert task_of("What is it?", "text", "qwen3_vl") is None
    with pytest.raises(ValueError, match=r"no free question.*'Describe <region1>\.' or 'What category is <region1>\?'"):
        task_of("Why is <region1> there?", "native", "florence2")


WORLDS = [World.of(seed) for seed in range(4)]
POINTING = [
    *((family, way) for family in FAMILIES for way in FAMILIES[family].ways),
    *(("llava_next", way) for way in family_of("llava_next").ways),  # of a class that no row is about
]


def score(family: str, way: ways.Way, worlds: Sequence[World] = WORLDS) -> float:
    """The share of things, alone and in pairs, that the oracle finds its way back to."""
    right = []
    alone = family_of(family).tasks if way == "native" else {}
    single = way in ("crop", "context") and not family_of(family).several_images
    for world in worlds:
        told = Told(family, way, world)
        for index, (name, box) in enumerate(world.things):
            wanted, regions, question = [name], {1: box}, next(iter(alone), QUESTION)
            if not alone and not single:
                other, second = world.things[index - 1]
                wanted, regions, question = [other, name], {1: box, 2: second}, BOTH
            right.append(told.answer(question, regions) == wanted)
    return sum(right) / len(right)


class Told:
    """What a family's model in miniature is told about a world, and what an oracle makes of it."""

    def __init__(self, family: str, way: ways.Way, world: World) -> None:
        self._family, self._world = family, world
        self._model = PromptedModel(*tiny_family(family), way, "tiny")
        self._model.model_type = family
        self._images = self._model.images()
        # As the processor itself resizes the image, and not as the package says that it does.
        processed = self._model.processor.image_processor(images=[world.image], return_tensors="pt")
        grid = processed.get("image_grid_thw")
        self._resized = (14 * int(grid[0, 2]), 14 * int(grid[0, 1])) if grid is not None else (0, 0)

    def answer(self, question: str, regions: dict) -> list[str]:
        """Read back from the ids of the prompt and the images that it stands for."""
        model, image, turns = self._model, self._world.image, [("user", question)]
        prompt = model.prompt(self._images, image, turns, regions)
        shown = model.rendered(self._images, image, turns, regions).images
        assert [digest_of(one) for one in shown] == [one.digest for one in prompt.shown]
        own = [token_id for token_id, of in zip(prompt.input_ids, prompt.images, strict=True) if of < 0]
        told = model.processor.tokenizer.decode(own)
        return answer(told, shown, self._world, self._family, self._resized)


@pytest.mark.parametrize(("family", "way"), POINTING)
def test_an_oracle_finds_every_thing_that_is_pointed_at(family: str, way: ways.Way) -> None:
    assert score(family, way) == 1


WRONG = [
    *((family, {"order": "xyxy" if family == "paligemma" else "yxyx"}) for family in CONVENTIONS),
    ("qwen2_5_vl", {"frame": "original"}),
    ("qwen2_5_vl", {"frame": "padded"}),
    ("qwen2_5_vl", {"frame": "original", "parts": 1000}),
    ("qwen3_vl", {"parts": None}),
    ("qwen3_vl", {"frame": "padded"}),
    ("llava", {"frame": "original"}),
    ("perception_lm", {"frame": "padded"}),
    ("paligemma", {"frame": "padded"}),
    ("kosmos-2", {"frame": "padded"}),
    ("kosmos-2", {"parts": 24, "cells": 24}),
]  # fmt: skip


@pytest.mark.parametrize(("family", "changes"), WRONG)
def test_an_oracle_is_led_astray_by_a_wrong_order_or_frame(
    monkeypatch: pytest.MonkeyPatch, family: str, changes: dict
) -> None:
    monkeypatch.setitem(CONVENTIONS, family, dataclasses.replace(CONVENTIONS[family], **changes))
    assert score(family, FAMILIES[family].ways[0], WORLDS[:2]) < 0.8


def test_an_oracle_is_led_astray_by_a_wrong_colour_or_number() -> None:
    """So that it is the pixels that it reads."""
    world = WORLDS[0]
    regions = {1: world.things[0][1], 2: world.things[1][1]}

    def told(one: ways.Pointing) -> str:
        return "".join(words for words, _ in one.pieces(QUESTION))

    for way in ("draw", "marks", "full+crop"):
        pointing = point(world.image, regions, way, "a_new_model")
        swapped = dataclasses.replace(pointing, mentions={1: pointing.mentions[2], 2: pointing.mentions[1]})
        assert answer(told(pointing), pointing.images, world, "") == [world.things[0][0]]
        assert answer(told(swapped), pointing.images, world, "") == [world.things[1][0]]
    assert WORLDS[0].image.size == SIZE


@pytest.mark.parametrize("written", [{"1": "2", "2": "1"}, {"1": "", "2": ""}])
def test_an_oracle_is_led_astray_by_numerals_that_are_swapped_or_absent(
    monkeypatch: pytest.MonkeyPatch, written: dict
) -> None:
    """The lines and their colours stay as they are: it is the numeral on its patch that tells which is meant."""
    chip = draw_module._chip
    monkeypatch.setattr(draw_module, "_chip", lambda text, *rest: chip(written[text], *rest))
    assert score("qwen3_vl", "marks", WORLDS[:1]) == 0


@pytest.mark.parametrize("number", range(1, 13))
def test_an_oracle_reads_every_numeral(number: int) -> None:
    world = WORLDS[1]
    (shown,) = point(world.image, {number: world.things[0][1]}, "marks", "a_new_model").images
    for asked, found in ((number, world.things[0][0]), (number % 12 + 1, "nothing")):
        assert answer(f"What is the object marked {asked}?", [shown], world, "") == [found]
