"""One failure under several models: the browser shows their stored answers, and asks all of them again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fakes import FakeGPT4RoI
from predictions import make_images, make_predictions
from tiny_families import tiny_family

from gpt4roi_nb.evaluate import Result
from gpt4roi_nb.models import PromptedModel
from gpt4roi_nb.widgets import FailureBrowser

PATIENCE = 60  # seconds
ITEM = "toys/2/1"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Result]:
    """Of two checkpoints, which answer the same questions."""
    images = make_images(tmp_path_factory.mktemp("images"), 12)
    return make_predictions(images), make_predictions(images, seed=1, checkpoint="other 9f8e7d6c")


@pytest.fixture()
def browser(results: tuple[Result, Result]) -> FailureBrowser:
    return FailureBrowser(list(results), [FakeGPT4RoI(), FakeGPT4RoI(lambda text: f"Who asks {text}")])


def told_as(result: Result, way: str, **told: str) -> Result:
    """The result of a model that was told boxes in another way."""
    return replace(result, card=replace(result.card, way=way, told=told))


def send(browser: FailureBrowser, **content: Any) -> None:
    """Send a message of the columns as the browser does, and wait for its effects."""
    browser.side_by_side.view._handle_custom_msg(content, [])
    browser.side_by_side._worker.wait()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def last(browser: FailureBrowser) -> list[tuple[str, str]]:
    return [(one["text"], one["state"]) for one in browser.side_by_side.view.turns[-1]["answers"]]


def test_the_title_names_each_model_and_its_way(results) -> None:
    first, second = results
    drawn = told_as(second, "draw", colours="red, lime", line_width="3 pixels where")
    assert FailureBrowser([first, drawn]).panel.title == (
        "toys · A: tiny (0a1b2c), region tokens · B: other (9f8e7d), draw, red, 3 pixels"
    )
    assert FailureBrowser(first).panel.title == "toys · tiny (0a1b2c)"
    assert FailureBrowser(told_as(first, "crop")).panel.title == "toys · tiny (0a1b2c), crop"


def test_stored_answers_stand_side_by_side_and_all_are_asked_again(browser, results) -> None:
    browser.load([ITEM])
    rows = [result.predictions.set_index("id").loc[ITEM] for result in results]
    view = browser.side_by_side.view
    assert [one["answer"] for one in view.stored] == [row["answer"] for row in rows]
    assert [one["wrong"] for one in view.stored] == [not row["correct"] for row in rows]
    assert all(one["verdict"].startswith("wrong: ") == one["wrong"] for one in view.stored)
    assert bytes(view.image[:4]) == b"\x89PNG" and view.line == "What is <region1>?" and view.turns == []
    assert browser.panel.loaded[0]["answer"] is None and browser.panel.loaded[0]["target"] == rows[0]["target"]

    send(browser, type="ask", text=view.line)
    assert last(browser) == [("You asked: What is <region1>?", "done"), ("Who asks What is <region1>?", "done")]
    answers = browser.ask_all("Is region 1 red?")
    assert [str(answer) for answer in answers] == ["You asked: Is <region1> red?", "Who asks Is <region1> red?"]
    assert [turn["question"] for turn in view.turns] == ["What is <region1>?", "Is region 1 red?"]
    boxes = tuple(tuple(box) for box in rows[0]["boxes"])
    for one in browser._compared:  # each question in a conversation of its own, with the box
        assert one.model.asked == [("What is <region1>?", boxes), ("Is <region1> red?", boxes)]
    assert not view.stoppable and view.busy == ""

    browser.load(["toys/3/1"])
    assert view.turns == [] and view.line == "What is <region1>?"
    browser.close()


def test_only_the_regions_that_a_question_names_are_asked_about(results) -> None:
    box, other = [1.0, 2.0, 30.0, 40.0], [50.0, 20.0, 90.0, 80.0]
    pair = [replace(one, predictions=one.predictions.assign(boxes=[[box, other]] * 48)) for one in results]
    browser = FailureBrowser(pair, FakeGPT4RoI())
    browser.load([ITEM])
    browser.ask_all("What is <region2>?")
    assert browser.model.asked == [("What is <region1>?", (tuple(other),))] * 2
    with pytest.raises(ValueError, match="names region 3, but there are only regions 1 to 2"):
        browser.ask_all("What is <region3>?")
    send(browser, type="ask", text="What is <region3>?")
    assert browser.side_by_side.view.problem.startswith("The question names region 3")
    send(browser, type="ask", text=" ")
    assert browser.side_by_side.view.problem == "The question is empty; type one first."
    assert len(browser.side_by_side.view.turns) == 1
    browser.close()


def test_each_model_is_asked_again_as_it_was_measured(results) -> None:
    first, second = results
    asked = second.predictions.assign(question="Describe <region1>.")
    browser = FailureBrowser([first, replace(second, predictions=asked)], [FakeGPT4RoI(), FakeGPT4RoI()])
    browser.load([ITEM])
    view = browser.side_by_side.view
    assert [one["question"] for one in view.stored] == ["", "Describe <region1>."]
    browser.ask_all()
    assert [one["question"] for one in view.turns[-1]["answers"]] == ["", "Describe <region1>."]
    assert [text for text, _ in last(browser)] == ["You asked: What is <region1>?", "You asked: Describe <region1>."]
    browser.ask_all("Is <region1> red?")  # a new question is the same for all
    assert [text for text, _ in last(browser)] == ["You asked: Is <region1> red?"] * 2
    browser.close()


def test_what_a_model_cannot_do_is_said_in_its_column_and_the_others_answer(results) -> None:
    first, second = results
    tasks = PromptedModel(*tiny_family("florence2"), None, "tiny")
    browser = FailureBrowser(
        [first, told_as(second, tasks.way), told_as(second, "text")],
        [FakeGPT4RoI(), tasks, None],
        field=["a", "b", "c"],
    )
    view = browser.side_by_side.view
    notes = [" ".join(column["notes"]) for column in view.columns]
    assert notes[0] == "" and "no free question, only “Describe <region1>.”" in notes[1] and "no model" in notes[2]
    assert [column["can"] for column in view.columns] == [True, True, False]
    browser.load([ITEM])
    browser.side_by_side.max_new_tokens = 3
    answers = browser.ask_all("Why is <region1> there?")
    assert str(answers[0]) == "You asked: Why is <region1> there?" and answers[1:] == [None, None]
    assert last(browser)[1][0].startswith("Florence2 answers tasks about one region and no free question")
    assert [state for _, state in last(browser)] == ["done", "cannot", "cannot"] and view.problem == ""
    assert [answer is not None for answer in browser.ask_all("Describe <region1>.")] == [True, True, False]
    browser.close()


def test_one_model_under_two_ways_is_asked_in_both(results) -> None:
    first, second = results
    model = PromptedModel(*tiny_family("qwen3_vl"), "crop", "tiny")
    drawn = model.with_regions("draw")
    browser = FailureBrowser([told_as(first, "crop"), told_as(second, "draw")], [model, drawn])
    browser.load([ITEM])
    browser.side_by_side.max_new_tokens = 3
    row = browser._rows[ITEM]
    for answer, one in zip(browser.ask_all(), (model, drawn), strict=True):
        alone = one.session(row["image"]).ask(row["question"], row["boxes"], max_new_tokens=3)
        assert (answer.text, answer.logprobs, answer.told) == (alone.text, alone.logprobs, alone.told)
    assert [answer.told for answer in browser.ask_all()] == [
        "What is the object in the image?", "What is the object within the red rectangle?"
    ]  # fmt: skip

    sent: list[Any] = []
    browser.side_by_side.view.send = lambda content, buffers=None: sent.append((content, buffers))
    for turn in (-1, 0):
        send(browser, type="told", turn=f"{turn}.1")
        content, files = sent.pop()
        assert content["turn"] == f"{turn}.1" and len(files) == 1
        assert content["text"] == "What is the object within the red rectangle?"
    browser.close()
    with pytest.raises(
        ValueError, match="result A is of a model with boxes as 'crop', but its model takes them as 'draw'"
    ):
        FailureBrowser([told_as(first, "crop"), told_as(second, "draw")], [drawn, model])
    thick = replace(second, card=replace(second.card, way="draw", told=drawn.with_regions("draw", width=6).note))
    with pytest.raises(ValueError, match=r"was told line_width: 6 pixels .*, but its model is told 3 pixels"):
        FailureBrowser([told_as(first, "crop"), thick], [model, drawn])


def test_a_failure_is_what_any_model_got_wrong_and_a_chart_counts_who_is_right(browser, results) -> None:
    verdicts = [result.predictions.set_index("id")["correct"] for result in results]
    (bars,) = [chart["bars"] for chart in browser.panel.charts if chart["name"] == "outcome"]
    counts = {bar["value"]: (bar["wrong"], bar["total"]) for bar in bars}
    both, only_b, only_a = ((a, b) for a, b in ((False, False), (True, False), (False, True)))
    expected = {
        name: int(((verdicts[0] == a) & (verdicts[1] == b)).sum())
        for name, (a, b) in {"A and B wrong": both, "A right, B wrong": only_b, "B right, A wrong": only_a}.items()
    }
    right = 48 - sum(expected.values())
    assert all(expected.values()) and right
    assert counts == {name: (n, n) for name, n in expected.items()} | {"A and B right": (0, right)}
    wrong = [int((~one).sum()) for one in verdicts]
    said = ", ".join(f"{letter} {n} wrong ({100 * n / 48:.1f}%)" for letter, n in zip("AB", wrong, strict=True))
    assert browser.panel.summary == f"48 questions; {said}; the bars count A's answers"

    loaded = browser.load_selection()
    assert len(loaded) == sum(expected.values())
    assert {browser._rows[item]["outcome"] for item in loaded[: expected["A and B wrong"]]} == {"A and B wrong"}
    loaded = browser.where(outcome="A right, B wrong").load_selection()
    assert len(loaded) == expected["A right, B wrong"] and all(verdicts[0][loaded]) and not any(verdicts[1][loaded])
    assert browser.panel.loaded[0]["verdict"] == "A right, B wrong"


def test_a_question_that_one_was_not_asked_is_shown_all_the_same(results) -> None:
    first, second = results
    browser = FailureBrowser([first, replace(second, predictions=second.predictions.query("id != @ITEM"))])
    browser.load([ITEM])
    assert browser.side_by_side.view.stored[1] == {"absent": "This result has no answer to this question."}
    assert browser._rows[ITEM]["outcome"] is None
    browser.close()


def test_stopping_keeps_the_words_so_far_and_asks_nobody_else(results) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def reply(text: str) -> str:
        begun.set()
        assert goes_on.wait(PATIENCE)
        return "one two three"

    slow, other = FakeGPT4RoI(reply), FakeGPT4RoI()
    browser = FailureBrowser(list(results), [slow, other])
    browser.load([ITEM])
    view = browser.side_by_side.view
    view._handle_custom_msg({"type": "ask", "text": "What is <region1>?"}, [])
    assert begun.wait(PATIENCE) and view.stoppable and last(browser) == [("", "writing"), ("", "waiting")]
    with pytest.raises(RuntimeError, match="answers are being written"):
        browser.load(["toys/3/1"])
    with pytest.raises(RuntimeError, match="answers are being written"):
        browser.ask_all()
    view._handle_custom_msg({"type": "stop"}, [])
    goes_on.set()
    browser.side_by_side._worker.wait()
    assert last(browser) == [("Stopped before the first word.", "cannot"), ("Stopped before it was asked.", "cannot")]
    assert other.asked == [] and not view.stoppable and view.busy == ""
    browser.close()


def test_an_unexpected_failure_leaves_no_answer_waiting(results, caplog) -> None:
    def reply(text: str) -> str:
        raise KeyError("a bug")

    browser = FailureBrowser(list(results), [FakeGPT4RoI(reply), FakeGPT4RoI()])
    browser.load([ITEM])
    send(browser, type="ask", text="What is <region1>?")
    view = browser.side_by_side.view
    assert "Something unexpected went wrong: KeyError" in view.problem and not view.stoppable
    assert [state for _, state in last(browser)] == ["stopped", "stopped"]
    browser.close()


def test_results_and_models_that_do_not_match_are_refused_in_words(results, browser) -> None:
    first, second = results
    with pytest.raises(ValueError, match="got 2 results, 1 models and 2 fields"):
        FailureBrowser([first, second], [FakeGPT4RoI()])
    with pytest.raises(ValueError, match="must be of one benchmark, but are of toys and others"):
        FailureBrowser([first, replace(second, benchmark="others")])
    with pytest.raises(ValueError, match="results A and B have no question in common"):
        FailureBrowser([first, replace(second, predictions=second.predictions.assign(id=range(48)))])
    with pytest.raises(ValueError, match="each result needs a field of its own"):
        FailureBrowser([first, first])
    with pytest.raises(RuntimeError, match="there are 2 models here; ask with ask_all"):
        browser.ask()
    with pytest.raises(RuntimeError, match="nothing is loaded to ask about"):
        browser.ask_all()
    browser.load([ITEM])
    with pytest.raises(RuntimeError, match="there are 2 models here; open a FailureBrowser on one result"):
        browser.inspect("attention")
    one = FailureBrowser(first, FakeGPT4RoI())
    one.load([ITEM])
    with pytest.raises(RuntimeError, match="there is one model"):
        one.ask_all()


@pytest.mark.slow
def test_the_app_gets_both_models_and_a_selection_of_either_is_loaded(fiftyone, browser) -> None:
    def shown(view: Any, one: Any) -> set[str]:
        return set(view.values(f"{one.field}.detections.item", unwind=True))

    first, second = browser._compared
    failures = {item for item in browser._rows if first.fails(item) or second.fails(item)}
    try:
        app = browser.open_app()
        dataset = fiftyone.load_dataset("toys")
        assert {"tiny and other wrong", "tiny right, other wrong"} <= set(dataset.list_saved_views())
        assert shown(app.session.view, first) == shown(app.session.view, second) == failures
        browser.where(outcome="A right, B wrong").open_app()
        only = {row["id"] for row in browser._rows.values() if row["outcome"] == "A right, B wrong"}
        assert shown(app.session.view, first) == shown(app.session.view, second) == only
        labels = dataset.values([f"{second.field}.detections.item", f"{second.field}.detections.id"], unwind=True)
        item = min(only)  # the App selects only what it shows
        app.session.select_labels(ids=[dict(zip(*labels, strict=True))[item]])
        wait_for(lambda: len(app.selected[0]) == 1)
        assert browser.load_selection() == [item]
    finally:
        browser.close()
