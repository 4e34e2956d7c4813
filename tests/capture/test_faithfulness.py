"""Curves and areas of maps whose faithfulness is known."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb.capture import MAPS, faithfulness

BOX, OTHER_BOX = (3, 4, 30, 40), (20, 8, 60, 44)


@pytest.fixture(scope="module")
def answers():
    gpt4roi = tiny_gpt4roi(seed=1)
    return [
        gpt4roi.session(tiny_image(seed)).ask("Is <region1> like <region2>?", [BOX, OTHER_BOX], max_new_tokens=4)
        for seed in (0, 1)
    ]


def one_at_a_time(answer, tokens):
    """How much the tokens lose when one prompt token is replaced by the baseline: faithful by construction."""
    replay = answer.replay
    prompt = replay.embeddings()
    image = replay.prompt.spans["image"]
    rows = prompt.repeat(len(image), 1, 1)
    for row, position in enumerate(image):
        rows[row, position] = prompt[0, image].mean(dim=0)
    lost = replay.log_probabilities(prompt) - replay.log_probabilities(rows)
    scores = torch.zeros(answer.prompt_tokens)
    scores[image] = lost[:, list(tokens)].mean(dim=-1)
    return scores


def test_a_faithful_map_beats_random_and_its_opposite(answers):
    maps = {"faithful": one_at_a_time, "opposite": lambda answer, tokens: -one_at_a_time(answer, tokens)}
    found = faithfulness(maps, answers, over="image", steps=8)
    deletion, insertion = found.deletion_area, found.insertion_area
    assert deletion["faithful"] < deletion["random"] < deletion["opposite"]
    assert insertion["faithful"] > insertion["random"] > insertion["opposite"]
    gain, error = found.against_random("faithful")["deletion"]
    assert gain > 0 and error >= 0
    assert gain == pytest.approx(deletion["random"] - deletion["faithful"], abs=1e-6)


def test_curves_begin_and_end_where_they_must(answers):
    found = faithfulness(list(MAPS), answers, over="both", steps=4, random_maps=2)
    whole = torch.tensor([torch.tensor(answer.logprobs).mean().exp() for answer in answers]).mean()
    assert set(found.deletion) == {*MAPS, "random"} and found.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    for name in found.deletion:
        torch.testing.assert_close(found.deletion[name][0], whole, atol=1e-4, rtol=0)
        torch.testing.assert_close(found.insertion[name][-1], whole, atol=1e-4, rtol=0)
        torch.testing.assert_close(found.deletion[name][-1], found.insertion[name][0])
        area = torch.trapezoid(found.deletion[name], found.fractions)
        assert found.deletion_area[name] == pytest.approx(float(area), abs=1e-6)
    assert [line.split()[0] for line in found.table().splitlines()] == ["map", "raw", "rollout", "relevancy", "random"]


def test_a_curve_by_hand(answers):
    """Half of the image tokens, those that the map scores highest, are replaced by the mean image token."""
    answer, replay = answers[0], answers[0].replay
    image = torch.tensor(replay.prompt.spans["image"])
    scores = torch.zeros(answer.prompt_tokens)
    scores[image] = torch.randn(len(image), generator=torch.Generator().manual_seed(3))
    found = faithfulness({"mine": lambda *_: scores}, [answer], steps=2, tokens=lambda _: [1, 2])
    changed = replay.embeddings().clone()
    gone = image[scores[image].topk(8).indices]
    changed[0, gone] = replay.embeddings()[0, image].mean(dim=0)
    expected = replay.log_probabilities(changed)[0, [1, 2]].mean().exp()
    torch.testing.assert_close(found.deletion["mine"][1], expected, atol=1e-5, rtol=0)


def test_the_same_seed_gives_the_same_control(answers):
    areas = [
        faithfulness(["rollout"], answers[:1], steps=3, random_maps=2, seed=seed).deletion_area["random"]
        for seed in (0, 0, 1)
    ]
    assert areas[0] == areas[1] != areas[2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"maps": ["guess"]}, "there is no map 'guess'; use one of raw attention, rollout, relevancy"),
        ({"maps": {}}, "give at least one map"),
        ({"maps": {"random": one_at_a_time}}, "none may be called 'random'"),
        (
            {"maps": {"short": lambda *_: torch.zeros(3)}},
            "must give one score for each of .* but gave .* shape \\(3,\\)",
        ),
        ({"over": "words"}, "over must be one of image, regions, both, but is 'words'"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"answers": []}, "there are no answers"),
        ({"tokens": lambda _: []}, "has no tokens in question"),
    ],
)
def test_bad_arguments_are_said(answers, arguments, says):
    with pytest.raises(ValueError, match=says):
        faithfulness(**{"maps": ["raw attention"], "answers": answers[:1], "steps": 2, **arguments})
