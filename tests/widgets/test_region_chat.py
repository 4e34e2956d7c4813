"""The chat, used by typing and from Python, with a stand-in for the model."""

from __future__ import annotations

import gc
import io
import logging
import threading
import time
import weakref
from collections.abc import Callable

import pytest
import torch
from fakes import FakeGPT4RoI
from PIL import Image
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb import RegionSession
from gpt4roi_nb.widgets import RegionChat
from gpt4roi_nb.widgets.errors import OUT_OF_MEMORY
from gpt4roi_nb.widgets.image_picker import gallery_scene

A, B, C = (10.0, 10.0, 60.0, 60.0), (100.0, 20.0, 160.0, 80.0), (30.0, 100.0, 90.0, 160.0)
PATIENCE = 20  # seconds


def make_chat(reply: Callable[[str], str] | None = None, pause: float = 0.0) -> RegionChat:
    chat = RegionChat(FakeGPT4RoI(reply, pause), Image.new("RGB", (200, 200), "grey"))
    chat.conversation.send = lambda content, buffers=None: hear(chat, content)
    return chat


def hear(chat: RegionChat, content: dict) -> None:
    """Do what the browser does with a message about the question line."""
    talk = chat.conversation
    if content["type"] == "back":
        talk.draft = content["text"] + (f"\n{talk.draft}" if talk.draft.strip() else "")
    elif content["type"] == "line" and talk.draft.strip() in content["instead_of"]:
        talk.draft = content["text"]


@pytest.fixture()
def chat() -> RegionChat:
    return make_chat()


def tell(chat: RegionChat, **content) -> None:
    chat.conversation._handle_custom_msg(content, [])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def type_and_enter(chat: RegionChat, text: str) -> None:
    chat.conversation.draft = ""  # the browser empties its line at once
    tell(chat, type="ask", text=text)
    wait_for(lambda: not chat.conversation.busy)


# ------------------------------------------------------------------------------------------------------ asking


def test_python_asks_and_the_notebook_shows_it(chat) -> None:
    answer = chat.ask("What is <region1>?", [A])
    assert str(answer) == "You asked: What is <region1>?"
    assert chat.answers == [answer]
    assert [(turn["question"], turn["answer"]) for turn in chat.conversation.turns] == [
        ("What is <region1>?", "You asked: What is <region1>?")
    ]
    assert [(region.number, region.box, region.asked) for region in chat.regions] == [(1, A, True)]


def test_a_drawn_region_is_taken_along_when_it_is_named(chat) -> None:
    chat.set_boxes([A])
    type_and_enter(chat, "What is <region1>?")
    assert chat.gpt4roi.asked == [("What is <region1>?", (A,))]
    assert chat.regions[0].asked
    assert chat.conversation.draft == ""


def test_boxes_from_python_come_before_those_drawn_by_hand(chat) -> None:
    chat.set_boxes([C])
    chat.ask("What is <region1>?", [A])
    assert [(region.box, region.asked) for region in chat.regions] == [(A, True), (C, False)]


def test_a_follow_up_names_an_old_and_a_new_region(chat) -> None:
    chat.ask("What is <region1>?", [A])
    chat.set_boxes([B])
    type_and_enter(chat, "Is region 1 left of region 2?")
    assert chat.gpt4roi.asked[-1] == ("Is region 1 left of <region2>?", (B,))


def test_asking_about_the_second_drawn_region_renumbers_in_the_open(chat) -> None:
    chat.set_boxes([A, B])
    type_and_enter(chat, "What is <region2>?")
    assert chat.gpt4roi.asked == [("What is <region1>?", (B,))]
    assert [(region.number, region.box) for region in chat.regions] == [(1, B), (2, A)]
    assert chat.conversation.notice.startswith("Region 2 is now region 1, and region 1 is region 2")


def test_a_drawn_box_is_not_overlooked_silently(chat) -> None:
    chat.set_boxes([A])
    type_and_enter(chat, "What is this?")
    assert chat.gpt4roi.asked == []
    assert "does not name it" in chat.conversation.notice
    assert chat.conversation.draft == "What is this?"
    type_and_enter(chat, "What is this?")  # Enter again
    assert chat.gpt4roi.asked == [("What is this?", ())]
    assert not chat.regions[0].asked


def test_a_new_box_is_not_overlooked_when_only_an_old_region_is_named(chat) -> None:
    chat.ask("What is <region1>?", [A])
    chat.set_boxes([B])
    type_and_enter(chat, "What is <region1> made of?")
    assert len(chat.answers) == 1 and "You drew region 2" in chat.conversation.notice
    type_and_enter(chat, chat.conversation.draft)  # Enter again
    assert len(chat.answers) == 2 and chat.conversation.notice.startswith("Asked without region 2")
    type_and_enter(chat, "And what colour is region 1?")  # nor by the next question
    assert len(chat.answers) == 2 and "You drew region 2" in chat.conversation.notice
    type_and_enter(chat, chat.conversation.draft)
    assert len(chat.answers) == 3 and chat.conversation.notice.startswith("Asked without region 2")
    chat.set_boxes([B, C])
    type_and_enter(chat, "And its shape?")
    assert len(chat.answers) == 3 and "You drew regions 2 and 3" in chat.conversation.notice
    type_and_enter(chat, "What is region 0?")
    assert len(chat.answers) == 3 and "names region 0" in chat.conversation.problem


def test_two_chats_about_one_session_show_what_the_other_did_before_they_go_on() -> None:
    chat, other = make_chat(), make_chat()
    other._show(chat.session)
    other.set_boxes([B])
    asks: list[dict] = [{"type": "ask", "text": "What is <region1>?"}, {"type": "undo"}]
    for done, content in enumerate(asks, start=1):
        chat.ask("What is <region1>?", [A] if done == 1 else None)
        assert len(other.conversation.turns) == done - 1
        tell(other, **content)
        assert len(other.answers) == len(other.conversation.turns) == done and "went on" in other.conversation.notice
    assert other.conversation.draft == "What is <region1>?"
    assert [(region.box, region.asked) for region in other.regions] == [(A, True), (B, False)]


@pytest.mark.parametrize(
    "text",
    ["What is <Region1>?", "What is <region 1>?", "What is < REGION_1 >?", "region1?", "[region 1]", "Region #1?"],
)
def test_spellings_whose_meaning_is_plain_name_the_region(chat, text) -> None:
    chat.set_boxes([A])
    type_and_enter(chat, text)
    assert chat.gpt4roi.asked[0][1] == (A,) and "<region1>" in chat.gpt4roi.asked[0][0]


@pytest.mark.parametrize("text", ["What is region 1?", "What is <region1>?", "What is <Region 1>?"])
def test_a_region_without_a_box_is_not_asked_about(chat, text) -> None:
    type_and_enter(chat, text)
    assert chat.gpt4roi.asked == [] and chat.conversation.draft == text
    words = "The question names region 1, but there is no box yet; draw one on the image, then ask."
    assert chat.conversation.problem == words
    with pytest.raises(ValueError, match="there is no box yet"):
        chat.ask(text)
    chat.set_boxes([A, B])
    type_and_enter(chat, "Is region 1 left of region 3?")
    assert "names region 3, but there are only regions 1 to 2" in chat.conversation.problem


def test_settings_hold_for_what_is_typed_and_what_python_asks(chat) -> None:
    talk = chat.conversation
    talk.temperature, talk.max_new_tokens, talk.seed = 0.7, 20, 3
    type_and_enter(chat, "What do you see?")
    chat.ask("And now?", temperature=0.0)
    assert chat.gpt4roi.settings == [(20, 0.7, 3), (20, 0.0, 3)]


def test_the_answer_streams(chat) -> None:
    chat = make_chat(lambda text: "one two three four", pause=0.1)
    seen = []
    chat.conversation.observe(lambda change: seen.append(change["new"]), names="streaming")
    chat.ask("What do you see?")
    assert [text for text in seen if text] == ["one", "one two", "one two three", "one two three four"]
    assert chat.conversation.streaming == ""


def test_fast_words_are_gathered_into_few_messages() -> None:
    chat = make_chat(lambda text: " ".join(["word"] * 2000))
    seen = []
    chat.conversation.observe(lambda change: seen.append(change["new"]), names="streaming")
    started = time.monotonic()
    chat.ask("What do you see?")
    assert len(seen) <= 20 * (time.monotonic() - started) + 3


def test_what_a_cell_did_with_the_session_shows_after_a_refresh(chat) -> None:
    chat.session.ask("What is <region1>?", [A])
    chat.refresh()
    assert len(chat.conversation.turns) == 1
    assert chat.regions[0].asked


# --------------------------------------------------------------------------------------------- stop, undo, new


def test_stop_keeps_what_is_written() -> None:
    chat = make_chat(lambda text: " ".join(["word"] * 1000), pause=0.02)
    tell(chat, type="ask", text="What do you see?")
    wait_for(lambda: chat.conversation.streaming != "")
    assert chat.conversation.stoppable
    tell(chat, type="stop")
    wait_for(lambda: not chat.conversation.busy)
    assert chat.conversation.turns[0]["stopped"]
    assert 1 <= len(chat.answers[0].text.split()) < 1000


def test_stop_before_the_first_word_gives_the_question_back() -> None:
    chat = make_chat(pause=0.3)
    chat.set_boxes([A])
    tell(chat, type="ask", text="What is <region1>?")
    chat.stop()
    wait_for(lambda: not chat.conversation.busy)
    assert chat.conversation.turns == []
    assert chat.conversation.draft == "What is <region1>?"
    assert [(region.box, region.asked) for region in chat.regions] == [(A, False)]


def test_only_one_question_at_a_time() -> None:
    chat = make_chat(pause=0.2)
    tell(chat, type="ask", text="What do you see?")
    with pytest.raises(RuntimeError, match="being written"):
        chat.ask("And now?")
    for action in (chat.undo, chat.new_conversation, lambda: chat.set_image(Image.new("RGB", (9, 9)))):
        with pytest.raises(RuntimeError, match="being written"):
            action()
    wait_for(lambda: not chat.conversation.busy)
    assert len(chat.answers) == 1


def test_what_is_looked_into_meanwhile_comes_next_and_the_page_says_so() -> None:
    chat = make_chat(pause=0.05)
    looked = []
    chat.inspect_answer = lambda number: looked.append((number, chat.conversation.busy, chat.conversation.notice))
    chat.ask("First?")
    tell(chat, type="ask", text="Second?")
    for _ in range(2):  # a second click asks for nothing more
        tell(chat, type="inspect", turn=0)
        assert chat.conversation.busy == "Answering…"
        assert chat.conversation.notice == "Looking inside answer 1 comes next."
    wait_for(lambda: not chat.conversation.busy)
    assert looked == [(0, "Looking inside answer 1…", "")] and len(chat.answers) == 2


@pytest.mark.parametrize(("clicks", "opened"), [((0,), [0]), ((1,), [0, 1]), ((1, 0), [0, 0])])
def test_a_double_click_on_look_inside_opens_it_once_and_the_last_click_counts(clicks, opened) -> None:
    chat = make_chat()
    looked, go_on = [], threading.Event()
    chat.inspect_answer = lambda number: (looked.append(number), go_on.wait())
    chat.ask("First?")
    chat.ask("Second?")
    tell(chat, type="inspect", turn=0)
    wait_for(lambda: looked == [0])
    for turn in clicks:
        tell(chat, type="inspect", turn=turn)
    go_on.set()
    wait_for(lambda: not chat.conversation.busy)
    assert looked == opened


def test_undo_gives_question_and_region_back(chat) -> None:
    chat.ask("What is <region1>?", [A])
    chat.ask("Is <region2> red?", [B])
    tell(chat, type="undo")
    assert len(chat.conversation.turns) == 1
    assert [(region.box, region.asked) for region in chat.regions] == [(A, True), (B, False)]
    assert chat.conversation.draft == "Is <region2> red?"


def test_undo_twice_gives_the_earlier_question_back(chat) -> None:
    chat.ask("First?")
    chat.ask("Second?")
    chat.undo()
    chat.undo()
    assert chat.conversation.draft == "First?"


def test_undo_does_not_overwrite_what_is_being_typed(chat) -> None:
    chat.ask("What is <region1>?", [A])
    chat.conversation.draft = "Half a thou"
    chat.undo()
    assert chat.conversation.draft == "Half a thou"


def test_undo_brings_back_what_a_new_conversation_or_another_image_replaced(chat) -> None:
    image = chat.session.image
    chat.set_boxes([A, B], ["kettle", ""])
    chat.ask("What is the kettle?")
    for leave in (lambda: tell(chat, type="new"), lambda: chat.set_image(Image.new("RGB", (50, 40)))):
        leave()
        assert (chat.answers, chat.regions) == ([], ())
        assert chat.conversation.earlier and "Undo brings" in chat.conversation.notice
        chat.ask("And this?")
        tell(chat, type="undo")
        assert chat.answers == []
        tell(chat, type="undo")
        wait_for(lambda: not chat.conversation.busy)
        assert chat.session.image == image and len(chat.answers) == 1
        shown = [(region.box, region.asked, region.name) for region in chat.regions]
        assert shown == [(A, True, "kettle"), (B, False, "")]
        assert not chat.conversation.earlier and chat.conversation.notice == ""
        assert chat.conversation.turns[0]["question"] == "What is <region1>?"


def test_a_box_alone_does_not_take_the_place_of_a_conversation_that_undo_would_bring_back(chat) -> None:
    chat.ask("What is <region1>?", [A])
    tell(chat, type="new")
    chat.set_boxes([B])
    chat.set_image(Image.new("RGB", (50, 40)))
    tell(chat, type="undo")
    wait_for(lambda: not chat.conversation.busy)
    assert len(chat.answers) == 1


def test_a_conversation_that_could_not_be_brought_back_is_not_lost(chat, monkeypatch: pytest.MonkeyPatch) -> None:
    chat.ask("What is <region1>?", [A])
    chat.set_image(Image.new("RGB", (50, 40)))
    with monkeypatch.context() as patch:
        patch.setattr(chat.gpt4roi, "session", lambda image: (_ for _ in ()).throw(MemoryError("too little memory")))
        tell(chat, type="undo")
        wait_for(lambda: not chat.conversation.busy)
    assert chat.conversation.problem == "Too little memory." and chat.conversation.earlier
    tell(chat, type="undo")
    wait_for(lambda: not chat.conversation.busy)
    assert len(chat.answers) == 1 and not chat.conversation.earlier


def test_a_scene_that_is_clicked_while_an_answer_is_written_comes_next() -> None:
    chat = make_chat(lambda text: "word " * 20, pause=0.05)
    chat.ask("Tell me", wait=False)
    for seed in (7_000_000, 7_000_001):  # only the last counts
        chat.picker._handle_custom_msg({"type": "scene", "seed": seed}, [])
    assert chat.conversation.notice == "Looking at the image comes next."
    wait_for(lambda: not chat.conversation.busy)
    assert chat.session.image.tobytes() == gallery_scene(7_000_001).tobytes() and chat._opened == 2


def test_undo_with_nothing_to_undo_is_said_in_words(chat) -> None:
    tell(chat, type="undo")
    assert chat.conversation.problem == "There is no turn to undo; nothing has been asked yet."


def test_a_new_conversation_begins_without_regions(chat) -> None:
    chat.ask("What is <region1>?", [A])
    chat.set_boxes([B])
    tell(chat, type="new")
    assert chat.conversation.turns == []
    assert chat.regions == ()


# ------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(("text", "words"), [("", "empty"), ("What is <region7>?", "region 7"), ("   \n", "empty")])
def test_bad_questions_are_answered_in_words_and_kept(chat, text, words) -> None:
    type_and_enter(chat, text)
    assert words in chat.conversation.problem
    assert chat.conversation.draft == text
    assert chat.conversation.turns == []


def test_python_gets_the_same_error_and_nothing_has_changed(chat) -> None:
    chat.set_boxes([C])
    with pytest.raises(ValueError, match="never names <region1>"):
        chat.ask("What is this?", [A])
    assert [region.box for region in chat.regions] == [C]
    assert "never names" in chat.conversation.problem
    chat.ask("What do you see?")
    assert chat.conversation.problem == ""


@pytest.mark.parametrize(
    ("text", "boxes", "words"),
    [
        ("What is this?", [(3, 4, 30, 40)], "never names <region1>"),
        ("What is <region7>?", [(3, 4, 30, 40)], "names region 7"),
        ("What is <region1>?", [(30, 4, 3, 40)], "x2 <= x1"),
        ("word " * 20_000 + "<region1>", [(3, 4, 30, 40)], "shorten the question"),
    ],
)
def test_a_real_model_refuses_before_anything_has_changed(text, boxes, words) -> None:
    chat = RegionChat(tiny_gpt4roi(), tiny_image())
    chat.set_boxes([(5, 5, 20, 20)])
    with pytest.raises(ValueError, match=words):
        chat.ask(text, boxes)
    assert [region.box for region in chat.regions] == [(5, 5, 20, 20)]
    assert chat.session.history == () and chat.session.regions == ()
    assert chat.ask("What is <region1>?", max_new_tokens=4) is chat.answers[-1]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError("can't allocate memory")]
)
def test_running_out_of_memory_is_a_message_and_frees_what_it_held(error) -> None:
    held: list[weakref.ref] = []

    def reply(text: str) -> str:
        tensor = torch.zeros(10)
        held.append(weakref.ref(tensor))
        raise error

    chat = make_chat(reply)
    chat.set_boxes([A])
    type_and_enter(chat, "What is <region1>?")
    gc.collect()
    assert chat.conversation.problem == OUT_OF_MEMORY
    assert held[0]() is None
    assert chat.conversation.draft == "What is <region1>?"
    assert not chat.conversation.busy
    assert not chat.regions[0].asked


def test_a_real_model_that_runs_out_of_memory_gives_back_what_it_held() -> None:
    chat = RegionChat(tiny_gpt4roi(), tiny_image())
    chat.ask("What is <region1>?", [(3, 4, 30, 40)], max_new_tokens=4)
    held = weakref.ref(chat.session._cache)
    layer = chat.gpt4roi.model.language_model.model.layers[1]

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    hook = layer.register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        chat.ask("And why?")
    hook.remove()
    gc.collect()
    assert chat.conversation.problem == OUT_OF_MEMORY
    assert held() is None
    assert len(chat.answers) == 1
    chat.ask("And why?", max_new_tokens=4)
    assert len(chat.answers) == 2 and chat.conversation.problem == ""


def test_a_real_model_stops_and_undoes() -> None:
    chat = RegionChat(tiny_gpt4roi(), tiny_image())
    words = chat.gpt4roi.model.language_model
    passes = []
    hook = words.register_forward_hook(lambda *_: passes.append(None) or (len(passes) == 12 and chat.stop()) or None)
    answer = chat.ask("What is <region1>?", [(3, 4, 30, 40)], max_new_tokens=400)
    hook.remove()
    assert answer.stopped and len(passes) == 12
    assert chat.conversation.turns[0]["stopped"]
    chat.undo()
    assert chat.answers == [] and not chat.regions[0].asked
    again = chat.ask("What is <region1>?", max_new_tokens=12)
    assert again.token_ids == answer.token_ids


@pytest.mark.parametrize("error", [KeyError("odd"), TypeError("None + 1"), RuntimeError("CUDA error"), ValueError("?")])
def test_what_nobody_expected_is_told_and_logged(caplog, error) -> None:
    def reply(text: str) -> str:
        raise error

    chat = make_chat(reply)
    with caplog.at_level(logging.ERROR), pytest.raises(type(error)):
        chat.ask("What do you see?")
    assert type(error).__name__ in chat.conversation.problem
    assert "unexpected" in caplog.text and "Traceback" in caplog.text
    chat.gpt4roi.reply = lambda text: "fine"
    assert str(chat.ask("And now?")) == "fine"


# ------------------------------------------------------------------------------------------------------ images


def test_without_an_image_it_begins_with_a_scene() -> None:
    assert RegionChat(FakeGPT4RoI()).session.image.size == (336, 336)


def test_another_image_begins_another_conversation(chat) -> None:
    chat.ask("What is <region1>?", [A])
    chat.set_image(Image.new("RGB", (50, 40)))
    assert chat.session.image.size == (50, 40)
    assert chat.answers == []
    assert chat.regions == ()


def test_a_saved_session_is_opened_with_its_turns_and_goes_on(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    gpt4roi = tiny_gpt4roi()
    chat = RegionChat(gpt4roi, tiny_image())
    chat.ask("What is <region1>?", [(3, 4, 30, 40)], max_new_tokens=4)
    heard = []
    chat.conversation.send = lambda content, buffers=None: heard.append((content, buffers))
    for message in ({"type": "save"}, {"type": "save"}, {"type": "export", "format": "md"}):
        tell(chat, **message)
    assert "conversation.json" in heard[0][0]["text"] and "conversation-2.json" in heard[1][0]["text"]
    (content, (data,)) = heard[2]
    assert content["name"] == "conversation.md" and b"**You:** What is region 1?" in data

    again = RegionChat(RegionSession.load("conversation.json", gpt4roi))
    assert [turn["question"] for turn in again.conversation.turns] == ["What is <region1>?"]
    assert [(region.box, region.asked) for region in again.regions] == [((3, 4, 30, 40), True)]
    again.ask("And region 1?", max_new_tokens=4)
    assert len(again.answers) == 2
    with pytest.raises(TypeError, match="has its own image"):
        RegionChat(again.session, tiny_image())


def test_the_gallery_fills_when_it_is_first_opened(chat) -> None:
    assert chat.picker.thumbnails == []
    tell(chat, type="image")
    wait_for(lambda: not chat.conversation.busy)
    seeds = [thumbnail["seed"] for thumbnail in chat.picker.thumbnails]
    assert len(set(seeds)) == len(seeds) == 8
    chat.picker._handle_custom_msg({"type": "scene", "seed": seeds[2]}, [])
    wait_for(lambda: not chat.conversation.busy)
    assert chat.session.image.size == (336, 336)
    assert not chat.picker.opened


def upload(chat: RegionChat, name: str, data: bytes, **more) -> None:
    chat.picker._handle_custom_msg({"type": "file", "name": name, **more}, [memoryview(data)])
    wait_for(lambda: not chat.conversation.busy)


def test_what_is_wrong_with_a_file_stands_beside_the_picker_until_one_opens(chat) -> None:
    chat.picker.opened = True
    upload(chat, "notes.png", b"not an image")
    assert chat.picker.problem.startswith("notes.png: ")
    assert "save it as PNG or JPEG" in chat.picker.problem
    assert chat.session.image.size == (200, 200)
    heic = b"\0\0\0\x18ftypheic" + bytes(50)
    upload(chat, "IMG_1.HEIC", heic)
    assert "IMG_1.HEIC is in Apple's HEIC format" in chat.picker.problem
    assert chat.conversation.problem == ""
    chat.picker._handle_custom_msg({"type": "unreadable", "name": "huge.nef"}, [memoryview(b"II*\0")])
    assert "huge.nef is a camera's raw file" in chat.picker.problem

    stream = io.BytesIO()
    Image.new("RGB", (30, 20)).save(stream, "JPEG")
    upload(chat, "large.jpg", stream.getvalue(), shrunk=[60, 40, 30, 20])
    assert chat.session.image.size == (30, 20)
    assert (chat.picker.opened, chat.picker.problem) == (False, "")
    assert chat.canvas.table.notice.startswith("large.jpg was shrunk from 60 × 40 to 30 × 20 pixels")


def test_a_question_may_call_a_region_by_its_name(chat) -> None:
    chat.set_boxes([A, B], ["the kettle", ""])
    tell(chat, type="ask", text="What colour is the kettle?")
    wait_for(lambda: len(chat.answers) == 1)
    assert chat.gpt4roi.asked == [("What colour is <region1>?", (A,))]
    wait_for(lambda: not chat.conversation.busy)
    chat.ask("Is the kettle larger than region 2?")
    assert chat.gpt4roi.asked[1] == ("Is <region1> larger than <region2>?", (B,))


def test_it_says_what_the_checkpoint_is(chat) -> None:
    assert chat.conversation.about == chat.gpt4roi.about


def test_closing_ends_the_thread(chat) -> None:
    before = set(threading.enumerate())
    chat.ask("What do you see?")
    assert set(threading.enumerate()) - before
    chat.close()
    assert not set(threading.enumerate()) - before


def test_closing_while_an_answer_is_written_neither_waits_nor_writes(chat) -> None:
    waiting, goes_on = threading.Event(), threading.Event()

    def reply(text: str) -> str:
        waiting.set()
        assert goes_on.wait(PATIENCE)
        return "too late"

    chat.gpt4roi.reply = reply
    chat.ask("What do you see?", wait=False)
    assert waiting.wait(PATIENCE)
    (thread,) = chat._worker._executor._threads
    chat.close()
    state = chat.conversation.get_state()
    assert thread.is_alive()
    goes_on.set()
    thread.join(PATIENCE)
    assert not thread.is_alive() and chat.conversation.get_state() == state


def test_another_image_is_encoded_in_the_background_and_nothing_else_goes_on_then(chat) -> None:
    seen = []
    session = chat.gpt4roi.session

    def slow_session(image) -> object:
        with pytest.raises(RuntimeError, match="being written"):
            chat.undo()
        seen.append((threading.current_thread(), chat.conversation.busy))
        return session(image)

    chat.gpt4roi.session = slow_session
    chat.set_image(Image.new("RGB", (50, 40)))
    ((thread, words),) = seen
    assert thread is not threading.main_thread() and words == "Looking at the image…"
    assert chat.conversation.busy == "" and chat.session.image.size == (50, 40)
    with pytest.raises(ValueError, match="not an image"):
        chat.set_image(b"not an image")
    assert "not an image" in chat.conversation.problem and chat.session.image.size == (50, 40)


def test_a_chat_that_was_opened_before_a_training_asks_the_weights_as_they_are() -> None:
    gpt4roi = tiny_gpt4roi(seed=1)
    chat = RegionChat(gpt4roi, tiny_image())
    box, few = (3.0, 4.0, 30.0, 40.0), {"max_new_tokens": 6}
    chat.ask("What is <region1>?", [box], **few)
    with gpt4roi.training_step(), torch.no_grad():
        for weight in gpt4roi.model.parameters():
            weight.mul_(1.5)
    second = chat.ask("And what is it like?", **few)

    fresh = gpt4roi.session(tiny_image())
    fresh.restore(chat.session.regions, chat.session.history[:1])
    expected = fresh.ask("And what is it like?", **few)
    assert second is not None and second.reused_tokens == 0
    assert (second.text, second.logprobs) == (expected.text, expected.logprobs)
