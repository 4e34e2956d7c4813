"""The embedded demo checkpoint is what the notebook and the README promise, on scenes that nothing was trained on."""

import json

import numpy as np
import pytest
import torch

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.checkpoint.load import DEMO_CHECKPOINT
from gpt4roi_nb.data.scenes.questions import ONE_REGION, compound, is_right
from gpt4roi_nb.data.scenes.scene import scenes
from gpt4roi_nb.demo.check import measure, model_answerer
from gpt4roi_nb.demo.check.bars import NEWCOMER_BARS_HELD, missed
from gpt4roi_nb.demo.check.examine import examine
from gpt4roi_nb.demo.recipe.curriculum import draw_conversation

MEGABYTE = 1_000_000
SCENES = 300


@pytest.fixture(scope="module")
def gpt4roi():
    return GPT4RoI.from_pretrained()


def test_it_is_small():
    assert sum(path.stat().st_size for path in DEMO_CHECKPOINT.iterdir()) <= 20 * MEGABYTE


def test_it_says_what_it_is(gpt4roi):
    assert gpt4roi.is_demo
    assert "photographs" in gpt4roi.about


def test_its_record_holds_the_recipe_and_its_figures():
    record = json.loads((DEMO_CHECKPOINT / "recipe.json").read_text())

    assert {"recipe", "seed", "steps", "check"} <= set(record)
    assert record["check"]["scenes"] >= SCENES
    assert missed(record["check"]) == []


def test_all_its_weights_are_finite(gpt4roi):
    assert all(torch.isfinite(parameter).all() for parameter in gpt4roi.model.parameters())


@pytest.mark.slow
def test_it_holds_its_bars_on_fresh_scenes(gpt4roi):
    """On scenes of another seed than the record's: nothing was chosen on these."""
    if NEWCOMER_BARS_HELD:
        figures = examine(gpt4roi, SCENES, seed=2024)
    else:
        figures = measure(model_answerer(gpt4roi), SCENES, seed=2024, newcomer=False)
    assert missed(figures) == []


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
