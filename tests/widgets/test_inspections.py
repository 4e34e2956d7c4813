"""Both inspectors, opened from a chat about a tiny model's answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb.capture import Attention
from gpt4roi_nb.widgets import AttentionInspector, RegionChat, RoIInspector

BOXES = [(4.0, 6.0, 30.0, 40.0), (28.0, 10.0, 60.0, 44.0)]
PATIENCE = 60  # seconds; an idle machine needs a tenth of one


@pytest.fixture()
def chat() -> Iterator[RegionChat]:
    chat = RegionChat(tiny_gpt4roi(), tiny_image())
    chat.ask("What is <region1>?", BOXES[:1], max_new_tokens=4)
    yield chat
    chat.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_answers_button_opens_where_it_looked(chat: RegionChat) -> None:
    chat.conversation._handle_custom_msg({"type": "inspect", "turn": 0}, [])
    wait_for(lambda: chat.inspections.inspector is not None and not chat.conversation.busy)
    inspector = chat.inspections.inspector
    assert isinstance(inspector, AttentionInspector) and chat.conversation.problem == ""
    assert inspector.view.answers[0]["tokens"] == chat.answers[0].tokens
    assert chat.inspections.widget.children[1] is inspector.view
    inspector._worker.wait()
    (entry,) = inspector.view.ablations
    assert entry["change"] == pytest.approx(chat.answers[0].ablate(1, generate=False).change.tolist(), abs=1e-3)
    assert inspector.view.token == int(np.argmin(entry["change"]))


def test_a_regions_button_opens_what_it_holds_in_the_place_of_that(chat: RegionChat) -> None:
    chat.inspect_answer()
    chat.set_boxes(BOXES[1:])
    row = chat.canvas.table.regions[1]
    chat.canvas.table._handle_custom_msg({"type": "inspect", "key": row["key"]}, [])
    wait_for(lambda: isinstance(chat.inspections.inspector, RoIInspector) and not chat.conversation.busy)
    inspector = chat.inspections.inspector
    assert inspector.view.region == 2 and [r["box"] for r in inspector.view.regions] == [list(box) for box in BOXES]
    inspector.set_boxes(BOXES[:1])
    assert len(chat.regions) == 2  # boxes there are for looking only
    button = chat.inspections.widget.children[0].children[1]
    button.click()
    assert chat.inspections.inspector is None and chat.inspections.widget.children == ()


def test_another_image_closes_what_was_open(chat: RegionChat) -> None:
    chat.inspect_region(1)
    chat.set_image(tiny_image(1))
    assert chat.inspections.inspector is None


def test_there_must_be_such_an_answer_and_such_a_region(chat: RegionChat) -> None:
    with pytest.raises(IndexError, match="there are 1 answers, numbered from 0, but number is 1"):
        chat.inspect_answer(1)
    with pytest.raises(ValueError, match="there is no region 2; there are 1"):
        chat.inspect_region(2)


def test_an_answer_that_cannot_be_looked_into_says_so_beside_the_question(chat: RegionChat, tmp_path: Path) -> None:
    chat.session.save(tmp_path / "talk.json")
    chat._session = type(chat.session).load(tmp_path / "talk.json", chat.gpt4roi)
    chat.refresh()
    chat.conversation._handle_custom_msg({"type": "inspect", "turn": 0}, [])
    wait_for(lambda: bool(chat.conversation.problem))
    assert "loaded from a file" in chat.conversation.problem and chat.inspections.inspector is None


def test_what_an_inspector_saves_is_shown_again_without_a_model(chat: RegionChat, tmp_path: Path) -> None:
    inspector = chat.inspect_answer()
    inspector._worker.wait()
    inspector.save(tmp_path / "attention.npz")
    again = AttentionInspector(Attention.load(tmp_path / "attention.npz")).view
    for name in ("mass", "maps", "peaks", "tokens", "regions"):
        assert again.answers[0][name] == inspector.view.answers[0][name]
    assert "open the Answer instead" in again.ablations[0]["problem"]
