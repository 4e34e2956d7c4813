"""The failure browser, used by clicks and from Python: without a database, and with a real one and the real App."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import anywidget
import pytest
from fakes import FakeGPT4RoI
from predictions import make_images, make_predictions

from gpt4roi_nb.evaluate import Result
from gpt4roi_nb.failures import add_attention, add_features
from gpt4roi_nb.failures import app as app_of_fiftyone
from gpt4roi_nb.failures.app import HUB_PREFIX, NO_LOGIN, START_PAGE, App
from gpt4roi_nb.failures.database import WAYS_OUT, NoDatabase
from gpt4roi_nb.failures.rows import rows_of
from gpt4roi_nb.widgets import FailureBrowser
from gpt4roi_nb.widgets import failure_browser as module

PATIENCE = 60  # seconds


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return make_predictions(make_images(tmp_path_factory.mktemp("images"), 12))


@pytest.fixture()
def browser(result: Result) -> FailureBrowser:
    return FailureBrowser(result, FakeGPT4RoI())


def tell(browser: FailureBrowser, **content: Any) -> None:
    """Send a message as the browser does, and wait for its effects."""
    browser.panel._handle_custom_msg(content, [])
    browser._worker.wait()


def chart(browser: FailureBrowser, name: str) -> dict[str, tuple[int, int]]:
    (found,) = [chart for chart in browser.panel.charts if chart["name"] == name]
    return {bar["value"]: (bar["wrong"], bar["total"]) for bar in found["bars"]}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


# ---------------------------------------------------------------------------------------------------- the counts


def test_the_bars_count_what_the_table_holds(browser, result) -> None:
    table = result.predictions
    for dimension in ("kind", "size_bin"):
        for value, (wrong, total) in chart(browser, dimension).items():
            rows = table[table[dimension] == value]
            assert (wrong, total) == ((~rows["correct"]).sum(), len(rows))
    wrong = (~table["correct"]).sum()
    assert browser.panel.summary == f"48 predictions, {wrong} wrong ({100 * wrong / 48:.1f}%)"
    assert sum(total for _, total in chart(browser, "error_kind").values()) == wrong
    assert browser.panel.title == "toys · tiny (0a1b2c)"


def test_one_chart_tells_slices_and_right_answers_where_they_are_the_same(result) -> None:
    def names(browser: FailureBrowser) -> set[str]:
        return {chart["name"] for chart in browser.panel.charts}

    table = result.predictions
    alike = FailureBrowser(replace(result, predictions=table.assign(kind=table["target"])), FakeGPT4RoI())
    other = FailureBrowser(replace(result, predictions=table.assign(kind="thing")), FakeGPT4RoI())
    assert "kind" in names(alike) and "target" not in names(alike) and "target" in names(other)
    tell(alike, type="toggle", dimension="kind", value=table["target"][0])
    assert "target" not in names(alike)
    alike.where(target=table["target"][0])
    assert "target" in names(alike)


def test_a_click_filters_the_other_charts_and_a_second_one_lets_go(browser, result) -> None:
    before = browser.panel.charts
    tell(browser, type="toggle", dimension="kind", value="ring")
    rings = result.predictions[result.predictions["kind"] == "ring"]
    assert set(browser.table["id"]) == set(rings["id"]) and browser.panel.filtered
    assert sum(total for _, total in chart(browser, "size_bin").values()) == len(rings)
    assert len(chart(browser, "kind")) == 5  # its own chart still shows what else there is to choose
    tell(browser, type="toggle", dimension="kind", value="star")
    assert set(browser.table["kind"]) == {"ring", "star"}
    tell(browser, type="toggle", dimension="size_bin", value="small")
    assert set(browser.table["size_bin"]) == {"small"}
    tell(browser, type="clear")
    assert browser.panel.charts == before and not browser.panel.filtered
    assert len(browser.where(kind=["ring", "moon"], error_kind="format").table) == sum(
        row["kind"] in ("ring", "moon") and row["error_kind"] == "format" for row in rows_of(result)
    )
    with pytest.raises(ValueError, match="expected dimensions among kind"):
        browser.where(colour="red")


# ----------------------------------------------------------------------------------------- without any database


def test_failures_come_into_the_conversation_without_a_database(browser, result) -> None:
    loaded = browser.where(kind="ring").load_selection()
    table = result.predictions.set_index("id")
    assert loaded and all(table["kind"][item] == "ring" and not table["correct"][item] for item in loaded)
    surest = [table["logprob"][item] for item in loaded]
    assert surest == sorted(surest, reverse=True)
    assert browser.chat.conversation.draft == "What is <region1>?"
    assert [list(region.box) for region in browser.chat.regions] == table["boxes"][loaded[0]]
    assert browser.panel.loaded[0]["target"] == table["target"][loaded[0]]
    assert browser.panel.loaded[0]["question"] == "What is region 1?"  # as people read it
    text = browser._to_read()[1]  # what a saved notebook shows
    assert f"expected  {table['target'][loaded[0]]}" in text and browser.panel.summary in text
    (bar,) = [bar for bar in chart(browser, "kind").items() if bar[0] == "ring"]
    assert "ring  {} of {} wrong".format(*bar[1]) in text

    assert str(browser.ask()) == "You asked: What is <region1>?"
    assert browser.chat.conversation.draft == ""
    tell(browser, type="show", index=1)
    assert browser.current == loaded[1]
    assert [list(region.box) for region in browser.chat.regions] == table["boxes"][loaded[1]]
    assert browser.chat.answers == [] and browser.chat.conversation.draft == "What is <region1>?"


def test_bad_ids_and_empty_selections_are_said_in_words(browser) -> None:
    with pytest.raises(ValueError, match="'nowhere' is none of them"):
        browser.load(["nowhere"])
    with pytest.raises(RuntimeError, match="nothing is loaded"):
        browser.ask()
    with pytest.raises(ValueError, match="nothing is loaded to tag"):
        browser.tag("odd")
    tell(browser, type="toggle", dimension="kind", value="no such kind")
    tell(browser, type="load")
    assert browser.panel.problem.startswith("No failure passes the filters, so there is nothing to load; clear them")
    assert browser.panel.busy == ""
    right = browser.result.predictions.assign(correct=True)
    without = FailureBrowser(replace(browser.result, predictions=right))
    tell(without, type="load")  # without a filter
    assert without.panel.problem.startswith("No prediction is judged wrong, so there is no failure to load")
    without.close()
    with pytest.raises(TypeError, match="expected a Result first"):
        FailureBrowser(FakeGPT4RoI())


def test_more_than_are_loaded_at_a_time_are_counted(browser, monkeypatch) -> None:
    wrong = len(browser.load_selection())
    assert browser.panel.notice == ""
    monkeypatch.setattr(module, "MAX_LOADED", 3)
    tell(browser, type="load")
    assert len(browser.loaded) == 3
    assert browser.panel.notice.startswith(f"3 of {wrong} are loaded; to get the others, filter, or select fewer")
    browser.where(kind="ring", size_bin="small")
    tell(browser, type="load")
    assert 0 < len(browser.loaded) <= 3 and browser.panel.notice == ""


def test_the_databases_folder_is_told_to_whatever_connects(result, monkeypatch, tmp_path) -> None:
    told = []

    def connect(folder: Any = None) -> None:
        told.append(folder)
        raise NoDatabase("none here")

    monkeypatch.setattr("gpt4roi_nb.failures.dataset.connect", connect)
    monkeypatch.setattr("gpt4roi_nb.failures.tags.connect", connect)
    browser = FailureBrowser(result, database_folder=tmp_path)
    vectors = {item: [1.0] for item in result.predictions["id"]}
    for use in (
        lambda: browser.tags,
        browser.open_app,
        lambda: browser.tag("odd", ["toys/0/0"]),
        lambda: add_features(result, vectors=vectors, database_folder=tmp_path),
        lambda: add_attention(result, FakeGPT4RoI(), [], database_folder=tmp_path),
    ):
        with pytest.raises(NoDatabase):
            use()
    assert told == [tmp_path] * 5


def test_without_a_model_the_regions_are_shown(result) -> None:
    browser = FailureBrowser(result)
    browser.load(["toys/2/1"])
    (shown,) = browser._talk.children
    assert shown.value[:4] == b"\x89PNG"
    with pytest.raises(RuntimeError, match="nothing is loaded to ask about"):
        browser.ask()


def test_without_a_database_the_panel_says_the_three_ways_out_and_goes_on(browser, result, monkeypatch) -> None:
    def nothing(*_: Any, **__: Any) -> None:
        raise NoDatabase(WAYS_OUT)

    monkeypatch.setattr("gpt4roi_nb.failures.dataset.connect", nothing)
    tell(browser, type="open")
    assert browser.panel.problem == WAYS_OUT and not browser.panel.app_open
    tell(browser, type="load")
    assert browser.panel.problem == "" and browser.loaded
    tell(browser, type="tag", name="odd", all=True)
    assert browser.panel.problem == WAYS_OUT
    assert result.gallery({"correct": False}) is not None


def test_inspectors_get_what_they_look_into(browser, monkeypatch) -> None:
    class Inspector(anywidget.AnyWidget):
        closed = False

        def __init__(self, given: Any, boxes: Any = None, region: int | None = None) -> None:
            super().__init__()
            self.given, self.boxes, self.region = given, boxes, region
            self.view = self.widget = self

        def close(self) -> None:
            super().close()
            self.closed = True

    monkeypatch.setattr("gpt4roi_nb.widgets.region_chat.AttentionInspector", Inspector)
    monkeypatch.setattr("gpt4roi_nb.widgets.region_chat.RoIInspector", Inspector)
    browser.load(["toys/2/1", "toys/3/1"])
    assert [entry["name"] for entry in browser.panel.inspectors] == ["attention", "regions"]
    opened = browser.chat.inspections
    tell(browser, type="inspect", name="regions")
    assert browser.panel.problem == ""
    features = opened.inspector
    assert features.given is browser.chat.session and features.region == 1
    assert features.boxes == [tuple(box) for box in browser._rows["toys/2/1"]["boxes"]]
    tell(browser, type="inspect", name="attention")
    assert browser.panel.problem == ""
    attention = opened.inspector
    assert attention.given is browser.chat.answers[-1]  # it was asked for that
    browser.show(1)
    assert opened.inspector is None
    browser.inspect("regions")
    last = opened.inspector
    browser.close()
    assert [inspector.closed for inspector in (features, attention, last)] == [True] * 3


def test_undo_does_not_lead_to_another_failure(browser) -> None:
    browser.load(["toys/2/1", "toys/3/1"])
    browser.ask()
    image = browser.chat.session.image
    browser.show(1)
    assert browser.chat.session.image is not image
    assert not browser.chat.conversation.earlier and browser.chat.conversation.notice == ""


def test_what_the_model_computes_for_a_click_keeps_nothing_waiting(browser) -> None:
    begun, goes_on = threading.Event(), threading.Event()
    session = browser.model.session

    def slow_session(image: Any) -> Any:
        begun.set()
        assert goes_on.wait(PATIENCE)
        return session(image)

    browser.model.session = slow_session
    browser.panel._handle_custom_msg({"type": "load"}, [])
    assert begun.wait(PATIENCE) and browser.panel.busy == "Loading…" and browser.loaded == []
    browser.panel._handle_custom_msg({"type": "toggle", "dimension": "kind", "value": "ring"}, [])
    assert set(browser.table["kind"]) == {"ring"} and browser.panel.busy == "Loading…"
    browser.panel._handle_custom_msg({"type": "load"}, [])  # ignored while something else runs
    goes_on.set()
    browser._worker.wait()
    assert len({browser._rows[item]["kind"] for item in browser.loaded}) > 1 and browser.panel.busy == ""


def test_closing_while_something_is_loaded_neither_waits_nor_keeps_it(browser) -> None:
    begun, goes_on = threading.Event(), threading.Event()
    session = browser.model.session

    def slow_session(image: Any) -> Any:
        begun.set()
        assert goes_on.wait(PATIENCE)
        return session(image)

    browser.model.session = slow_session
    browser.panel._handle_custom_msg({"type": "load"}, [])
    assert begun.wait(PATIENCE)
    (thread,) = browser._worker._executor._threads
    browser.close()
    assert thread.is_alive()
    goes_on.set()
    thread.join(PATIENCE)
    assert not thread.is_alive() and browser.chat is None


class BrokenSession:
    """FiftyOne's session after its thread has lost the App's server: setting anything raises an error, as there."""

    def __init__(self) -> None:
        self._client = SimpleNamespace(_connected=False)
        self.shown: list[object] = []

    def refresh(self) -> None:
        if not self._client._connected:
            raise RuntimeError("Client is not connected")
        self.shown.append("refreshed")


def test_what_is_shown_waits_for_a_connection_that_broke(monkeypatch) -> None:
    opened = App.__new__(App)
    opened.session = BrokenSession()
    later = threading.Timer(0.2, lambda: setattr(opened.session._client, "_connected", True))
    later.start()
    opened.refresh()
    assert opened.session.shown == ["refreshed"]

    opened.session._client._connected = False
    monkeypatch.setattr(app_of_fiftyone, "CONNECT_SECONDS", 0)
    with pytest.raises(RuntimeError, match="did not answer within 0 seconds; close it and open it again"):
        opened.refresh()


# ------------------------------------------------------------------------------ a real database and a real App


@pytest.mark.slow
def test_a_selection_in_the_app_is_loaded_asked_and_tagged(fiftyone, browser, monkeypatch) -> None:
    monkeypatch.setenv(HUB_PREFIX, "/user/ada/")
    try:
        browser.where(size_bin="small")
        tell(browser, type="open")
        assert browser.panel.problem == ""
        app = browser.app
        # As the hub's proxy passes it on, with a warning about who else can reach the port.
        below = f"/user/ada/proxy/{app.port}/"
        assert app.url.startswith(f"{below}?proxy={below}")
        assert browser.frame.url == f"{below}media?filepath={START_PAGE}#{app.url.removeprefix(below)}"
        assert browser.panel.notice == NO_LOGIN.format(port=app.port)
        dataset = fiftyone.load_dataset("toys")
        shown = app.session.view.values(f"{browser.field}.detections.size_bin", unwind=True)
        assert set(shown) == {"small"}

        ids = dict(
            zip(
                *dataset.values([f"{browser.field}.detections.item", f"{browser.field}.detections.id"], unwind=True),
                strict=True,
            )
        )
        app.session.select_labels(ids=[ids["toys/3/0"], ids["toys/1/0"]])
        wait_for(lambda: len(app.selected[0]) == 2)
        tell(browser, type="load")
        assert browser.panel.problem == "" and set(browser.loaded) == {"toys/3/0", "toys/1/0"}

        tell(browser, type="tag", name="odd", all=True)
        assert browser.panel.problem == "" and browser.tags == {"odd": 2}
        assert chart(browser, "tag").keys() == {"odd"}
        tell(browser, type="clear")
        tell(browser, type="toggle", dimension="tag", value="odd")
        assert set(browser.table["id"]) == {"toys/3/0", "toys/1/0"}

        app.session.selected_labels = []
        tell(browser, type="clear")
        sample = dataset.match(fiftyone.ViewField("filepath") == browser.table["image"][8]).first()
        app.session.select_samples(ids=[sample.id])
        wait_for(lambda: app.selected[1] == [sample.id])
        wrong = {row["id"] for row in rows_of(browser.result) if row["id"].startswith("toys/2/") and not row["correct"]}
        assert wrong and set(browser.load_selection()) == wrong

        fiftyone.delete_dataset("toys")
        tell(browser, type="load")
        assert browser.panel.problem.startswith("There is no dataset 'toys' any more")
        tell(browser, type="open")  # makes it anew
        assert browser.panel.problem == "" and len(fiftyone.load_dataset("toys")) == 12
    finally:
        browser.close()


@pytest.mark.slow
def test_patches_are_selected_one_by_one(fiftyone, browser) -> None:
    try:
        assert browser.open_app().session.view.name == "tiny: failures"  # nothing is filtered
        dataset = fiftyone.load_dataset("toys")
        patches = dataset.to_patches(browser.field)
        browser.app.session.view = patches
        chosen = patches.skip(5).first()
        browser.app.session.select_samples(ids=[chosen.id])
        wait_for(lambda: browser.app.selected[1] == [chosen.id])
        assert browser.load_selection() == [chosen[browser.field].item]
    finally:
        browser.close()


@pytest.mark.slow
def test_the_app_comes_back_where_it_lost_its_server_and_its_dataset(fiftyone, browser, monkeypatch) -> None:
    from fiftyone.core.session import client

    streams = []
    plain = client.requests.post

    def post(*args: Any, **kwargs: Any) -> Any:
        response = plain(*args, **kwargs)
        if kwargs.get("stream"):
            streams.append(response)
        return response

    monkeypatch.setattr(client.requests, "post", post)
    try:
        session = browser.open_app().session
        wait_for(lambda: len(streams) == 1)
        fiftyone.delete_dataset("toys")
        streams[0].raw._connection.sock.shutdown(socket.SHUT_RDWR)
        wait_for(lambda: not session._client._connected)

        browser.open_app()  # makes it anew

        wait_for(lambda: len(streams) > 1)
        assert session._client._connected and session.dataset is fiftyone.load_dataset("toys")
        browser.where(size_bin="small")
        view = browser.open_app().session.view
        assert set(view.values(f"{browser.field}.detections.size_bin", unwind=True)) == {"small"}
    finally:
        browser.close()
