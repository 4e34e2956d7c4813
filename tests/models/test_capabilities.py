"""What a model cannot do is refused in words, before anything runs."""

from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image
from tiny_families import FAMILIES as TINY
from tiny_families import tiny_family

from gpt4roi_nb import load_model
from gpt4roi_nb.failures import add_features
from gpt4roi_nb.models import FAMILIES, PromptedModel
from gpt4roi_nb.models.families import default_question
from gpt4roi_nb.session.region_model import Question
from gpt4roi_nb.train import train

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8))
BOX, OTHER = (20.0, 10.0, 80.0, 60.0), (70.0, 40.0, 130.0, 90.0)
TWO = "Is <region1> larger than <region2>?"
EVERY_WAY = [(name, way) for name in TINY for way in FAMILIES[name].ways]


@pytest.fixture()
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("the model was run")

    for name in ("gpt4roi_nb.models.images.encode", "gpt4roi_nb.models.prompted_session.reader_of",
                 "gpt4roi_nb.models.batching.reader_of", "gpt4roi_nb.models.replay.reader_of"):  # fmt: skip
        monkeypatch.setattr(name, run)


def loaded(name: str, way: str | None = None) -> PromptedModel:
    return PromptedModel(*tiny_family(name), way, "tiny")


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(("name", "way"), EVERY_WAY)
def test_what_it_cannot_do_is_refused_wherever_it_is_asked(name: str, way: str) -> None:
    model = loaded(name, way)
    can = model.capabilities
    asked: list[tuple[str, list[Any]]] = []
    if not can.free_question:
        asked.append(("Why is <region1> there?", [BOX]))
        asked.append((default_question(way, name).replace("<region1>", "it"), []))
    if not can.several_regions:
        asked.append((TWO, [BOX, OTHER]))
    session = model.session(IMAGE)
    for text, boxes in asked:
        for ask in (
            lambda text, boxes: session.ask(text, boxes),
            lambda text, boxes: session.stream(text, boxes),
            lambda text, boxes: model.render(IMAGE, text, boxes),
            lambda text, boxes: model.likelihoods(IMAGE, text, boxes, ["a", "b"]),
            lambda text, boxes: model.answers([Question(IMAGE, text, boxes)]),
        ):
            with pytest.raises(ValueError, match=f"{name} (answers tasks|was made for one image)"):
                ask(text, boxes)
    with pytest.raises(ValueError, match="pools no features of a region; only a GPT4RoI does"):
        session.roi_features([BOX])
    assert session.history == ()
    if can.free_question and can.several_regions:  # what it can do is not refused: it runs
        with pytest.raises(AssertionError, match="was run"):
            session.ask(TWO, [BOX, OTHER])


@pytest.mark.parametrize("name", TINY)
def test_a_second_question_is_refused_or_answered_as_it_says(name: str) -> None:
    model = loaded(name)
    session = model.session(IMAGE)
    question = default_question(model.way, name)
    session.ask(question, [BOX], max_new_tokens=2)
    if model.capabilities.follow_ups:
        session.ask("And why?", max_new_tokens=2)
    else:
        with pytest.raises(ValueError, match=r"one question at a time.*reset\(\).*describe\(\)"):
            session.ask("And why?", max_new_tokens=2)


def test_attention_of_a_class_whose_layers_are_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt4roi_nb.models.loaded_family.attention_modules", lambda _: [])
    model = loaded("internvl")
    assert not model.capabilities.attention
    answer = model.session(IMAGE).ask("What is <region1>?", [BOX], max_new_tokens=2)
    for look in (answer.attention, answer.attention_size):
        with pytest.raises(RuntimeError, match="what internvl computes is not recorded here"):
            look()


def test_what_only_a_gpt4roi_does_says_so() -> None:
    model: Any = loaded("vipllava")
    for call in (
        lambda: train(model, data="d", images="i", output="o", stage=1),
        lambda: add_features(None, model),
    ):
        with pytest.raises(TypeError, match=r"takes a GPT4RoI, but PromptedModel\('tiny', vipllava"):
            call()
    everything = load_model(device="cpu").capabilities
    assert (
        str(everything)
        == "free question, several regions, follow ups, likelihood, attention, attention map, roi features"
    )
