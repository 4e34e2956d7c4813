"""NaN never becomes an answer: whatever causes it, asking and scoring raise an error with the likely cause."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb.finite import log_probabilities, not_finite

BOX = (3, 4, 30, 40)
QUESTION = "What is <region1>?"
NAN = float("nan")


@pytest.fixture
def gpt4roi():
    return tiny_gpt4roi(seed=1)


def damage_weights(gpt4roi):
    gpt4roi.model.language_model.lm_head.weight.data[7, 3] = NAN


def damage_region_encoder(gpt4roi):
    next(gpt4roi.model.region_encoder.parameters()).data.fill_(float("inf"))


def damage_epsilon(gpt4roi):
    gpt4roi.model.language_model.model.norm.variance_epsilon = NAN


def damage_statistics(gpt4roi):
    gpt4roi.processor.image_processor.image_std = [0.0, 0.0, 0.0]


def overflow_float16(gpt4roi):
    gpt4roi.model.to(torch.float16)
    for layer in gpt4roi.model.language_model.model.layers:
        layer.mlp.down_proj.weight.data.fill_(60_000.0)


CASES = pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            damage_weights,
            "in float32: 1 of its weights hold NaN or infinity, first language_model.lm_head.weight; load it",
        ),
        (damage_region_encoder, "in float32: 1 of its weights hold NaN or infinity, first region_encoder"),
        (damage_epsilon, r"in float32: its weights are finite, so a constant of config\.json"),
        (damage_statistics, r".* the normalisation of images \(image_mean, image_std\) is likely wrong"),
        (overflow_float16, "in float16: its weights are finite, .* too large. float16 ends at 65,504; load"),
    ],
)


@CASES
@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_asking_says_why_there_are_no_probabilities(gpt4roi, damage, words, temperature):
    damage(gpt4roi)
    session = gpt4roi.session(tiny_image())
    for ask in (
        lambda: session.ask(QUESTION, [BOX], temperature=temperature),
        lambda: session.describe([BOX], temperature=temperature),
        lambda: list(session.stream(QUESTION, [BOX], temperature=temperature)),
    ):
        with pytest.raises(FloatingPointError, match=f"the model computes NaN instead of probabilities, {words}"):
            ask()
    assert session.history == () and session.regions == ()


def test_a_session_goes_on_when_the_weights_are_mended(gpt4roi):
    session = gpt4roi.session(tiny_image())
    weight = gpt4roi.model.language_model.lm_head.weight
    kept = weight.detach().clone()
    damage_weights(gpt4roi)
    with pytest.raises(FloatingPointError):
        session.ask(QUESTION, [BOX])
    with torch.no_grad():
        weight.copy_(kept)
    assert session.ask(QUESTION, [BOX], max_new_tokens=3).token_ids


def test_what_looks_into_an_answer_says_it_too(gpt4roi):
    answer = gpt4roi.session(tiny_image()).ask(QUESTION, [BOX], max_new_tokens=3)
    damage_weights(gpt4roi)
    for look in (lambda: answer.occlusion(2), answer.attention):
        with pytest.raises(FloatingPointError, match=r"first language_model\.lm_head\.weight"):
            look()


def test_what_looks_into_a_region_says_it_too(gpt4roi):
    damage_region_encoder(gpt4roi)
    session = gpt4roi.session(tiny_image())
    with pytest.raises(
        FloatingPointError, match=r"NaN instead of region features, in float32: .* first region_encoder"
    ):
        session.roi_features([BOX])


def test_attention_that_is_nan_is_none(gpt4roi):
    answer = gpt4roi.session(tiny_image()).ask(QUESTION, [BOX], max_new_tokens=3)
    gpt4roi.model.language_model.model.layers[1].self_attn.q_proj.weight.data.fill_(NAN)
    with pytest.raises(FloatingPointError, match=r"NaN instead of attention, in float32: .*q_proj"):
        answer.attention()


@pytest.mark.parametrize("logits", [[0.0, -float("inf")], [-1e30, 1e30], [3.0, 3.0]])
def test_single_tokens_without_probability_are_no_error(gpt4roi, logits):
    assert log_probabilities(torch.tensor([logits]), gpt4roi.model).exp().sum().item() == pytest.approx(1)


@pytest.mark.parametrize("logits", [[0.0, NAN], [0.0, float("inf")], [-float("inf")] * 2])
def test_one_bad_row_is_an_error(gpt4roi, logits):
    with pytest.raises(FloatingPointError):
        log_probabilities(torch.tensor([[1.0, 2.0], logits]), gpt4roi.model)


def test_a_sum_that_overflows_is_no_infinity():
    layer = torch.nn.Linear(2, 2)
    layer.weight.data.fill_(3e38)
    assert not_finite(layer) == []
