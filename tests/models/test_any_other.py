"""Classes that no row of the table is about: shown images as their own processors and forward passes would have it."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import FAMILIES as TINY
from tiny_families import OTHERS, by_its_processor, tiny_family

from gpt4roi_nb.models import FAMILIES, PromptedModel
from gpt4roi_nb.models.families import family_of
from gpt4roi_nb.models.own_prompts import differs
from gpt4roi_nb.models.reading import cache_for, reader_of
from gpt4roi_nb.session.region_model import Question

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8))
BOX, OTHER = (20.0, 10.0, 80.0, 60.0), (70.0, 40.0, 130.0, 90.0)
EACH = [(name, way) for name in OTHERS for way in ("draw", "full+crop") if way in family_of(name).ways]


def loaded(name: str, way: str | None = None) -> PromptedModel:
    return PromptedModel(*tiny_family(name), way, "tiny")


@torch.inference_mode()
@pytest.mark.parametrize(("name", "way"), EACH)
def test_ids_and_logits_are_those_of_its_own_processor_and_forward(name: str, way: str) -> None:
    model = loaded(name, way)
    store = model.images()
    prompt = model.prompt(store, IMAGE, [("user", "What is <region1>?")], {1: BOX})
    rendered = model.render(IMAGE, "What is <region1>?", [BOX])
    own = by_its_processor(name, prompt.rendered_text, list(rendered.images))
    assert prompt.input_ids == own["input_ids"][0].tolist()
    reader = reader_of(model.model, [prompt], 0, store.features(prompt.shown))
    logits = reader(model.model, reader.begin, cache_for(model.model.config))
    torch.testing.assert_close(logits[:, -1], model.model(**own).logits[:, -1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", OTHERS)
def test_it_talks(name: str) -> None:
    """A follow-up from the cache says what it says without; batches, options and attention as for the families."""
    model = loaded(name)
    assert "unverified" in model.about and model.differs == ""
    session = model.session(IMAGE)
    first = session.ask("What is <region1>?", [BOX], max_new_tokens=5)
    second = session.ask("And is it red?", max_new_tokens=5)
    assert second.reused_tokens > 0
    session._forget()
    session.undo()
    again = session.ask("And is it red?", max_new_tokens=5)
    assert again.reused_tokens == 0 and again.logprobs == pytest.approx(second.logprobs, abs=1e-4)
    questions = [Question(IMAGE, "What is <region1>?", [BOX]), Question(IMAGE, "Why is <region1> there?", [OTHER])]
    batch = model.answers(questions, max_new_tokens=5)
    assert batch[0].logprobs == pytest.approx(first.logprobs, abs=1e-4)
    options = ["a", "a longer one"]
    likely = model.likelihoods(IMAGE, "What is <region1>?", [BOX], options)
    assert likely == pytest.approx(
        [model.likelihoods(IMAGE, "What is <region1>?", [BOX], [option])[0] for option in options], abs=1e-4
    )
    attention = first.attention()
    assert attention.logprobs.tolist() == pytest.approx(first.logprobs, abs=1e-4)
    total = sum(attention.mass().values())
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-4, rtol=0)


def test_a_class_that_takes_no_features_is_shown_pixels() -> None:
    """As every class of transformers 5.17, the oldest that this package takes."""
    model, processor = tiny_family("mistral3")

    class TakesPixels(type(model)):  # type: ignore[misc]
        def forward(self, input_ids=None, pixel_values=None, image_sizes=None, past_key_values=None, **options: Any):
            assert not {"mm_encoder_outputs", "inputs_embeds"} & set(options)
            given = {"pixel_values": pixel_values, "image_sizes": image_sizes}
            return super().forward(input_ids=input_ids, past_key_values=past_key_values, **given, **options)

    older = copy.copy(model)  # the same weights
    older.__class__ = TakesPixels
    shown, taken = PromptedModel(older, processor, "draw"), loaded("mistral3", "draw")
    assert "its class takes no features, so an image is encoded again" in shown.about
    assert "each image is encoded once per session" in taken.about
    answers = []
    for one in (shown, taken):
        session = one.session(IMAGE)
        session.ask("What is <region1>?", [BOX], max_new_tokens=5)
        session.ask("And is it red?", max_new_tokens=5)
        answers.append([turn.answer for turn in session.history])
        answers[-1] += one.answers([Question(IMAGE, "What is <region1>?", [box]) for box in (BOX, OTHER)])
    for mine, its in zip(*answers, strict=True):
        assert mine.token_ids == its.token_ids and mine.logprobs == pytest.approx(its.logprobs, abs=1e-4)
        assert mine.reused_tokens == its.reused_tokens


@pytest.mark.parametrize("name", TINY)
def test_prompts_of_the_table_are_those_of_their_processors(name: str) -> None:
    assert differs(FAMILIES[name].format, tiny_family(name)[1]) == ""


def test_prompts_that_differ_are_said_to() -> None:
    model, processor = tiny_family("internvl")
    with pytest.MonkeyPatch.context() as patch:
        own: Any = type(processor).apply_chat_template

        def other(self: Any, messages: Any, **options: Any) -> Any:
            made = own(self, messages, **options)
            if options["tokenize"]:
                made["input_ids"][0, 5] += 1
            return made

        patch.setattr(type(processor), "apply_chat_template", other)
        with pytest.warns(UserWarning, match="internvl: its prompts differ from the processor's own from token 5 on"):
            about = PromptedModel(model, processor).about
    assert "differ from the processor's own" in about


def test_a_class_that_cannot_be_asked_is_refused_in_words() -> None:
    model, processor = tiny_family("gemma3")
    text = model.config.text_config
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "layer_types", ["mamba", "full_attention"])
        with pytest.raises(ValueError, match=r"gemma3 cannot be asked .* layers of a kind that was not tried here"):
            PromptedModel(model, processor)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor, "chat_template", None)
        with pytest.raises(ValueError, match="its processor has no chat template"):
            PromptedModel(model, processor)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor, "image_token", None)
        with pytest.raises(ValueError, match="its processor has no token for an image"):
            PromptedModel(model, processor)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.config, "is_encoder_decoder", True)
        with pytest.raises(ValueError, match="it has an encoder and a decoder"):
            PromptedModel(model, processor)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "forward", lambda self, input_ids: None)
        with pytest.raises(ValueError, match="does not put features of images in the place of tokens"):
            PromptedModel(model, processor)
