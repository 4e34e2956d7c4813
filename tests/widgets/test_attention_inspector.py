"""What the attention inspector sends to the browser, and how it handles the replies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from fake_inside import GRID, HEADS, LAYERS, REGION, SINKS, TOKENS, FakeAnswer, FakeAttention, fake_answer
from matplotlib import colormaps
from PIL import Image
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb.draw import region_color
from gpt4roi_nb.widgets import AttentionInspector, attention_data
from gpt4roi_nb.widgets.attention_copy import OPACITY, paint
from gpt4roi_nb.widgets.attention_data import AttentionData
from gpt4roi_nb.widgets.colormaps import SHARES, color_table
from gpt4roi_nb.widgets.static_page import percent


def floats(data: bytes, *shape: int) -> np.ndarray:
    return np.frombuffer(data, "<f4").reshape(shape)


@pytest.fixture()
def attention() -> FakeAttention:
    return FakeAttention()


@pytest.fixture()
def payload(attention: FakeAttention) -> dict[str, Any]:
    return AttentionData(attention).payload()


AXES = (len(LAYERS) + 1, len(HEADS) + 1, len(TOKENS))


def test_the_shares_are_the_weights_and_sum_to_one(attention: FakeAttention, payload: dict[str, Any]) -> None:
    mass = floats(payload["mass"], *AXES, -1)
    assert np.allclose(mass.sum(-1), 1, atol=1e-5)
    names = [span["name"] for span in payload["spans"]]
    assert names == [*attention.spans, "answer so far"]
    region = names.index("region1")
    assert np.allclose(mass[1:, 1:, :, region], attention.weights[..., REGION])
    assert np.allclose(mass[0, 0, :, region], attention.weights[..., REGION].mean((0, 1)))
    assert np.allclose(mass[0, 2, :, region], attention.weights[:, 1, :, REGION].mean(0))
    assert payload["spans"][region]["color"] == region_color(1)


def test_what_lies_on_sinks_is_part_of_the_shares(attention: FakeAttention, payload: dict[str, Any]) -> None:
    on_sinks = floats(payload["on_sinks"], *AXES, -1)
    assert np.allclose(on_sinks[1:, 1:].sum(-1), attention.weights[..., list(SINKS)].sum(-1))
    assert [sink["cell"] for sink in payload["sinks"]] == [-1, 5]


def test_every_map_is_sent_where_they_are_small(attention: FakeAttention, payload: dict[str, Any]) -> None:
    assert len(payload["sent"]) == 3 * 4
    maps = floats(payload["maps"], len(payload["sent"]), len(TOKENS), GRID, GRID)
    for (layer, head), sent in zip(payload["sent"], maps, strict=True):
        for token in range(len(TOKENS)):
            expected = attention.to_image(token, None if layer < 0 else layer, None if head < 0 else head)
            assert np.allclose(sent[token], expected)


def test_of_large_ones_only_the_means_are_sent(attention: FakeAttention, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_data, "EAGER_BYTES", 100)
    payload = AttentionData(attention).payload()
    assert payload["sent"] == [[-1, -1], [0, -1], [1, -1]]
    assert floats(payload["maps"], 3, len(TOKENS), GRID, GRID)[1, 2] == pytest.approx(
        attention.to_image(2, 0).numpy(), abs=1e-6
    )


def test_peaks_are_the_largest_cells_with_and_without_sinks(attention: FakeAttention, payload: dict[str, Any]) -> None:
    peaks = floats(payload["peaks"], *AXES, 2)
    cells = attention.to_image(4, 1, 2).numpy().copy()
    assert peaks[2, 3, 4, 0] == pytest.approx(cells.max())
    cells.flat[5] = 0
    assert peaks[2, 3, 4, 1] == pytest.approx(cells.max())
    assert peaks[0, 0, 4, 0] == pytest.approx(float(attention.to_image(4).max()))


def test_relevancy_and_rollout_come_as_shares(attention: FakeAttention) -> None:
    data = AttentionData(attention)
    relevancy = data.relevancy(2)
    assert relevancy.mass.sum() == pytest.approx(1, abs=1e-5)
    assert relevancy.totals[0] == pytest.approx(float(attention.relevancy(2).sum()), rel=1e-5)
    rollout = data.rollout()
    assert rollout.mass.sum(-1) == pytest.approx(np.ones(len(TOKENS)), abs=1e-5)
    assert rollout.maps[3].ravel() == pytest.approx(attention.rollout()[3, 2:REGION].numpy())


def test_half_precision_is_shown_as_well(attention: FakeAttention) -> None:
    object.__setattr__(attention, "weights", attention.weights.half())
    object.__setattr__(attention, "to_answer", attention.to_answer.half())
    mass = floats(AttentionData(attention).payload()["mass"], *AXES, -1)
    assert np.allclose(mass.sum(-1), 1, atol=2e-3)


# ------------------------------------------------------------------------------------------------------ the widget


def opened(*arguments: Any, **options: Any) -> AttentionInspector:
    """An inspector, after everything that it computes at opening."""
    inspector = AttentionInspector(*arguments, **options)
    inspector._worker.wait()
    return inspector


def tell(inspector: AttentionInspector, **content: Any) -> None:
    """Send a message as the browser does, and wait for its effects."""
    inspector.view._handle_custom_msg(content, [])
    inspector._worker.wait()


class Wire:
    """The messages that an inspector sends, and a way to send to it as the browser does."""

    def __init__(self, inspector: AttentionInspector, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[tuple[dict[str, Any], list[bytes]]] = []
        self.inspector = inspector
        monkeypatch.setattr(
            type(inspector.view), "send", lambda _, content, buffers=None: self.sent.append((content, buffers or []))
        )

    def tell(self, **content: Any) -> None:
        tell(self.inspector, **content)


def test_a_map_that_is_asked_for_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    inspector = AttentionInspector(fake_answer())
    wire = Wire(inspector, monkeypatch)
    wanted = {"type": "map", "side": 0, "method": "raw", "layer": 1, "head": -1, "token": -1}
    wire.tell(**wanted)
    wire.tell(**(wanted | {"method": "relevancy", "token": 2}))
    wire.tell(**(wanted | {"method": "rollout"}))
    (raw, raw_maps), (relevancy, one_map), (rollout, all_maps) = wire.sent
    assert raw == wanted
    expected = inspector.attentions[0].to_image(4, 1)
    assert np.allclose(floats(raw_maps[0], len(TOKENS), GRID, GRID)[4], expected)
    assert len(one_map[0]) == 4 * GRID**2 and np.sum(relevancy["spans"]) == pytest.approx(1, abs=1e-5)
    assert len(all_maps[0]) == 4 * GRID**2 * len(TOKENS) and len(rollout["total"]) == len(TOKENS)


def test_a_map_that_cannot_be_made_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(AttentionInspector(fake_answer()), monkeypatch)
    wire.tell(type="map", side=0, method="relevancy", layer=-1, head=-1, token=3)
    ((reply, _),) = wire.sent
    assert reply["type"] == "failed"
    assert reply["problem"] == "This model gives no gradients; load it without quantization."


def test_the_ablations_verdict_is_there_from_the_beginning() -> None:
    answer = fake_answer()
    (entry,) = opened(answer).view.ablations
    assert answer.ablated == [(1, "remove", False)]
    assert entry["verdicts"][0] == "without region 1 the log-probability of 'a' changes by -3.0"
    assert len(entry["verdicts"]) == len(entry["change"]) == len(TOKENS)


def test_other_tests_are_made_once_and_their_failures_told() -> None:
    answer = fake_answer()
    inspector = opened(answer)
    view = inspector.view
    for how in ("blur", "blur", "swap"):
        tell(inspector, type="ablate", side=0, how=how)
    assert answer.ablated == [(1, "remove", False), (1, "blur", True), (1, "swap", True)]
    assert view.ablations[1]["said"] == "a blue star"
    assert view.ablations[2]["problem"] == "There is no other region to swap with; give box=."


def test_what_the_model_would_say_comes_when_the_page_asks_for_it() -> None:
    answer = fake_answer()
    inspector = opened(answer)
    view = inspector.view
    (opening,) = view.ablations
    for _ in range(2):
        tell(inspector, type="ablate", side=0, how="remove")
    assert answer.ablated == [(1, "remove", False), (1, "remove", True)]
    assert not opening["generated"] and opening["said"] == ""
    assert view.ablations == [{**opening, "generated": True, "said": "a blue star"}]


def test_a_test_that_failed_can_be_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = fake_answer()
    inspector = opened(answer)
    view = inspector.view
    real = type(answer).ablate

    def out_of_memory(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(answer), "ablate", out_of_memory)
    tell(inspector, type="ablate", side=0, how="blur")
    assert "not enough memory" in view.ablations[1]["problem"]
    monkeypatch.setattr(type(answer), "ablate", real)
    tell(inspector, type="ablate", side=0, how="blur")
    assert len(view.ablations) == 2 and view.ablations[1]["said"] == "a blue star" and not view.ablations[1]["problem"]


def test_after_training_a_test_says_that_it_would_be_of_another_model() -> None:
    gpt4roi = tiny_gpt4roi(seed=1)
    answer = gpt4roi.session(tiny_image()).ask("What is <region1>?", [(4, 4, 40, 40)], max_new_tokens=3)
    inspector = AttentionInspector(answer)
    inspector._worker.wait()
    assert [entry["problem"] for entry in inspector.view.ablations] == [""]
    with gpt4roi.training_step(), torch.no_grad():
        gpt4roi.model.multi_modal_projector.bias += 1
    inspector.view._handle_custom_msg({"type": "ablate", "side": 0, "how": "blur"}, [])
    inspector._worker.wait()
    assert "the model was trained after" in inspector.view.ablations[-1]["problem"].lower()
    inspector.close()


def test_an_attention_by_itself_is_shown_without_a_test() -> None:
    (entry,) = opened(FakeAttention()).view.ablations
    assert entry["verdicts"] == [] and "cannot be tested; open the Answer" in entry["problem"]


def test_a_saved_notebook_tells_what_was_shown() -> None:
    inspector = opened(fake_answer())
    inspector.show(2, layer=1, head=0)
    attention = inspector.attentions[0]
    page, text = inspector._to_read()
    assert "Attention, layer 1, head 0, of “star” (token 3 of 7)." in text and "data:image/jpeg;base64," in page
    cells = attention.to_image(2, 1, 0)
    assert f"from 0 to {percent(float(cells.max()))} per cell" in text
    assert f"region 1  {percent(float(attention.mass(1, 0)['region1'][2]))}\n" in text
    assert "Test (remove): " in text and "log-probability of ' star'" in text

    inspector.show(2, method="relevancy", hide_sinks=True)
    assert "Attention, mean of the layers" in inspector._to_read()[1]  # of a map that was not computed
    tell(inspector, type="map", side=0, method="relevancy", token=2)
    scores = attention.relevancy(2)
    share = scores[attention.spans["region1"][0]] / scores.sum()
    text = inspector._to_read()[1]
    assert "Gradient-weighted relevancy, of “star”" in text and f"region 1  {percent(float(share))}\n" in text
    assert "first token  0 %" in text  # a hidden sink


def test_the_map_of_a_saved_notebook_has_the_colours_of_the_page() -> None:
    cells = np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)
    image = Image.new("RGB", (40, 20), (200, 200, 200))
    painted = np.asarray(paint(image, cells, hidden=[1])).astype(int)
    table = np.frombuffer(color_table(SHARES), np.uint8).reshape(-1, 3)
    for (x, y), step in {(5, 5): 0, (5, 15): 128, (35, 15): 255}.items():
        assert painted[y, x] == pytest.approx(OPACITY * table[step] + (1 - OPACITY) * 200, abs=2)
    assert painted[5, 35].tolist() == [200, 200, 200]


def test_two_answers_stand_side_by_side() -> None:
    inspector = opened(fake_answer(0), fake_answer(1, regions=0))
    assert inspector.view.compare and len(inspector.view.answers) == 2
    assert not torch.equal(inspector.attentions[0].weights, inspector.attentions[1].weights)
    assert [entry["side"] for entry in inspector.view.ablations] == [0]


def test_python_chooses_what_is_shown() -> None:
    inspector = AttentionInspector(fake_answer(), token=-1)
    assert inspector.view.token == len(TOKENS) - 1
    inspector.show(2, second=5, layer=1, head=None, method="rollout", hide_sinks=True, span="image")
    view = inspector.view
    assert (view.token, view.second, view.compare, view.layer, view.head) == (2, 5, True, 1, -1)
    assert (view.method, view.hide_sinks, view.span) == ("rollout", True, "image")


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"token": 7}, IndexError, "there is no token 7; the answer has 7"),
        ({"layer": 9}, ValueError, "no layer 9 in this attention; there are 0, 1"),
        ({"head": 3}, ValueError, "no head 3"),
        ({"method": "gradcam"}, ValueError, "expected method to be one of raw, relevancy, rollout"),
        ({"span": "region2"}, ValueError, "there is no span 'region2'"),
    ],
)
def test_what_there_is_not_cannot_be_chosen(wrong: dict[str, Any], error: type[Exception], words: str) -> None:
    inspector = opened(fake_answer())
    before = inspector.view.get_state()
    with pytest.raises(error, match=words):
        inspector.show(**{"scale": "relative", **wrong})
    assert inspector.view.get_state() == before


class SlowAnswer(FakeAnswer):
    """An answer whose ablations wait for `gate`; `started` says that one runs."""

    gate, started = threading.Event(), threading.Event()

    def ablate(self, region: int, how: str, *, generate: bool = True) -> Any:
        self.started.set()
        assert self.gate.wait(60)
        return super().ablate(region, how, generate=generate)


@pytest.fixture()
def slow_answer() -> Iterator[SlowAnswer]:
    SlowAnswer.gate.clear(), SlowAnswer.started.clear()
    yield SlowAnswer(**vars(fake_answer()))
    SlowAnswer.gate.set()


def test_tests_run_in_the_background_and_the_page_says_so(slow_answer: SlowAnswer) -> None:
    inspector = AttentionInspector(slow_answer)
    assert inspector.view.busy == "Testing region 1 (remove)…" and inspector.view.ablations == []
    wanted = {"type": "map", "side": 0, "method": "raw", "layer": 1, "head": -1, "token": -1}
    inspector.view._handle_custom_msg(wanted, [])  # recorded maps need not wait
    slow_answer.gate.set()
    inspector._worker.wait()
    assert inspector.view.busy == "" and len(inspector.view.ablations) == 1


def test_a_token_that_was_chosen_meanwhile_stays(slow_answer: SlowAnswer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AttentionInspector, "_neediest", lambda *_: 4)
    chosen, clicked, neither = (AttentionInspector(slow_answer) for _ in range(3))
    chosen.show(0)
    clicked.view.set_state({"token": 2})
    slow_answer.gate.set()
    for inspector in (chosen, clicked, neither):
        inspector._worker.wait()
    assert [inspector.view.token for inspector in (chosen, clicked, neither)] == [0, 2, 4]


def test_another_test_takes_the_place_of_those_that_wait(slow_answer: SlowAnswer) -> None:
    inspector = AttentionInspector(slow_answer)
    for how in ("blur", "position_only", "move"):
        inspector.view._handle_custom_msg({"type": "ablate", "side": 0, "how": how}, [])
    slow_answer.gate.set()
    inspector._worker.wait()
    assert slow_answer.ablated == [(1, "remove", False), (1, "move", True)]


def test_closing_while_a_test_runs_neither_waits_nor_shows_it(slow_answer: SlowAnswer) -> None:
    inspector = AttentionInspector(slow_answer)
    assert slow_answer.started.wait(60)
    inspector.close()
    (thread,) = inspector._worker._executor._threads
    assert thread.is_alive()
    slow_answer.gate.set()
    thread.join(60)
    assert not thread.is_alive() and inspector.view.ablations == []


def test_what_is_no_answer_is_refused() -> None:
    with pytest.raises(TypeError, match="expected an Answer or an Attention, but got a str"):
        AttentionInspector("a red star")


def test_the_colors_are_matplotlibs() -> None:
    colors = np.frombuffer(AttentionInspector(fake_answer()).view.colors, np.uint8).reshape(256, 3)
    assert np.array_equal(colors[200], np.round(np.array(colormaps["viridis"](200)[:3]) * 255))
