"""The embedded demo checkpoint is what the notebook and the README promise, on scenes that nothing was trained on."""

import json

import numpy as np
import pytest
import torch

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.checkpoint import DEMO_CHECKPOINT
from gpt4roi_nb.data.questions import ONE_REGION, compound, is_right
from gpt4roi_nb.data.scenes import CATEGORIES, COLOURS, scenes
from gpt4roi_nb.demo.check import measure, model_answerer
from gpt4roi_nb.demo.curriculum import draw_conversation

MEGABYTE = 1_000_000
MARGIN_ABOVE_CHANCE = 0.15
BARS = {"category": 0.95, "colour": 0.95, "material": 0.95, "size": 0.95, "phrase": 0.90}
CHANCE = {"category": 1 / len(CATEGORIES), "colour": 1 / len(COLOURS)}
SCENES = 150


@pytest.fixture(scope="module")
def gpt4roi():
    return GPT4RoI.from_pretrained()


@pytest.fixture(scope="module")
def figures(gpt4roi):
    return measure(model_answerer(gpt4roi.model, gpt4roi.processor), SCENES, seed=2024)


def test_it_is_small():
    assert sum(path.stat().st_size for path in DEMO_CHECKPOINT.iterdir()) <= 20 * MEGABYTE


def test_it_says_what_it_is(gpt4roi):
    assert gpt4roi.is_demo
    assert "photographs" in gpt4roi.about


def test_its_record_holds_the_recipe_and_its_figures():
    record = json.loads((DEMO_CHECKPOINT / "recipe.json").read_text())

    assert {"recipe", "seed", "steps", "check"} <= set(record)
    for kind, bar in BARS.items():
        assert record["check"]["accuracy"][kind] >= bar
    for kind, chance in CHANCE.items():
        assert record["check"]["shuffled"][kind] <= chance + MARGIN_ABOVE_CHANCE


def test_all_its_weights_are_finite(gpt4roi):
    assert all(torch.isfinite(parameter).all() for parameter in gpt4roi.model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ONE_REGION)
def test_it_names_what_is_in_a_region(figures, kind):
    assert figures["accuracy"][kind] >= BARS[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", CHANCE)
def test_with_another_box_it_names_something_else(figures, kind):
    assert figures["shuffled"][kind] <= CHANCE[kind] + MARGIN_ABOVE_CHANCE


def test_it_answers_a_question_in_two_parts_about_two_regions(gpt4roi):
    rng = np.random.default_rng(0)
    right = []
    for scene in scenes(31, 20):
        question = compound(scene, rng)
        boxes = [scene.objects[k].box for k in question.objects]
        right.append(is_right(question, gpt4roi.session(scene.image).ask(question.text, boxes).text))

    assert np.mean(right) >= 0.75


def test_a_conversation_of_three_turns_does_not_lead_it_astray(gpt4roi):
    rng = np.random.default_rng(0)
    right = []
    for scene in scenes(32, 20):
        talk = draw_conversation(scene, 3, rng, {"phrase": 1.0})
        session = gpt4roi.session(scene.image)
        known = 0
        for role, text in talk.turns:
            if role == "user":
                named = [k for k in range(known, len(talk.objects)) if f"<region{k + 1}>" in text]
                answer = session.ask(text, [scene.objects[talk.objects[k]].box for k in named])
                known += len(named)
        if talk.last.kind in ONE_REGION:
            right.append(is_right(talk.last, answer.text))

    assert np.mean(right) >= 0.75
