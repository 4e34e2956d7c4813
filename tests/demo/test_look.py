"""`demo.look` ablates the region that was asked about, and measures right answers alone."""

import numpy as np
import pytest

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.capture import ABLATIONS, MAPS
from gpt4roi_nb.data.scenes.scene import make_scene, scene_seed
from gpt4roi_nb.demo import FIRST_RESERVED_SERIES, look


@pytest.fixture
def gpt4roi(model, processor, monkeypatch):
    monkeypatch.setattr(look, "MAX_NEW_TOKENS", 4)
    return GPT4RoI(model, processor, "untrained")


def test_the_second_region_is_the_one_asked_about(gpt4roi, monkeypatch):
    seen = []
    monkeypatch.setattr(look, "is_right", lambda question, text: not seen.append((question, text)))
    scene = make_scene(scene_seed(2, 0))
    answer = look.ask_about_the_second(gpt4roi, scene, np.random.default_rng(0), "colour")
    ((question, _),) = seen
    other, asked = look.answer_boxes(answer)
    assert asked == tuple(map(float, scene.objects[question.objects[0]].box)) != other
    words = [answer.attention().prompt_tokens[p] for p in answer.attention().spans["question"]]
    assert "region2" in "".join(words).replace(" ", "")


def test_wrong_answers_are_left_out(gpt4roi, monkeypatch):
    monkeypatch.setattr(look, "is_right", lambda question, text: False)
    found = look.ablation_study(gpt4roi, 1, seed=2)
    assert (found["n"], found["asked"]) == (0, 1)
    assert look.map_study(gpt4roi, 1, 2, "phrase", "both") is None


def test_the_study_reports_every_way_and_every_map(gpt4roi, monkeypatch):
    monkeypatch.setattr(look, "is_right", lambda question, text: True)
    monkeypatch.setattr(look, "STEPS", 2)
    found = look.study(gpt4roi, 2, 1, seed=2)
    assert set(found["ablation"]["change"]) == set(ABLATIONS) and found["ablation"]["n"] == 2
    mean, error = found["ablation"]["change"]["remove"]["asked"]
    assert mean != 0 and error >= 0
    assert [(one["kind"], one["over"], one["n"]) for one in found["maps"]] == [(*each, 1) for each in look.SETTINGS]
    assert all(set(one["maps"]) == {*MAPS, "random"} for one in found["maps"])
    text = look.report(found)
    assert all(name in text for name in (*ABLATIONS, *MAPS, "2 right answers of 2"))


def test_scenes_of_training_are_refused(gpt4roi):
    with pytest.raises(ValueError, match="seed must lie between 0"):
        look.study(gpt4roi, 1, 1, FIRST_RESERVED_SERIES)
