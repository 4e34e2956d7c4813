"""Qwen3-VL's mixture of experts, and Qwen3.5, whose layers of linear attention hold a state that cannot be cut back."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import LATER, by_its_processor, tiny_family

from gpt4roi_nb.models import PromptedModel
from gpt4roi_nb.models.reading import cache_for, has_states, reader_of
from gpt4roi_nb.session.region_model import Question

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8))
BOX, OTHER = (20.0, 10.0, 80.0, 60.0), (70.0, 40.0, 130.0, 90.0)
FEW = {"max_new_tokens": 6}
STATES = [name for name in LATER if name.startswith("qwen3_5")]


def loaded(name: str, way: str | None = None) -> PromptedModel:
    return PromptedModel(*tiny_family(name), way, "tiny")


def alone(model: PromptedModel, prompt: Any, answer: list[int]) -> list[float]:
    """Log-probabilities of an answer by the model's own forward pass over the processor's own inputs, without cache."""
    own = by_its_processor(model.model_type, prompt.rendered_text, [IMAGE])
    ids = torch.tensor([[*own["input_ids"][0].tolist(), *answer[:-1]]])
    kinds = (ids == model.model.config.image_token_id).int()
    images = {name: own[name] for name in ("pixel_values", "image_grid_thw")}
    with torch.inference_mode():
        logits = model.model(input_ids=ids, mm_token_type_ids=kinds, **images).logits[0, -len(answer) :]
    return logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0].tolist()


@torch.inference_mode()
@pytest.mark.parametrize("name", LATER)
def test_ids_and_logits_are_those_of_its_own_processor_and_forward(name: str) -> None:
    model = loaded(name)
    store = model.images()
    prompt = model.prompt(store, IMAGE, [("user", "What is <region1>?")], {1: BOX})
    assert prompt.rendered_text == "What is [143, 100, 571, 600]?" and model.differs == ""
    own = by_its_processor(name, prompt.rendered_text, [IMAGE])
    assert prompt.input_ids == own["input_ids"][0].tolist()
    reader = reader_of(model.model, [prompt], 0, store.features(prompt.shown))
    logits = reader(model.model, reader.begin, cache_for(model.model.config))
    torch.testing.assert_close(logits[:, -1], model.model(**own).logits[:, -1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", LATER)
def test_a_conversation_says_what_it_would_say_without_a_cache(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(name)
    assert has_states(model.model.config) == (name in STATES)
    # Answers of letters, so that as a part of the next prompt they are the same tokens again.
    letters = model.processor.tokenizer.convert_tokens_to_ids(list("abcde"))
    monkeypatch.setattr(
        model, "never_written", lambda: sorted({*range(model.model.config.text_config.vocab_size)} - {*letters})
    )
    session = model.session(IMAGE)
    first = session.ask("What is <region1>?", [BOX], **FEW)
    second = session.ask("Is <region2> left of region 1?", [OTHER], **FEW)
    assert second.reused_tokens == first.prompt_tokens + len(first.token_ids) - 1  # all that the cache holds
    undone = session.undo()
    assert undone.answer is second
    again = session.ask("Is <region2> left of region 1?", [OTHER], **FEW)
    assert (again.reused_tokens == 0) == (name in STATES)  # a state cannot be cut back
    fresh = model.session(IMAGE)
    assert fresh.ask("What is <region1>?", [BOX], **FEW).logprobs == pytest.approx(first.logprobs, abs=1e-4)
    fresh._forget()
    without = fresh.ask("Is <region2> left of region 1?", [OTHER], **FEW)
    assert without.reused_tokens == 0
    for answer in (second, again):
        assert answer.token_ids == without.token_ids
        assert answer.logprobs == pytest.approx(without.logprobs, abs=1e-4)


@pytest.mark.parametrize("name", LATER)
def test_batches_and_options_are_as_each_alone(name: str) -> None:
    model = loaded(name)
    texts = ["What is <region1>?", "Why is <region1> there?", "What is <region1> of?"]
    batch = model.answers([Question(IMAGE, text, [BOX]) for text in texts], **FEW)
    for text, answer in zip(texts, batch, strict=True):
        one = model.session(IMAGE).ask(text, [BOX], **FEW)
        assert answer.token_ids == one.token_ids and answer.logprobs == pytest.approx(one.logprobs, abs=1e-4)
    described = model.session(IMAGE).describe([BOX, OTHER], **FEW)
    assert described[0].logprobs == pytest.approx(batch[0].logprobs, abs=1e-4)
    options = ["a", "a longer one"]
    likely = model.likelihoods(IMAGE, texts[0], [BOX], options)
    for option, value in zip(options, likely, strict=True):
        prompt = model.prompt(model.images(), IMAGE, [("user", texts[0]), ("assistant", option)], {1: BOX})
        asked = model.prompt(model.images(), IMAGE, [("user", texts[0])], {1: BOX})
        assert value == pytest.approx(sum(alone(model, asked, list(prompt.answer))), abs=1e-4)


def test_what_a_state_takes_away_is_said() -> None:
    model = loaded("qwen3_5")
    assert "a conversation is read whole after an undo" in model.about
    assert not model.capabilities.attention and loaded("qwen3_vl_moe").capabilities.attention
    answer = model.session(IMAGE).ask("What is <region1>?", [BOX], **FEW)
    with pytest.raises(RuntimeError, match="what qwen3_5 computes is not recorded here"):
        answer.attention()
