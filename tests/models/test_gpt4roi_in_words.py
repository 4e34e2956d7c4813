"""A GPT4RoI that is asked without its region tokens: what it says is what the model itself says of what it is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_config, tiny_gpt4roi, tiny_model, tiny_processor
from tiny_parts import REGION, save_language_model, save_siglip

from gpt4roi_nb import GPT4RoI, load_model
from gpt4roi_nb.inference.loaded_model import WeightsChangedError
from gpt4roi_nb.models import PromptedModel, render_without_weights
from gpt4roi_nb.models.families import GPT4ROI
from gpt4roi_nb.session import Question

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8))
BOX, OTHER = (20.0, 10.0, 80.0, 60.0), (70.0, 40.0, 130.0, 90.0)
ASKED = "What is <region1>?"


@pytest.fixture(scope="module")
def gpt4roi() -> GPT4RoI:
    return tiny_gpt4roi()


@pytest.mark.parametrize("way", GPT4ROI.ways)
def test_it_says_what_the_model_says_of_the_image_and_the_words_that_it_is_shown(gpt4roi: GPT4RoI, way: str) -> None:
    model = PromptedModel.of(gpt4roi, way)
    told = model.render(IMAGE, ASKED, [BOX])
    assert "region" not in told.text and told.note["way"] == model.way == way
    session, expected = model.session(IMAGE), gpt4roi.session(told.images[0])
    for question, boxes, words in ((ASKED, [BOX], told.text), ("And is it red?", (), "And is it red?")):
        mine, own = session.ask(question, boxes, max_new_tokens=6), expected.ask(words, max_new_tokens=6)
        assert mine.text == own.text and mine.token_ids == own.token_ids
        assert mine.logprobs == pytest.approx(own.logprobs, abs=1e-4)
        assert mine.reused_tokens == own.reused_tokens
    assert mine.reused_tokens > 0
    questions = [Question(IMAGE, ASKED, [box]) for box in (BOX, OTHER)] + [Question(IMAGE, "Why is <region1>?", [BOX])]
    alone = [model.session(IMAGE).ask(one.text, one.boxes, max_new_tokens=6) for one in questions]
    for one, other in zip(model.answers(questions, max_new_tokens=6), alone, strict=True):
        assert one.token_ids == other.token_ids and one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    described = model.session(IMAGE).describe([BOX, OTHER], max_new_tokens=6, progress=False)
    assert [one.text for one in described] == [one.text for one in alone[:2]]


def test_its_stream_ends_with_words_if_the_model_is_trained_meanwhile() -> None:
    gpt4roi = tiny_gpt4roi()
    for model in (PromptedModel.of(gpt4roi, "crop"), PromptedModel.of(gpt4roi, "draw").with_regions("crop")):
        pieces = model.session(IMAGE).stream(ASKED, [BOX], max_new_tokens=20)
        next(pieces)
        with gpt4roi.training_step(), torch.no_grad():
            for weight in gpt4roi.model.parameters():
                weight.mul_(1.01)
        with pytest.raises(WeightsChangedError, match="was trained while this answer was being written"):
            list(pieces)


def of_parts(folder: Path) -> GPT4RoI:
    """In the chat format of its language model."""
    parts = save_language_model(folder / "language", "qwen2"), save_siglip(folder / "tower")
    return GPT4RoI.from_parts(*parts, region_config=REGION, device="cpu")


@pytest.mark.parametrize("closing", ["### ", "### Assistant:", None], ids=["its own", "longer", "template"])
def test_likelihoods_are_those_of_full_forward_passes(closing: str | None, tmp_path: Path) -> None:
    if closing is None:
        gpt4roi = of_parts(tmp_path)
    else:
        config = tiny_config()
        gpt4roi = GPT4RoI(tiny_model(config), tiny_processor(config, closing=closing))
    model = PromptedModel.of(gpt4roi, "context")
    told, options = model.render(IMAGE, ASKED, [BOX]), ["red", "a small red cone", "no"]
    expected = gpt4roi.likelihoods(told.images[0], told.text, (), options)
    assert model.likelihoods(IMAGE, ASKED, [BOX], options) == pytest.approx(expected, abs=1e-4)
    assert model.likelihoods(IMAGE, ASKED, [BOX], []) == []
    mine = model.session(IMAGE).ask(ASKED, [BOX], max_new_tokens=4)
    assert mine.token_ids == gpt4roi.session(told.images[0]).ask(told.text, max_new_tokens=4).token_ids


def test_it_shares_weights_and_lock_and_says_what_it_cannot_do(gpt4roi: GPT4RoI) -> None:
    gpt4roi.revision = "0a1b2c"
    model = PromptedModel.of(gpt4roi, "crop")
    assert model.model is gpt4roi.model and model.forward_lock is gpt4roi.forward_lock and model.revision == "0a1b2c"
    assert model.fingerprint() == gpt4roi.fingerprint() and model.never_written() == gpt4roi.never_written()
    assert not model.capabilities.several_regions and not model.capabilities.roi_features
    assert model.with_regions("marks").capabilities.several_regions
    assert "GPT4RoI" in model.about and "regions=crop; not what it was trained with" in model.about
    with pytest.raises(ValueError, match="gpt4roi was made for one image at a time"):
        model.session(IMAGE).ask("Is <region1> left of <region2>?", [BOX, OTHER])
    for regions in ("native", None):
        with pytest.raises(ValueError, match="with region tokens of its own it is a GPT4RoI"):
            model.with_regions(regions)


def test_load_model_takes_a_way_of_a_gpt4roi_and_refuses_others_before_weights_are_read(
    gpt4roi: GPT4RoI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpt4roi.save_pretrained(tmp_path)
    assert isinstance(load_model(tmp_path, regions="native", device="cpu"), GPT4RoI)
    model = load_model(tmp_path, regions="draw", device="cpu")
    assert isinstance(model, PromptedModel) and model.fingerprint() == gpt4roi.fingerprint()
    told, rendered = model.render(IMAGE, ASKED, [BOX]), render_without_weights(tmp_path, "draw", IMAGE, ASKED, [BOX])
    assert rendered.text == told.text == "What is the object within the red rectangle?"
    assert rendered.images == told.images and rendered.note == told.note
    assert render_without_weights(tmp_path, "native", IMAGE, ASKED, [BOX]).text == ASKED
    monkeypatch.setattr(GPT4RoI, "from_pretrained", None)
    for regions, why in (
        ("text", "no convention is known"),
        ("full+crop", "one image at a time"),
        ("x", "must be one"),
    ):
        for path in (tmp_path, None):
            with pytest.raises(ValueError, match=why):
                load_model(path, regions=regions)
