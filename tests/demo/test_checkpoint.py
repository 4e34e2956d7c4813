"""The embedded demo checkpoint is what the notebook and the README promise, on scenes that nothing was trained on."""

import json

import numpy as np
import pytest
import torch

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.checkpoint.load import DEMO_CHECKPOINT
from gpt4roi_nb.data.scenes.questions import ONE_REGION, Question, ask, compound, is_right
from gpt4roi_nb.data.scenes.scene import scenes
from gpt4roi_nb.demo.check.answerer import model_answerer
from gpt4roi_nb.demo.check.bars import missed
from gpt4roi_nb.demo.check.examine import examine
from gpt4roi_nb.demo.check.queries import query_of
from gpt4roi_nb.demo.recipe.curriculum import draw_conversation
from gpt4roi_nb.widgets.examples import GOOD_OF_IMAGE, GOOD_OF_ONE, GOOD_OF_TWO

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


def test_what_it_was_told_ends_as_the_question_does(gpt4roi):
    """Its tokenizer makes one token of a question mark and the line break that the format adds."""
    session = gpt4roi.session(np.zeros((40, 40, 3), np.uint8))
    told = []
    for text, boxes in (("What is <region1>?", [(4, 4, 30, 30)]), ("Which?", ()), ("Describe it.", ()), ("Why", ())):
        session.ask(text, boxes, max_new_tokens=1)
        told.append(session.render().text.replace(" ", ""))
    assert told == ["Whatisregion1<bbox>?", "Which?", "Describeit.", "Why"]


def test_all_its_weights_are_finite(gpt4roi):
    assert all(torch.isfinite(parameter).all() for parameter in gpt4roi.model.parameters())


@pytest.mark.slow
def test_it_holds_its_bars_on_fresh_scenes(gpt4roi):
    """On scenes of another seed than the record's: nothing was chosen on these."""
    assert missed(examine(gpt4roi, 150, seed=2024)) == []


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


@pytest.mark.slow
def test_it_answers_the_questions_well_that_the_chat_suggests_first(gpt4roi):
    """As the scene's own questions of the same words are judged."""
    suggested = {text.format(a="<region1>", b="<region2>") for text in (*GOOD_OF_IMAGE, *GOOD_OF_ONE, *GOOD_OF_TWO)}
    kinds = ("phrase", "category", "colour", "material", "size", "same", "left_right", "count")
    rng = np.random.default_rng(0)
    answer = model_answerer(gpt4roi)
    right: dict[str, list[bool]] = {text: [] for text in suggested}
    for scene in scenes(33, 60):
        drawn: dict[str, Question] = {}
        for _ in range(400):
            for question in (*(ask(scene, kind, rng) for kind in kinds), compound(scene, rng)):
                if question is not None and question.text in suggested:
                    drawn[question.text] = question
        questions = list(drawn.values())
        answers = answer([(scene, query_of(question)) for question in questions])
        for question, text in zip(questions, answers, strict=True):
            right[question.text].append(is_right(question, text))

    assert {text: len(verdicts) for text, verdicts in right.items() if len(verdicts) < 20} == {}
    for text, verdicts in right.items():
        assert np.mean(verdicts) >= (0.85 if text in GOOD_OF_IMAGE else 0.9), text
