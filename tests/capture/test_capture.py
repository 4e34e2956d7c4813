"""Recordings show what was computed, and recording changes nothing."""

from __future__ import annotations

import threading

import pytest
import torch
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb.boxes import normalise
from gpt4roi_nb.capture import eager_attention
from gpt4roi_nb.inference.decode import Sampling
from gpt4roi_nb.inference.detokenizer import StreamingDetokenizer

BOX, OTHER_BOX = (3, 4, 30, 40), (20, 8, 60, 44)
FEW = {"max_new_tokens": 8}
EXACT = 1e-4  # float32, another order of the same sums


@pytest.fixture(scope="module")
def gpt4roi():
    return tiny_gpt4roi(seed=1)


@pytest.fixture(scope="module")
def talk(gpt4roi):
    """A session of two turns, with two regions."""
    session = gpt4roi.session(tiny_image())
    session.ask("What is <region1>?", [BOX], **FEW)
    session.ask("Is <region2> like region 1?", [OTHER_BOX], **FEW)
    return session


def test_looking_into_an_answer_waits_for_the_pass_of_another(gpt4roi, talk):
    """Attention maps need eager mode; a pass that began in the usual mode must not end in eager mode."""
    expected = gpt4roi.session(tiny_image()).ask("What is <region1>?", [BOX], **FEW)
    layers = gpt4roi.model.language_model.model.layers
    looking = threading.Thread(target=talk.history[0].answer.attention)
    modes = []

    def look(*_):
        if not looking.ident:
            looking.start()
            looking.join(timeout=0.2)
        modes.append(gpt4roi.model.language_model.config._attn_implementation)

    hooks = [layers[0].register_forward_pre_hook(look), layers[1].register_forward_pre_hook(look)]
    answer = gpt4roi.session(tiny_image()).ask("What is <region1>?", [BOX], max_new_tokens=1)
    for hook in hooks:
        hook.remove()
    looking.join()
    assert modes[:2] == ["sdpa", "sdpa"]
    assert answer.token_ids == expected.token_ids[:1]


@pytest.mark.parametrize("turn", [0, 1])
def test_attention_is_that_of_the_answer(talk, gpt4roi, turn):
    answer = talk.history[turn].answer
    attention = answer.attention()
    text = gpt4roi.model.config.text_config
    assert attention.weights.shape == (
        text.num_hidden_layers,
        text.num_attention_heads,
        len(answer.tokens),
        answer.prompt_tokens,
    )
    assert attention.weights.dtype == torch.float32 and attention.tokens == answer.tokens
    assert attention.logprobs.tolist() == pytest.approx(answer.logprobs, abs=EXACT)


def test_rows_are_shares(talk):
    weights = talk.history[1].answer.attention().weights
    sums = weights.sum(-1)
    assert (weights >= 0).all() and (sums <= 1 + 1e-5).all() and (sums > 0).all()
    # The further the answer, the more of it there is to attend to beside the prompt.
    assert (sums[..., -1] < 1 - 1e-3).all()


def test_weights_are_those_of_transformers(talk, gpt4roi):
    """Against one pass of the whole model, from pixels and ids, with transformers' own `output_attentions`."""
    model, processor = gpt4roi.model, gpt4roi.processor
    turns = [
        ("user", "What is <region1>?"),
        ("assistant", talk.history[0].answer.text),
        ("user", "Is <region2> like region 1?"),
    ]
    answer = talk.history[1].answer
    inputs = processor(tiny_image(), turns, [BOX, OTHER_BOX])
    prompt_length = inputs["input_ids"].shape[1]
    attention = answer.attention()
    # A tiny model writes no role, so that the kept tokens begin with the first one or after white space.
    ids = torch.cat([inputs["input_ids"], torch.tensor([raw_ids(gpt4roi, answer)])], dim=1)
    first = ids.shape[1] - prompt_length - len(answer.token_ids)
    with eager_attention(model), torch.inference_mode():
        outputs = model(
            input_ids=ids, pixel_values=inputs["pixel_values"], boxes=inputs["boxes"], output_attentions=True
        )
    start = prompt_length + first - 1
    expected = torch.stack([layer[0, :, start:-1, :prompt_length] for layer in outputs.attentions])
    torch.testing.assert_close(attention.weights, expected, atol=EXACT, rtol=0)


def raw_ids(gpt4roi, answer):
    """All generated tokens up to the last kept one, from a repeated greedy conversation."""
    written = []
    session = gpt4roi.session(tiny_image())
    push = StreamingDetokenizer.push

    def recording(row, token_id, logprob):
        written.append(token_id)
        return push(row, token_id, logprob)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StreamingDetokenizer, "push", recording)
        session.ask("What is <region1>?", [BOX], **FEW)
        written.clear()
        assert session.ask("Is <region2> like region 1?", [OTHER_BOX], **FEW).token_ids == answer.token_ids
    for first in range(len(written)):
        last = first + len(answer.token_ids)
        if written[first:last] == answer.token_ids:
            return written[:last]
    raise AssertionError("the answer's tokens are not among the generated ones")


def test_spans_name_the_columns(talk, gpt4roi):
    attention = talk.history[1].answer.attention()
    columns = attention.weights.shape[-1]
    assert sorted(column for span in attention.spans.values() for column in span) == list(range(columns))
    assert list(attention.spans) == [
        "first token", "system", "image", "region1", "region2", "earlier turns", "question", "marks"
    ]  # fmt: skip
    assert attention.spans["first token"] == [0]
    assert len(attention.spans["image"]) == gpt4roi.model.config.num_image_tokens
    said = ["".join(attention.prompt_tokens[column] for column in attention.spans[name]) for name in ("question",)]
    assert said == [" Is region2 like region 1?"]
    total = sum(attention.span_mass(span) for span in attention.spans)
    torch.testing.assert_close(total, attention.weights.sum(-1))
    assert attention.span_mass("region1").shape == attention.weights.shape[:3]
    with pytest.raises(KeyError, match="no span 'region9'; the spans are first token, system"):
        attention.span_mass("region9")


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_looking_leaves_the_implementation_as_it_was(gpt4roi, implementation):
    gpt4roi.model.set_attn_implementation(implementation)
    try:
        session = gpt4roi.session(tiny_image())
        before = session.ask("What is <region1>?", [BOX], **FEW)
        before.attention()
        assert gpt4roi.model.language_model.config._attn_implementation == implementation
        session.undo()
        assert session.ask("What is <region1>?", [BOX], **FEW).token_ids == before.token_ids
    finally:
        gpt4roi.model.set_attn_implementation("sdpa")


def test_an_error_leaves_the_implementation_as_it_was(gpt4roi):
    with pytest.raises(ZeroDivisionError), eager_attention(gpt4roi.model):
        assert gpt4roi.model.language_model.config._attn_implementation == "eager"
        raise ZeroDivisionError
    assert gpt4roi.model.language_model.config._attn_implementation == "sdpa"


def test_looking_does_not_disturb_the_conversation(gpt4roi):
    looked, plain = gpt4roi.session(tiny_image()), gpt4roi.session(tiny_image())
    for session in (looked, plain):
        session.ask("What is <region1>?", [BOX], **FEW)
    looked.history[0].answer.attention()
    answers = [session.ask("Why?", **FEW) for session in (looked, plain)]
    assert answers[0].token_ids == answers[1].token_ids
    assert answers[0].reused_tokens == answers[1].reused_tokens
    assert answers[0].logprobs == pytest.approx(answers[1].logprobs, abs=EXACT)


def test_an_answer_can_be_looked_into_after_undo(gpt4roi):
    session = gpt4roi.session(tiny_image())
    answer = session.ask("What is <region1>?", [BOX], **FEW)
    session.undo()
    session.ask("What is <region1>?", [OTHER_BOX], **FEW)
    assert answer.attention().logprobs.tolist() == pytest.approx(answer.logprobs, abs=EXACT)


def test_an_empty_answer_has_no_rows(gpt4roi, monkeypatch):
    end = gpt4roi.processor.tokenizer.eos_token_id
    monkeypatch.setattr(
        Sampling, "choose", lambda self, logits, generator: logits.new_full((1,), end, dtype=torch.int64)
    )
    answer = gpt4roi.session(tiny_image()).ask("What is <region1>?", [BOX])
    assert answer.text == "" and not answer.stopped
    attention = answer.attention()
    assert attention.weights.shape == (2, 4, 0, answer.prompt_tokens) and attention.logprobs.shape == (0,)


def test_roi_features_have_the_shapes_of_the_config(talk, gpt4roi):
    config = gpt4roi.model.config
    region, grid = config.region_config, config.grid_size
    features = talk.roi_features([BOX, OTHER_BOX, (0, 0, 64, 48)])
    assert features.boxes.shape == (3, 4)
    assert [tuple(level.shape) for level in features.levels] == [(16, grid, grid)] * region.num_levels
    assert [tuple(level.shape) for level in features.fused_maps] == [(16, side, side) for side in config.level_sizes]
    assert [tuple(level.shape) for level in features.pooled] == [(3, 16, 4, 4)] * region.num_levels
    assert features.tokens.shape == (3, config.text_config.hidden_size)
    for tensor in (features.boxes, features.tokens, *features.levels, *features.fused_maps, *features.pooled):
        assert tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def test_roi_features_are_what_the_model_computes(talk, gpt4roi):
    model = gpt4roi.model
    boxes = torch.from_numpy(normalise([BOX, OTHER_BOX], 64, 48))
    with torch.inference_mode():
        encoding = model.encode_image(gpt4roi.processor.image_processor(tiny_image())["pixel_values"])
        tokens = model.encode_regions(encoding.fused_maps, [boxes])
        hidden = model.vision_tower(
            gpt4roi.processor.image_processor(tiny_image())["pixel_values"], output_hidden_states=True
        ).hidden_states
    features = talk.roi_features([BOX, OTHER_BOX])
    torch.testing.assert_close(features.tokens, tokens, atol=1e-6, rtol=0)
    torch.testing.assert_close(features.boxes, boxes)
    for layer, level in zip(model.config.feature_layers, features.levels, strict=True):
        # Row by row from the top left, without the leading CLS.
        torch.testing.assert_close(level.flatten(1).T, hidden[layer][0, 1:])
    for recorded, fused in zip(features.fused_maps, encoding.fused_maps, strict=True):
        torch.testing.assert_close(recorded, fused[0])


def test_roi_features_of_no_boxes_are_empty(talk):
    features = talk.roi_features([])
    assert features.tokens.shape == (0, 32) and features.boxes.shape == (0, 4)
    assert all(len(level) == 0 for level in features.pooled)


def test_roi_features_leave_the_conversation_alone(talk):
    before = talk.history, talk.regions
    talk.roi_features([(1, 1, 9, 9)])
    assert (talk.history, talk.regions) == before


def test_half_precision_is_recorded_in_float32():
    gpt4roi = tiny_gpt4roi(seed=1)
    gpt4roi.model.to(torch.bfloat16)
    session = gpt4roi.session(tiny_image())
    answer = session.ask("What is <region1>?", [BOX], **FEW)
    assert answer.attention().weights.dtype == torch.float32
    assert session.roi_features([BOX]).tokens.dtype == torch.float32
