"""A conversation with a model of transformers: cache, follow-ups, undo, Stop, describe, saving, refusals."""

import json
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_gpt4roi
from tiny_families import FAMILIES as TINY
from tiny_families import tiny_family

from gpt4roi_nb import RegionSession
from gpt4roi_nb.inference.detokenizer import StreamingDetokenizer
from gpt4roi_nb.models import PromptedModel, PromptedSession
from gpt4roi_nb.models import images as images_module
from gpt4roi_nb.models.families import default_question
from gpt4roi_nb.models.reading import cache_for, reader_of

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8))
BOX, OTHER = (20.0, 10.0, 80.0, 60.0), (70.0, 40.0, 130.0, 90.0)
FEW = {"max_new_tokens": 6}
CHATS = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "vipllava", "perception_lm", "internvl", "video_llama_3"]


def loaded(name: str, way: str | None = None) -> PromptedModel:
    return PromptedModel(*tiny_family(name), way, "tiny")


@pytest.fixture()
def rows(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, StreamingDetokenizer]]:
    """The prompt of each answer, and all that was written, white space and ends included."""
    kept: list[tuple[Any, StreamingDetokenizer]] = []
    made = PromptedSession._as_answer

    def recorded(self: PromptedSession, row: StreamingDetokenizer, prompt: Any, *rest: Any) -> Any:
        kept.append((prompt, row))
        return made(self, row, prompt, *rest)

    monkeypatch.setattr(PromptedSession, "_as_answer", recorded)
    return kept


@torch.inference_mode()
def whole_pass(model: PromptedModel, prompt: Any, written: list[int]) -> list[float]:
    """Log-probabilities of what was written, from one pass over everything, without a cache that is kept."""
    features = model.images().features(prompt.shown)
    reader = reader_of(model.model, [prompt], 0, features)
    ids = torch.tensor([written])
    logits = reader(model.model, torch.cat([reader.begin, ids[:, :-1]], dim=1), cache_for(model.model.config))
    likely = logits[:, -len(written) :].log_softmax(-1)
    return likely.gather(-1, ids[..., None]).flatten().tolist()


@pytest.mark.parametrize("name", TINY)
def test_an_answer_is_what_one_whole_pass_says(name: str, rows: list) -> None:
    """Token by token with the cache, against one pass over prompt and answer."""
    model = loaded(name)
    answer = model.session(IMAGE).ask(default_question(model.way, name), [BOX], **FEW)
    ((prompt, row),) = rows
    assert len(row.ids) == 6 or row.finished
    assert row.logprobs == pytest.approx(whole_pass(model, prompt, row.ids), abs=1e-4)
    assert answer.prompt_tokens == len(prompt.input_ids) and answer.told == prompt.rendered_text


@pytest.mark.parametrize("name", CHATS)
def test_a_follow_up_reuses_what_was_read_and_says_the_same(name: str, rows: list) -> None:
    model = loaded(name)
    session = model.session(IMAGE)
    session.ask("What is <region1>?", [BOX], **FEW)
    second = session.ask("And is region 1 red?", **FEW)
    assert second.reused_tokens > len(model.images().prepared(IMAGE).ids)
    prompt, row = rows[-1]
    assert row.logprobs == pytest.approx(whole_pass(model, prompt, row.ids), abs=1e-4)
    assert "region 1" not in second.told  # "region 1" is told as the box that it means
    session._forget()
    session.undo()
    again = session.ask("And is region 1 red?", **FEW)
    assert again.reused_tokens == 0 and again.text == second.text


@pytest.mark.parametrize("way", ["draw", "marks", "full+crop", "context"])
def test_a_new_region_in_a_drawing_is_read_from_the_image_on(way: str, rows: list) -> None:
    model = loaded("qwen3_vl", way)
    session = model.session(IMAGE)
    session.ask("What is <region1>?", [BOX], **FEW)
    follow_up = session.ask("Is it red?", **FEW)
    assert follow_up.reused_tokens > 0
    with_new = session.ask("Is <region2> larger than <region1>?", [OTHER], **FEW)
    assert with_new.reused_tokens == 0 and [one.number for one in session.regions] == [1, 2]
    prompt, row = rows[-1]
    assert row.logprobs == pytest.approx(whole_pass(model, prompt, row.ids), abs=1e-4)


UNDONE = [
    *((name, "text") for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "perception_lm", "internvl", "video_llama_3")),
    *(("qwen3_vl", way) for way in ("draw", "marks", "full+crop", "crop")),
    ("vipllava", "draw"),
]


@pytest.mark.parametrize(("name", "way"), UNDONE)
def test_after_an_undo_the_cache_holds_what_is_left_and_nothing_of_what_is_gone(
    name: str, way: str, rows: list
) -> None:
    """With a region that came and went: its drawing or its crop is forgotten too."""
    model = loaded(name, way)
    session = model.session(IMAGE)
    session.ask("What is <region1>?", [BOX], **FEW)
    session.ask("Is <region2> larger than <region1>?", [OTHER], **FEW)
    session.undo()
    again = session.ask("And is region 1 red?", **FEW)
    prompt, row = rows[-1]
    # A drawing without the second region is another image; an image or a crop less leaves those before it as they were.
    assert (again.reused_tokens > 0) == (way in ("text", "full+crop", "crop"))
    assert row.logprobs == pytest.approx(whole_pass(model, prompt, row.ids), abs=1e-4)
    fresh = model.session(IMAGE)
    first = fresh.ask("What is <region1>?", [BOX], **FEW)
    never = fresh.ask("And is region 1 red?", **FEW)
    assert again.text == never.text and again.told == never.told
    assert session.history[0].answer.text == first.text and len(session.regions) == len(fresh.regions) == 1
    session.ask("Is <region2> red?", [(0.0, 50.0, 60.0, 100.0)], **FEW)  # another box under the same number
    prompt, row = rows[-1]
    assert row.logprobs == pytest.approx(whole_pass(model, prompt, row.ids), abs=1e-4)


@pytest.mark.parametrize("way", ["text", "draw", "full+crop"])
def test_an_undone_follow_up_leaves_the_turn_before_it_in_the_cache(way: str, rows: list) -> None:
    model = loaded("qwen3_vl", way)
    session = model.session(IMAGE)
    first = session.ask("What is <region1>?", [BOX], **FEW)
    session.ask("Is it red?", **FEW)
    session.undo()
    again = session.ask("Is it blue?", **FEW)
    prompt, row = rows[-1]
    assert again.reused_tokens >= first.prompt_tokens
    assert row.logprobs == pytest.approx(whole_pass(model, prompt, row.ids), abs=1e-4)


def test_text_with_a_new_region_needs_no_new_look_at_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    encode = images_module.encode
    monkeypatch.setattr(images_module, "encode", lambda *given: calls.append(1) or encode(*given))
    session = loaded("qwen3_vl").session(IMAGE)
    session.ask("What is <region1>?", [BOX], **FEW)
    assert session.ask("Is <region2> larger?", [OTHER], **FEW).reused_tokens > 0
    session.describe([BOX, OTHER], **FEW)
    session.reset()
    session.ask("What is <region1>?", [OTHER], **FEW)
    assert len(calls) == 1


def test_streaming_undo_reset_and_what_is_remembered() -> None:
    session = loaded("internvl").session(IMAGE)
    pieces = list(session.stream("What is <region1>?", [BOX], **FEW))
    first = session.history[-1].answer
    assert "".join(pieces) == first.text and not first.stopped
    session.ask("And <region2>?", [OTHER], **FEW)
    assert session.undo().regions == (2,) and len(session.regions) == 1
    session.reset()
    assert session.regions == () and session.history == ()
    assert session.ask("What is <region1>?", [BOX], **FEW).text == first.text
    assert repr(session).startswith("PromptedSession(")


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen2_5_vl", "kosmos-2", "florence2", "vipllava", "paligemma"])
def test_a_stop_keeps_what_was_written_and_the_cache_stays_right(name: str, rows: list) -> None:
    model = loaded(name)
    session = model.session(IMAGE)
    question, stop = default_question(model.way, name), threading.Event()
    answering = session.stream(question, [BOX], max_new_tokens=40, stop=stop)
    next(answering)
    stop.set()
    for _ in answering:
        pass
    stopped = session.history[-1].answer
    assert stopped.stopped and 0 < len(stopped.tokens) < 40
    if model.capabilities.follow_ups:
        session.ask("And now?", **FEW)
    else:
        session.undo()
        again = session.ask(question, [BOX], **FEW)
        assert again.token_ids[: len(stopped.token_ids)] == stopped.token_ids[: len(again.token_ids)]
    prompt, row = rows[-1]
    assert row.logprobs == pytest.approx(whole_pass(model, prompt, row.ids), abs=1e-4)


# How an image of each orientation lies in its file (EXIF 2.32, tag 0x0112: where row 0 and column 0 are).
LYING = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", LYING)
def test_boxes_of_a_camera_image_are_those_of_the_upright_one(orientation: int, tmp_path: Path) -> None:
    """A file that lies on its side is turned first, for the coordinates, what is drawn and the pixels."""
    lying, exif = Image.fromarray(np.ascontiguousarray(LYING[orientation](np.asarray(IMAGE)))), Image.Exif()
    exif[0x0112] = orientation
    lying.save(tmp_path / "photo.png", exif=exif)
    assert (lying.size == IMAGE.size) == (orientation < 5)
    model = loaded("qwen3_vl")
    session, upright = model.session(tmp_path / "photo.png"), model.session(IMAGE)
    answer, expected = (one.ask("What is <region1>?", [BOX], max_new_tokens=2) for one in (session, upright))
    assert answer.told == expected.told == "What is [143, 100, 571, 600]?"
    assert answer.logprobs == expected.logprobs
    assert session._images.prepared(session.image).digest == upright._images.prepared(IMAGE).digest
    for way in ("draw", "crop"):
        shown, wanted = (
            loaded("qwen3_vl", way).render(one, "What is <region1>?", [BOX]).images[0]
            for one in (tmp_path / "photo.png", IMAGE)
        )
        assert shown.tobytes() == wanted.tobytes()


def test_one_answer_at_a_time() -> None:
    session = loaded("vipllava").session(IMAGE)
    answering = session.stream("What is <region1>?", [BOX], max_new_tokens=40)
    next(answering)
    with pytest.raises(RuntimeError, match="another answer is being written"):
        session.ask("And?", **FEW)
    answering.close()
    session.ask("And?", **FEW)


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen2_5_vl", "kosmos-2", "florence2", "paligemma", "vipllava"])
def test_describing_many_says_what_asking_each_says(name: str) -> None:
    model = loaded(name)
    session = model.session(IMAGE)
    question = default_question(model.way, name)
    described = session.describe([BOX, OTHER], **FEW)
    for box, answer in zip((BOX, OTHER), described, strict=True):
        alone = model.session(IMAGE).ask(question, [box], **FEW)
        assert answer.text == alone.text and answer.told == alone.told
        assert answer.attention().regions == {1: box} == alone.attention().regions
    assert session.history == () and session.regions == ()


def test_describing_stops_between_boxes_and_says_so() -> None:
    session = loaded("florence2").session(IMAGE)
    stop = threading.Event()
    stop.set()
    with pytest.warns(UserWarning, match="stopped after 0 of 2 regions"):
        assert session.describe([BOX, OTHER], stop=stop, **FEW) == []
    assert session.describe([], **FEW) == []


def test_a_saved_conversation_goes_on(tmp_path: Path) -> None:
    model = loaded("qwen3_vl")
    session = model.session(IMAGE)
    session.ask("What is <region1>?", [BOX], **FEW)
    session.save(tmp_path / "talk.json")
    again = PromptedSession.load(tmp_path / "talk.json", model)
    assert again.regions == session.regions
    assert again.ask("And is region 1 red?", **FEW).text == session.ask("And is region 1 red?", **FEW).text


def test_a_conversation_that_goes_on_in_another_way_is_warned_of(tmp_path: Path) -> None:
    session = loaded("qwen3_vl").session(IMAGE)
    session.ask("What is <region1>?", [BOX], **FEW)
    session.save(tmp_path / "talk.json")
    with pytest.warns(UserWarning, match="told regions by 'text', and this one is told them by 'draw'"):
        PromptedSession.load(tmp_path / "talk.json", loaded("qwen3_vl", "draw"))
    with pytest.warns(UserWarning, match="told regions by 'text', and this one is told them by 'region tokens'"):
        RegionSession.load(tmp_path / "talk.json", tiny_gpt4roi())
    content = json.loads((tmp_path / "talk.json").read_text())
    assert content.pop("way") == "text"  # a file from before has none
    (tmp_path / "talk.json").write_text(json.dumps(content))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PromptedSession.load(tmp_path / "talk.json", loaded("qwen3_vl", "draw"))


def test_changed_weights_are_looked_through_again() -> None:
    model = loaded("vipllava")
    session = model.session(IMAGE)
    first = session.ask("What is <region1>?", [BOX], **FEW)
    weight = next(model.model.model.vision_tower.parameters())
    session.reset()
    with model.training_step(), torch.no_grad():
        weight.mul_(-1)
    changed = session.ask("What is <region1>?", [BOX], **FEW)
    with model.training_step(), torch.no_grad():
        weight.mul_(-1)
    assert changed.reused_tokens == 0 and changed.logprobs != first.logprobs


@pytest.mark.parametrize("name", ["kosmos-2", "florence2", "paligemma"])
def test_a_second_question_is_refused_where_the_model_was_made_for_one(name: str) -> None:
    model = loaded(name)
    session = model.session(IMAGE)
    question = default_question(model.way, name)
    session.ask(question, [BOX], **FEW)
    with pytest.raises(ValueError, match=r"one question at a time.*reset\(\)"):
        session.ask("And why?", **FEW)
    assert len(session.history) == 1
    session.undo()
    session.ask(question, [BOX], **FEW)


def test_what_a_model_cannot_do_is_refused_in_words() -> None:
    session = loaded("florence2").session(IMAGE)
    with pytest.raises(ValueError, match="answers tasks about one region and no free question"):
        session.ask("Why is <region1> there?", [BOX])
    with pytest.raises(ValueError, match="pools no features of a region"):
        session.roi_features([BOX])
    answer = session.ask("Describe <region1>.", [BOX], **FEW)
    with pytest.raises(ValueError, match="how must be remove or blur for a florence2, but is 'swap'"):
        answer.ablate(1, "swap")
    with pytest.raises(ValueError, match="never names <region1>"):
        loaded("qwen3_vl").session(IMAGE).ask("What is it?", [BOX])
    with pytest.raises(ValueError, match="must name <region1>"):
        session.describe([BOX], "What is it?")
    with pytest.raises(ValueError, match=r"2 \* tokens|tokens long"):
        loaded("qwen3_vl").session(IMAGE).ask("word " * 1200)


def test_a_conversation_is_exported_after_its_model_was_unloaded(tmp_path: Path) -> None:
    model = loaded("qwen3_vl")
    before = model.about, model.capabilities
    with model:
        session = model.session(IMAGE)
        session.ask("What is <region1>?", [BOX], **FEW)
    assert (model.about, model.capabilities) == before and before[1].attention
    session.export(tmp_path / "talk.html")
    assert "regions=text" in (tmp_path / "talk.html").read_text()
    session.save(tmp_path / "talk.json")


def test_an_unloaded_model_says_how_to_go_on() -> None:
    model = loaded("qwen3_vl")
    session = model.session(IMAGE)
    with model:
        session.ask("What is <region1>?", [BOX], **FEW)
    assert repr(model) == "PromptedModel('tiny', unloaded)"
    with pytest.raises(RuntimeError, match=r"load it again with load_model"):
        session.ask("And?")
