"""Training's questions are worded otherwise, and never as a held-out wording."""

import re

import numpy as np
import pytest

from gpt4roi_nb.data.scenes.open_questions import ALL_KINDS, ask
from gpt4roi_nb.data.scenes.scene import make_scene
from gpt4roi_nb.demo.recipe.loosened import is_held_out, loosened

SCENE = make_scene(3)


def questions(kind, count, *, held_out):
    rng = np.random.default_rng(0)
    drawn = (ask(SCENE, kind, rng, held_out=held_out) for _ in range(count))
    return [question.text for question in drawn if question is not None]


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_held_out_wordings_are_known_as_such_and_training_has_none(kind):
    assert all(is_held_out(text) for text in questions(kind, 40, held_out=True))
    # The regions' order is not compared, so one wording of training is like a held-out one.
    seen = [text for text in questions(kind, 40, held_out=False) if not re.match(r"(?i)does <.* have the same", text)]
    assert not any(is_held_out(text) for text in seen)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_question_is_changed_but_not_into_a_held_out_one_and_keeps_its_regions(kind):
    rng = np.random.default_rng(1)
    texts = questions(kind, 60, held_out=False)
    changed = [loosened(rng, text) for text in texts]
    assert 0.2 < np.mean([old != new for old, new in zip(texts, changed, strict=True)]) < 0.8
    for old, new in zip(texts, changed, strict=True):
        assert old == new or not is_held_out(new)
        assert re.findall(r"<region\d>", new) == re.findall(r"<region\d>", old)


def test_a_change_that_makes_a_held_out_wording_is_not_made():
    rng = np.random.default_rng(0)
    assert {loosened(rng, "Which object is the largest?") for _ in range(400)} > {"Which object is the largest?"}
    rng = np.random.default_rng(0)
    assert "Which object is the biggest?" not in {loosened(rng, "Which object is the largest?") for _ in range(400)}
