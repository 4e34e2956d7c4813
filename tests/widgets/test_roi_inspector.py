"""What the region inspector sends to the browser, on a tiny model, and how it follows the boxes."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb import RegionSession
from gpt4roi_nb.draw import region_color
from gpt4roi_nb.widgets import RoIInspector
from gpt4roi_nb.widgets.errors import OUT_OF_MEMORY
from gpt4roi_nb.widgets.roi_data import COLORINGS, bars, box_rows, image_rows, similarity_to_place
from gpt4roi_nb.widgets.roi_inspector import HINT

BOXES = [(4.0, 6.0, 30.0, 40.0), (28.0, 10.0, 60.0, 44.0)]


@pytest.fixture(scope="module")
def session() -> RegionSession:
    return tiny_gpt4roi().session(tiny_image())


@pytest.fixture(scope="module")
def features(session: RegionSession) -> Any:
    return session.roi_features(BOXES, rounds=True)


def values(entry: dict[str, Any]) -> np.ndarray:
    side = entry["columns"]
    flat = np.frombuffer(entry["values"], "<f4")
    return flat.reshape((-1, side) if flat.size % 3 or flat.size == side**2 else (-1, side, 3))


def test_norms_are_the_lengths_of_the_vectors_on_one_scale_a_row(features: Any) -> None:
    rows = image_rows(features, 0, "norm")
    norms = features.norms()
    assert len(rows) == 2 + len(features.fusion_rounds)
    for row, expected in zip(rows, (norms["levels"], norms["input_convs"]), strict=False):
        assert [entry["label"] for entry in row["maps"]] == ["level 0", "level 1"]
        for entry, level in zip(row["maps"], expected, strict=True):
            assert values(entry) == pytest.approx(level.numpy(), rel=1e-5)
        assert row["low"] == 0 and row["high"] == pytest.approx(max(float(level.max()) for level in expected))
    assert values(rows[-1]["maps"][1]) == pytest.approx(norms["fused_maps"][1].numpy(), rel=1e-5)


def test_the_boxes_grids_are_those_of_the_chosen_region(features: Any) -> None:
    norms = features.norms()
    pooled, heads = box_rows(features, 1, "norm")
    for level in range(2):
        assert values(pooled["maps"][level]) == pytest.approx(norms["pooled"][level][1].numpy(), rel=1e-5)
        assert values(heads["maps"][level]) == pytest.approx(norms["head_outputs"][level][1].numpy(), rel=1e-5)


def test_components_have_the_same_colors_in_both_frames(features: Any) -> None:
    pca = features.pca("fused_maps")
    shown = values(image_rows(features, 0, "three components")[-1]["maps"][0])
    assert shown == pytest.approx(torch.movedim(pca.maps[0], 0, -1).numpy(), abs=1e-5)
    along = torch.einsum("kc,chw->khw", pca.components, features.pooled[0][1] - pca.mean[:, None, None])
    scaled = (along - pca.low[:, None, None]) / (pca.high - pca.low)[:, None, None]
    (pooled, _) = box_rows(features, 1, "component 2")
    assert values(pooled["maps"][0]) == pytest.approx(scaled[1].clamp(0, 1).numpy(), abs=1e-5)


@pytest.mark.parametrize("coloring", COLORINGS)
def test_every_coloring_stays_within_its_scale(features: Any, coloring: str) -> None:
    for row in image_rows(features, 0, coloring) + box_rows(features, 0, coloring):
        for entry in row["maps"]:
            shown = values(entry)
            assert np.isfinite(shown).all()
            assert shown.min() >= row["low"] - 1e-5 and shown.max() <= row["high"] + 1e-5


def test_a_place_is_most_like_itself(features: Any) -> None:
    found = similarity_to_place(features, 1, 0, 2, 3).numpy()
    assert found[2, 3] == pytest.approx(1, abs=1e-5)
    assert found.max() <= 1 + 1e-5 and found.shape == tuple(features.input_convs[0].shape[1:])
    maps = features.input_convs[0]
    centred = maps - maps.mean((1, 2), keepdim=True)
    expected = torch.cosine_similarity(centred[:, 0, 1], centred[:, 2, 3], dim=0)
    assert found[0, 1] == pytest.approx(float(expected), abs=1e-5)


def test_the_bars_sum_to_the_token(features: Any) -> None:
    parts = bars(features, 1)
    assert [part["name"] for part in parts] == ["level 0", "level 1", "position", "bias"]
    assert sum(part["share"] for part in parts) == pytest.approx(1, abs=1e-3)


# ------------------------------------------------------------------------------------------------------ the widget


def opened(*arguments: Any, **options: Any) -> RoIInspector:
    """An inspector, after everything that it computes at opening."""
    inspector = RoIInspector(*arguments, **options)
    inspector._worker.wait()
    return inspector


def tell(inspector: RoIInspector, **content: Any) -> None:
    """Send a message as the browser does, and wait for its effects."""
    inspector.view._handle_custom_msg(content, [])
    inspector._worker.wait()


def test_it_begins_with_the_sessions_regions_or_one_in_the_middle(session: RegionSession) -> None:
    assert RoIInspector(session).view.regions[0]["box"] == [24, 18, 40, 30]
    session.ask("What is <region1>?", boxes=BOXES[:1], max_new_tokens=1)
    view = RoIInspector(session).view
    assert view.regions == [{"number": 1, "color": region_color(1), "box": list(BOXES[0])}]
    session.reset()


def test_after_a_training_in_place_all_maps_are_of_the_new_weights() -> None:
    gpt4roi = tiny_gpt4roi(seed=3)
    inspector = opened(gpt4roi.session(tiny_image()), BOXES)
    before = inspector.view.get_state()
    with gpt4roi.training_step(), torch.no_grad():
        for weight in gpt4roi.model.region_encoder.parameters():
            weight.add_(0.1)
    inspector.set_boxes([*BOXES[:-1], (2.0, 3.0, 22.0, 33.0)])
    inspector._worker.wait()
    fresh = opened(gpt4roi.session(tiny_image()), [*BOXES[:-1], (2.0, 3.0, 22.0, 33.0)])
    assert inspector.view.rows == fresh.view.rows != before["rows"]
    assert inspector.view.bars == fresh.view.bars != before["bars"]


def moved(inspector: RoIInspector, region: int, **place: int) -> None:
    """Move a box as the mouse does."""
    shown = [dict(entry) for entry in inspector.canvas.bbox.bboxes]
    shown[region - 1] |= place
    inspector.canvas.bbox.set_state({"bboxes": shown})


def test_it_looks_into_the_region_that_is_moved_drawn_or_clicked(session: RegionSession) -> None:
    inspector = opened(session, BOXES)
    view, canvas = inspector.view, inspector.canvas
    moved(inspector, 2, x=3)
    assert view.region == 2
    canvas.bbox.set_state({"selected_index": 0})
    assert view.region == 1
    canvas.bbox.set_state({"selected_index": 7})  # as Tab past the last one leaves it
    assert view.region == 1
    canvas.table._handle_custom_msg({"type": "add"}, [])
    assert view.region == 3
    canvas.table._handle_custom_msg({"type": "remove", "key": canvas.regions[0].key}, [])
    assert view.region == 2  # the same one, by its new number
    box = canvas.regions[1].box
    inspector._worker.wait()
    assert f"Region 2 is {round(box[2] - box[0])} × " in view.summary
    inspector.set_boxes(BOXES)
    assert view.region == 2


def test_its_hint_is_about_looking_and_not_about_asking(session: RegionSession) -> None:
    inspector = opened(session, BOXES)
    assert inspector.canvas.table.notice == HINT
    inspector.canvas.bbox.set_state({"bboxes": inspector.canvas.bbox.bboxes[:1]})
    inspector.canvas.table.notice = ""  # as the canvas takes a notice back
    assert inspector.canvas.table.notice == HINT


def test_moving_the_box_updates_what_depends_on_it(session: RegionSession) -> None:
    inspector = opened(session, BOXES)
    view = inspector.view
    before = view.get_state()
    state = {"x": 2, "y": 3, "width": 20, "height": 30, "label": "region1"}
    shown = [dict(entry) for entry in inspector.canvas.bbox.bboxes]
    inspector.canvas.bbox.set_state({"bboxes": [{**shown[0], **state}, *shown[1:]]})  # as the mouse does
    inspector._worker.wait()
    scale = inspector.canvas.bbox.bboxes[1]["width"] / (BOXES[1][2] - BOXES[1][0])
    assert view.regions[0]["box"] == pytest.approx([2 / scale, 3 / scale, 22 / scale, 33 / scale])
    expected = bars(session.roi_features([view.regions[0]["box"]]), 0)
    assert view.bars == expected != before["bars"]
    assert view.box_rows != before["box_rows"] and view.rows == before["rows"]
    assert view.problem == ""


def test_clicks_choose_a_region_and_a_coloring(session: RegionSession) -> None:
    inspector = opened(session, BOXES)
    view = inspector.view
    one = view.box_rows
    tell(inspector, type="region", number=2)
    assert view.region == 2 and view.box_rows != one
    tell(inspector, type="coloring", name="similarity")
    assert view.rows[0]["coloring"] == "similarity"
    tell(inspector, type="region", number=7)
    assert view.problem == "There is no region 7; there are 2, numbered from 1."


def test_a_place_under_the_mouse_is_answered(session: RegionSession, monkeypatch: pytest.MonkeyPatch) -> None:
    inspector = opened(session, BOXES)
    sent = []
    monkeypatch.setattr(type(inspector.view), "send", lambda _, content, buffers=None: sent.append((content, buffers)))
    place = {"type": "similarity", "stage": 0, "level": 1, "row": 3, "column": 2}
    inspector.view._handle_custom_msg(place, [])
    ((content, buffers),) = sent
    assert content == place
    assert np.frombuffer(buffers[0], "<f4").reshape(4, 4)[3, 2] == pytest.approx(1, abs=1e-5)


def test_the_control_asks_with_position_and_features_alone(session: RegionSession) -> None:
    inspector = opened(session, BOXES, region=2)
    tell(inspector, type="control")
    (answer,) = session.describe([BOXES[1]])
    assert inspector.view.problem == ""
    assert [entry["name"] for entry in inspector.view.controls] == [
        "the whole region token", "its position alone", "its features alone",
    ]  # fmt: skip
    assert inspector.view.controls[0]["said"] == answer.text
    assert inspector.view.controls[1]["said"] == answer.ablate(region=1, how="position_only").answer
    text = inspector._to_read()[1]
    assert "What is region 2?\nthe whole region token  " in text
    inspector.set_boxes(BOXES[:1])
    assert inspector.view.controls == [] and inspector.view.region == 1


def test_without_a_box_it_waits_for_one(session: RegionSession) -> None:
    inspector = opened(session, BOXES[:1])
    inspector.set_boxes([])
    inspector._worker.wait()
    assert inspector.view.bars == [] and inspector.view.summary.startswith("Draw a box")
    inspector.set_boxes(BOXES)
    inspector._worker.wait()
    assert inspector.view.region == 1 and inspector.view.bars


class SlowSession:
    """A session whose features wait for `gate`; `asked` has the requested boxes, and the thread of each request."""

    def __init__(self, session: RegionSession) -> None:
        self._session = session
        self.gate, self.started = threading.Event(), threading.Event()
        self.asked: list[tuple[list[Any], threading.Thread]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def roi_features(self, boxes: Any, **options: Any) -> Any:
        self.asked.append((list(boxes), threading.current_thread()))
        self.started.set()
        assert self.gate.wait(60)
        return self._session.roi_features(boxes, **options)


def test_of_moves_while_it_computes_only_the_last_is_computed_and_shown(session: RegionSession) -> None:
    slow = SlowSession(session)
    inspector = RoIInspector(slow, BOXES[:1])
    assert slow.started.wait(60)
    assert inspector.view.busy and inspector.view.bars == []
    shown: list[Any] = []
    inspector.view.observe(lambda change: shown.append(change["new"]), "bars")
    for right in (40.0, 50.0, 60.0):
        inspector.set_boxes([(4.0, 6.0, right, 40.0)])
    assert inspector.view.regions[0]["box"] == [4, 6, 60, 40]
    slow.gate.set()
    features = inspector.features  # waits
    assert [boxes[0][2] for boxes, _ in slow.asked] == [30, 60]
    assert threading.main_thread() not in [thread for _, thread in slow.asked]
    assert shown == [bars(session.roi_features([(4, 6, 60, 40)]), 0)]
    assert features.boxes[0, 2] == 60 / session.image.width and inspector.view.busy == ""


def test_closing_while_it_computes_neither_waits_nor_shows_it(session: RegionSession) -> None:
    slow = SlowSession(session)
    inspector = RoIInspector(slow, BOXES)
    assert slow.started.wait(60)
    inspector.close()
    (_, thread) = slow.asked[0]
    assert thread.is_alive()
    slow.gate.set()
    thread.join(60)
    assert not thread.is_alive() and inspector.view.bars == []


def test_what_goes_wrong_is_said_and_the_next_move_works(
    session: RegionSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspector = opened(session, BOXES)
    real = type(session).roi_features

    def out_of_memory(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(session), "roi_features", out_of_memory)
    inspector.set_boxes(BOXES[1:])
    inspector._worker.wait()
    assert inspector.view.problem == OUT_OF_MEMORY and inspector.view.busy == ""
    monkeypatch.setattr(type(session), "roi_features", real)
    inspector.set_boxes(BOXES)
    inspector._worker.wait()
    assert inspector.view.problem == "" and inspector.view.bars


def test_a_saved_notebook_tells_what_the_region_is_made_of(session: RegionSession) -> None:
    inspector = opened(session, BOXES, region=2)
    page, text = inspector._to_read()
    assert "data:image/jpeg;base64," in page and inspector.view.summary in text
    for part in inspector.view.bars:
        assert f"{part['name']}  {100 * part['share']:.1f} %" in text
    assert "region 2  cosine 1.000" in text


def test_an_answer_calls_the_region_by_the_readers_number(
    session: RegionSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspector = opened(session, BOXES, region=2)
    said = SimpleNamespace(text="region1 is red", ablate=lambda **_: SimpleNamespace(answer="region 1 is blue"))
    monkeypatch.setattr(session, "describe", lambda *_, **__: [said])
    tell(inspector, type="control")
    assert {entry["said"] for entry in inspector.view.controls} == {"region 2 is red", "region 2 is blue"}


def test_a_region_that_there_is_not_is_refused(session: RegionSession) -> None:
    with pytest.raises(ValueError, match="there is no region 3; there are 2"):
        RoIInspector(session, BOXES, region=3)
