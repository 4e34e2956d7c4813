"""Rollout, relevancy and sinks against straightforward computations."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb.capture import eager_attention

BOX, OTHER_BOX = (3, 4, 30, 40), (20, 8, 60, 44)


@pytest.fixture(scope="module")
def gpt4roi():
    return tiny_gpt4roi(seed=1)


@pytest.fixture(scope="module")
def answer(gpt4roi):
    return gpt4roi.session(tiny_image()).ask("Is <region1> like <region2>?", [BOX, OTHER_BOX], max_new_tokens=5)


def whole_pass(gpt4roi, answer):
    """Attentions and logits of transformers' own pass over ids and pixels, with gradients."""
    replay = answer.replay
    inputs = {
        "input_ids": torch.tensor([[*replay.prompt.input_ids, *replay.ids]]),
        "pixel_values": gpt4roi.processor.image_processor(tiny_image())["pixel_values"],
        "boxes": [torch.tensor(replay.boxes) / torch.tensor([64, 48, 64, 48])],
    }
    with eager_attention(gpt4roi.model):
        return gpt4roi.model(**inputs, output_attentions=True)


def test_relevancy_is_that_of_a_straightforward_reference(gpt4roi, answer):
    """Chefer et al. 2021, equations 5 and 6, with whole matrices."""
    prompt, attention = answer.prompt_tokens, answer.attention()
    assert len(gpt4roi.model.language_model.model.layers) == 2
    for token in range(len(answer.tokens)):
        outputs = whole_pass(gpt4roi, answer)
        step = prompt + answer.replay.first + token - 1
        for layer in outputs.attentions:
            layer.retain_grad()
        outputs.logits[0, step, answer.token_ids[token]].backward()
        relevancy = torch.eye(outputs.logits.shape[1])
        for layer in outputs.attentions:
            weighted = (layer.grad[0] * layer[0]).clamp(min=0).mean(dim=0).detach()
            relevancy = relevancy + weighted @ relevancy
        gpt4roi.model.zero_grad()
        expected = (relevancy - torch.eye(len(relevancy)))[step, :prompt]
        found = attention.relevancy(token)
        assert found.shape == (prompt,) and (found >= 0).all() and found.max() > 0
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_relevancy_leaves_no_gradients_and_no_mode_behind(gpt4roi, answer):
    answer.attention().relevancy(-1)
    assert all(parameter.grad is None for parameter in gpt4roi.model.parameters())
    assert gpt4roi.model.language_model.config._attn_implementation == "sdpa"
    with torch.inference_mode():  # as inside another recording
        assert answer.attention().relevancy(0).sum() > 0


def test_without_gradients_relevancy_says_so(gpt4roi, answer):
    """A linear layer whose kernel has no backward pass, as those of some quantised weights."""

    class ForwardOnly(torch.autograd.Function):
        @staticmethod
        def forward(context, states, weight):
            return states @ weight.T

        @staticmethod
        def backward(context, gradient):
            raise NotImplementedError("no backward kernel")

    projection = gpt4roi.model.language_model.model.layers[1].mlp.down_proj
    projection.forward = lambda states: ForwardOnly.apply(states, projection.weight)
    try:
        with pytest.raises(RuntimeError, match=r"relevancy needs gradients.*without quantization.*no backward kernel"):
            answer.attention().relevancy(0)
    finally:
        del projection.forward
    assert answer.attention().relevancy(0).sum() > 0


def test_rollout_multiplies_the_layers(gpt4roi, answer):
    with torch.no_grad():
        outputs = whole_pass(gpt4roi, answer)
    flow = torch.eye(outputs.logits.shape[1])
    for layer in outputs.attentions:
        flow = (0.5 * layer[0].mean(dim=0) + 0.5 * torch.eye(len(flow))) @ flow
    steps = answer.replay.steps
    rollout = answer.attention(layers=0, heads=0).rollout()
    torch.testing.assert_close(rollout, flow[steps, : answer.prompt_tokens], atol=1e-5, rtol=0)
    assert (rollout.sum(dim=-1) <= 1 + 1e-5).all()


def plant_a_sink(gpt4roi):
    """Every text token's query matches the first token's key, in both layers, and no layer undoes that."""
    language = gpt4roi.model.language_model.model
    with torch.no_grad():
        embeddings = language.embed_tokens.weight
        embeddings[:, :2] = 0
        embeddings[:, 1] = 1
        embeddings[1, 0] = 50  # the opening token
        gpt4roi.model.region_encoder.head.output_projection.weight[:2] = 0
        gpt4roi.model.multi_modal_projector.weight[:2] = 0
        for layer in language.layers:
            layer.self_attn.o_proj.weight[:2] = 0
            layer.mlp.down_proj.weight[:2] = 0
            for head in range(4):  # the slowest rotation, so that the distance hardly matters
                layer.self_attn.q_proj.weight[8 * head + 3] = 0
                layer.self_attn.q_proj.weight[8 * head + 3, 1] = 0.9
            for head in range(2):
                layer.self_attn.k_proj.weight[8 * head + 3] = 0
                layer.self_attn.k_proj.weight[8 * head + 3, 0] = 0.9


def test_a_planted_sink_is_found_and_is_massive():
    gpt4roi = tiny_gpt4roi(seed=1)
    plant_a_sink(gpt4roi)
    attention = gpt4roi.session(tiny_image()).ask("What is <region1>?", [BOX], max_new_tokens=5).attention()
    first, *_ = attention.sinks()
    assert (first.position, first.span, first.token, first.massive) == (0, "first token", "<s>", True)
    assert first.attention > first.elsewhere * 0.5 > 0
    assert first.attention > 20 * attention.sink_thresholds["attention"] > 0
    assert first.activation > attention.sink_thresholds["activation"] > 1
    # By hand: the mean share of the first token, times the number of tokens that each step sees.
    rows = attention.weights[..., 0].mean(dim=(0, 1))
    seen = torch.arange(len(rows)) + attention.weights.shape[-1] + attention.weights.new_tensor(0)
    assert first.attention == pytest.approx(float((rows * seen).mean()), rel=1e-4)


def test_without_the_plant_the_first_token_is_no_sink(answer):
    sinks = answer.attention().sinks()
    assert not any(sink.position == 0 or sink.massive for sink in sinks)
    regions = [answer.replay.region(number)[0] for number in (1, 2)]
    assert not any(sink.position in regions for sink in sinks)
