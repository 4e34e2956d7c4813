"""A chat with models of transformers: what they cannot do has no button, and what they were told can be seen."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from fake_inside import fake_answer
from fakes import FakeGPT4RoI
from PIL import Image
from tiny import tiny_gpt4roi
from tiny_families import tiny_family

from gpt4roi_nb import RegionSession
from gpt4roi_nb.models import PromptedModel, PromptedSession
from gpt4roi_nb.session.region_model import Rendered
from gpt4roi_nb.widgets import AttentionInspector, RegionChat, RoIInspector
from gpt4roi_nb.widgets.attention_data import AttentionData

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8))
A, B = (20.0, 10.0, 80.0, 60.0), (90.0, 40.0, 130.0, 90.0)
FEW = {"max_new_tokens": 4}


def loaded(name: str, way: str | None = None) -> PromptedModel:
    return PromptedModel(*tiny_family(name), way, "tiny")


def heard(chat: RegionChat, **content: Any) -> list[tuple[dict[str, Any], list[bytes]]]:
    """What the browser is sent when it sends a message."""
    sent: list[tuple[dict[str, Any], list[bytes]]] = []
    chat.conversation.send = lambda content, buffers=None: sent.append((content, buffers or []))
    chat.conversation._handle_custom_msg(content, [])
    return sent


def test_it_talks_and_has_no_button_for_what_the_model_cannot_do() -> None:
    chat = RegionChat(loaded("internvl"), PHOTO)
    assert not chat.conversation.inspectable and not chat.canvas.table.inspectable
    assert "unverified" in chat.conversation.about
    chat.ask("What is <region1>?", [A], **FEW)
    answer = chat.ask("Is <region2> left of region 1?", [B], **FEW)
    assert isinstance(chat.session, PromptedSession) and chat.answers[-1] is answer
    assert [turn["regions"] for turn in chat.conversation.turns] == [1, 2]
    with pytest.raises(RuntimeError, match=r"not known where this model's image tokens lie.*look at ablate\(\)"):
        chat.inspect_answer()
    with pytest.raises(ValueError, match="not known where the image's tokens of this model lie"):
        AttentionInspector(answer)
    with pytest.raises(RuntimeError, match="features of a region, which only a GPT4RoI has"):
        chat.inspect_region(1)
    with pytest.raises(TypeError, match=r"RoIInspector takes a GPT4RoI, but PromptedModel\('tiny', internvl"):
        RoIInspector(chat.session)
    chat.undo()
    assert [region.asked for region in chat.regions] == [True, False]
    chat.close()


@pytest.mark.parametrize(("way", "images"), [("text", 1), ("draw", 1), ("full+crop", 3)])
def test_what_the_model_was_told_is_sent_when_it_is_asked_for(way: str, images: int) -> None:
    chat = RegionChat(loaded("qwen3_vl", way), PHOTO)
    chat.ask("What is <region1>?", [A], **FEW)
    chat.ask("Is <region2> left of region 1?", [B], **FEW)
    for turn, answer in enumerate(chat.answers):
        ((content, files),) = heard(chat, type="told", turn=turn)
        assert content["turn"] == turn and content["text"] == answer.told
        assert ["way", way] in content["note"] and any("unverified" in value for _, value in content["note"])
        assert len(files) == (images if turn else max(1, images - 1))
    told = chat.session.render(0)
    assert isinstance(told, Rendered) and told.text == chat.answers[0].told
    with pytest.raises(IndexError, match="has 2 turns"):
        chat.session.render(2)
    if way == "draw":
        pixels = np.asarray(Image.open(io.BytesIO(files[0])).resize(PHOTO.size, Image.Resampling.NEAREST))
        assert (pixels[10, 40] == (255, 0, 0)).all()  # the red rectangle's upper edge
    chat.close()


def test_a_gpt4roi_says_what_it_was_told_too() -> None:
    chat = RegionChat(tiny_gpt4roi(), PHOTO)
    assert chat.conversation.inspectable and chat.canvas.table.inspectable
    chat.ask("What is <region1>?", [A], **FEW)
    chat.ask("And is it left of <region2>?", [B], **FEW)
    ((content, files),) = heard(chat, type="told", turn=1)
    assert "region2<bbox>" in content["text"].replace(" ", "") and "region1" not in content["text"] and len(files) == 1
    chat.close()


def test_a_model_of_tasks_offers_its_tasks_and_refuses_a_second_question_in_words() -> None:
    chat = RegionChat(loaded("florence2"), PHOTO)
    tasks = ["Describe <region1>.", "What category is <region1>?", "What text is in <region1>?"]
    assert chat.conversation.examples == tasks
    chat.set_boxes([A, B])
    assert chat.conversation.examples == tasks
    chat.set_boxes([])
    with pytest.raises(ValueError, match="answers tasks about one region and no free question"):
        chat.ask("Why is <region1> there?", [A])
    assert chat.conversation.problem.startswith("Florence2 answers tasks")
    chat.ask(tasks[0], [A], **FEW)
    over = "This model was made for one question at a time: press New conversation to ask another."
    assert chat.conversation.examples == [] and chat.conversation.notice == over
    chat.refresh()  # as after each cell
    assert chat.conversation.notice == over
    with pytest.raises(ValueError, match="one question at a time"):
        chat.ask("What text is in region 1?")
    chat.undo()
    assert chat.conversation.examples == tasks and chat.conversation.notice == ""
    chat.new_conversation()
    chat.ask(tasks[1], [B], **FEW)
    chat.close()


def test_a_model_of_one_region_is_offered_questions_about_one() -> None:
    chat = RegionChat(loaded("vipllava", "crop"), PHOTO)
    chat.set_boxes([A, B])
    assert all("<region1>" in text and "<region2>" not in text for text in chat.conversation.examples)
    chat.close()
    chat = RegionChat(FakeGPT4RoI(), PHOTO)
    chat.set_boxes([A, B])
    assert any("<region2>" in text for text in chat.conversation.examples)
    chat.close()


def test_a_saved_conversation_opens_with_the_kind_of_session_that_its_model_has(tmp_path) -> None:
    model = loaded("qwen3_vl")
    chat = RegionChat(model, PHOTO)
    chat.ask("What is <region1>?", [A], **FEW)
    chat.save(tmp_path / "talk.json")
    session = RegionSession.load(tmp_path / "talk.json", model)
    assert isinstance(session, PromptedSession)
    again = RegionChat(session)
    assert again.gpt4roi is model and again.regions[0].asked
    again.ask("And why?", **FEW)
    for opened in (chat, again):
        opened.close()


def opened(chat: RegionChat) -> AttentionInspector:
    inspector = chat.inspect_answer()
    inspector._worker.wait()
    return inspector


@pytest.mark.parametrize("name", ["qwen3_vl", "vipllava", "kosmos-2"])
def test_a_map_comes_with_the_tests_that_its_model_takes(name: str) -> None:
    chat = RegionChat(loaded(name), PHOTO)
    assert chat.conversation.inspectable and not chat.canvas.table.inspectable
    answer = chat.ask("What is <region1>?", [A], **FEW)
    inspector = opened(chat)
    view = inspector.view
    assert view.hows == ["remove", "blur"] and view.problem == ""
    (removed,) = view.ablations
    change = answer.ablate(1, generate=False).change
    assert removed["change"] == pytest.approx(change.tolist(), abs=1e-3) and not removed["generated"]
    view._handle_custom_msg({"type": "ablate", "side": 0, "how": "blur"}, [])
    inspector._worker.wait()
    soft = view.ablations[-1]
    assert soft["how"] == "blur" and soft["said"] == answer.ablate(1, "blur").answer and soft["problem"] == ""
    assert view.token == int(np.argmin(removed["change"]))  # the token that loses most without the region
    with pytest.raises(ValueError, match="expected method to be one of raw, but got 'rollout'"):
        inspector.show(0, method="rollout")
    chat.close()


@pytest.mark.parametrize(
    ("name", "frame", "cells"),
    [("qwen3_vl", [0, 0, 140, 100], 20), ("vipllava", [0, -20, 140, 120], 16), ("kosmos-2", [0, 0, 140, 100], 16)],
)
def test_maps_that_are_not_square_and_do_not_fit_the_image_are_sent_with_their_frame(
    name: str, frame: list[int], cells: int
) -> None:
    attention = loaded(name).session(PHOTO).ask("What is <region1>?", [A], **FEW).attention()
    payload = AttentionData(attention).payload()
    assert payload["frame"] == frame and payload["grid"] * payload["columns"] == cells
    assert payload["methods"] == ["raw"] and payload["sinks"] == []
    maps = np.frombuffer(payload["maps"], "<f4").reshape(len(payload["sent"]), len(attention.tokens), cells)
    peaks = np.frombuffer(payload["peaks"], "<f4").reshape(3, 5, len(attention.tokens), 2)
    for (layer, head), sent in zip(payload["sent"], maps, strict=True):
        expected = attention.to_image(1, None if layer < 0 else layer, None if head < 0 else head)
        assert sent[1] == pytest.approx(expected.flatten().numpy(), abs=1e-6)
        assert peaks[layer + 1, head + 1, 1] == pytest.approx(float(expected.max()), abs=1e-6)


def test_two_models_are_compared_by_what_both_take() -> None:
    mine = fake_answer()  # as a GPT4RoI's
    other = loaded("kosmos-2").session(PHOTO).ask("What is <region1>?", [A], **FEW)
    inspector = AttentionInspector(mine, other)
    inspector._worker.wait()
    assert inspector.view.hows == ["remove", "blur"] and {one["side"] for one in inspector.view.ablations} == {0, 1}
    assert [payload["methods"] for payload in inspector.view.answers] == [["raw", "relevancy", "rollout"], ["raw"]]
    inspector.close()
