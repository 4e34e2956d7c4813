"""A saved conversation is loaded completely, with its image, and can be continued."""

from __future__ import annotations

import json
import os
import random

import numpy as np
import pytest
from mutations import cases, ends_well, mutated, written
from PIL import Image
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb import RegionSession
from gpt4roi_nb.session.saving import read_conversation

BOX, OTHER_BOX = (3, 4, 30.5, 40), (20, 8, 60, 44.25)
FEW = {"max_new_tokens": 8}


@pytest.fixture(scope="module")
def gpt4roi():
    return tiny_gpt4roi(seed=1)


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "kitchen.png"
    Image.fromarray(tiny_image()).save(path)
    return path


def talked(gpt4roi, image) -> RegionSession:
    session = gpt4roi.session(image)
    session.ask("What is <region1>? 🦊 שלום", [BOX], **FEW)
    session.ask("And <region2> beside region 1?", [OTHER_BOX], **FEW)
    return session


def test_a_conversation_comes_back_whole(gpt4roi, image_file, tmp_path):
    session = talked(gpt4roi, image_file)
    session.save(tmp_path / "talk.json")
    loaded = RegionSession.load(tmp_path / "talk.json", gpt4roi)
    assert loaded.regions == session.regions
    assert loaded.history == session.history
    assert loaded.source == session.source == str(image_file)
    assert (np.asarray(loaded.image) == np.asarray(session.image)).all()


def test_two_conversations_do_not_share_an_image(gpt4roi, tmp_path):
    talked(gpt4roi, tiny_image()).save(tmp_path / "talk.json")
    mine = tmp_path / "talk.image.png"
    mine.write_bytes(b"mine")
    talked(gpt4roi, tiny_image(seed=1)).save(tmp_path / "talk")
    assert (np.asarray(RegionSession.load(tmp_path / "talk.json", gpt4roi).image) == tiny_image()).all()
    assert mine.read_bytes() == b"mine"
    before = sorted(tmp_path.iterdir())
    talked(gpt4roi, tiny_image(seed=2)).save(tmp_path / "talk")  # takes the place of what was saved there
    assert sorted(tmp_path.iterdir()) == before
    assert (np.asarray(RegionSession.load(tmp_path / "talk", gpt4roi).image) == tiny_image(seed=2)).all()


def test_a_folder_is_no_file_to_save_to(gpt4roi, tmp_path):
    for path in (tmp_path, ""):
        with pytest.raises(ValueError, match="is not the name of a file to save to"):
            talked(gpt4roi, tiny_image()).save(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("question", "words"),
    [("What is <region9>?", "names <region9>, but there are only 1 regions at that point"), (" ", "question is empty")],
)
def test_a_question_that_was_changed_is_noticed(gpt4roi, image_file, tmp_path, question, words):
    talked(gpt4roi, image_file).save(tmp_path / "talk.json")
    content = json.loads((tmp_path / "talk.json").read_text())
    content["turns"][0]["question"] = question
    (tmp_path / "talk.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        RegionSession.load(tmp_path / "talk.json", gpt4roi)


def test_another_image_of_the_same_size_is_noticed(gpt4roi, image_file, tmp_path):
    talked(gpt4roi, image_file).save(tmp_path / "talk.json")
    Image.fromarray(tiny_image(seed=1)).save(image_file)
    with pytest.warns(UserWarning, match="but other pixels; the regions may lie on other objects"):
        RegionSession.load(tmp_path / "talk.json", gpt4roi)


def test_a_tilde_means_the_home_folder(gpt4roi, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    session = talked(gpt4roi, tiny_image())
    session.save("~/talk.json")
    assert (tmp_path / "talk.json").is_file()
    assert RegionSession.load("~/talk.json", gpt4roi).history == session.history


def test_a_loaded_conversation_goes_on_as_the_saved_one(gpt4roi, image_file, tmp_path):
    session = talked(gpt4roi, image_file)
    session.save(tmp_path / "talk.json")
    loaded = RegionSession.load(tmp_path / "talk.json", gpt4roi)
    question, box = "Is <region3> larger than <region1>?", [(0, 0, 20, 20)]
    expected, came = session.ask(question, box, **FEW), loaded.ask(question, box, **FEW)
    assert came.token_ids == expected.token_ids
    assert came.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    assert loaded.undo().question == question
    assert loaded.undo().regions == (2,)
    assert [region.number for region in loaded.regions] == [1]


def test_saving_does_not_change_the_session(gpt4roi, image_file, tmp_path):
    session = talked(gpt4roi, image_file)
    before = session.history, session.regions
    session.save(tmp_path / "talk.json")
    session.save(tmp_path / "talk.json")  # over the old one
    assert (session.history, session.regions) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kitchen.png", "talk.json"]


def test_an_empty_conversation_can_be_saved(gpt4roi, image_file, tmp_path):
    gpt4roi.session(image_file).save(str(tmp_path / "talk.json"))
    loaded = RegionSession.load(str(tmp_path / "talk.json"), gpt4roi)
    assert loaded.history == loaded.regions == ()


def test_an_image_without_a_file_is_saved_beside_and_moves_along(gpt4roi, tmp_path):
    session = talked(gpt4roi, tiny_image())
    (tmp_path / "here").mkdir()
    session.save(tmp_path / "here" / "talk.json")
    assert len(list((tmp_path / "here").glob("*.png"))) == 1
    (tmp_path / "here").rename(tmp_path / "there")
    loaded = RegionSession.load(tmp_path / "there" / "talk.json", gpt4roi)
    assert (np.asarray(loaded.image) == tiny_image()).all()
    assert loaded.history == session.history


def test_saving_beside_an_image_of_that_name_leaves_it_alone(gpt4roi, image_file, tmp_path):
    before = image_file.read_bytes()
    talked(gpt4roi, tiny_image(height=50, width=70)).save(tmp_path / "kitchen.json")
    assert image_file.read_bytes() == before


def test_a_loaded_answer_says_why_it_cannot_be_looked_into(gpt4roi, image_file, tmp_path):
    talked(gpt4roi, image_file).save(tmp_path / "talk.json")
    answer = RegionSession.load(tmp_path / "talk.json", gpt4roi).history[0].answer
    with pytest.raises(RuntimeError, match="loaded from a file; ask again"):
        answer.attention()


def test_a_moved_image_can_be_named(gpt4roi, image_file, tmp_path):
    session = talked(gpt4roi, image_file)
    session.save(tmp_path / "talk.json")
    moved = image_file.rename(tmp_path / "elsewhere.png")
    with pytest.raises(FileNotFoundError, match=r"no longer at .*kitchen\.png.*image="):
        RegionSession.load(tmp_path / "talk.json", gpt4roi)
    for image in (moved, tiny_image(), Image.fromarray(tiny_image())):
        assert RegionSession.load(tmp_path / "talk.json", gpt4roi, image=image).history == session.history


def test_an_image_of_another_size_is_refused(gpt4roi, image_file, tmp_path):
    talked(gpt4roi, image_file).save(tmp_path / "talk.json")
    with pytest.raises(ValueError, match="image of 64 × 48 pixels, but this one has 32 × 48"):
        RegionSession.load(tmp_path / "talk.json", gpt4roi, image=tiny_image(width=32))


def test_a_missing_file_is_named(gpt4roi, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no saved conversation at .*absent\.json"):
        RegionSession.load(tmp_path / "absent.json", gpt4roi)


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n\xff", b"{", b"[]", b"{}", b'"text"', b'{"format": "other"}']
)
def test_a_file_of_another_kind_is_refused(gpt4roi, tmp_path, content):
    path = tmp_path / "talk.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"talk\.json' is not a saved conversation"):
        RegionSession.load(path, gpt4roi)


def without(*keys):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    change.__name__ = "without " + ".".join(map(str, keys))
    return change


def with_value(value, *keys):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    change.__name__ = f"{'.'.join(map(str, keys))}={value!r}"
    return change


@pytest.mark.parametrize(
    "change",
    [
        without("image"),
        without("image", "size"),
        without("regions"),
        without("turns"),
        without("turns", 0, "question"),
        without("turns", 0, "answer", "text"),
        with_value("words", "turns", 0, "answer", "no_such_field"),
        with_value(None, "regions"),
        with_value([1, 2, 3], "regions", 0, "box"),
        with_value(["a", "b", "c", "d"], "regions", 0, "box"),
        with_value([900, 900, 950, 950], "regions", 1, "box"),
        with_value([30, 30, 3, 3], "regions", 1, "box"),
        with_value(7, "regions", 0, "number"),
        with_value([5], "turns", 0, "regions"),
        with_value(5, "turns", 0, "question"),
        with_value(5, "image", "path"),
        with_value(5, "image", "sha256"),
        with_value([64.5, 48], "image", "size"),
        with_value([True, 48], "image", "size"),
        with_value(True, "regions", 0, "number"),
        with_value([True], "turns", 0, "regions"),
        with_value("live", "turns", 0, "answer", "replay"),
        with_value("none", "turns", 0, "answer", "tokens"),
        with_value([1], "turns", 0, "answer", "tokens"),
        with_value([], "turns", 0, "answer", "token_ids"),
        with_value([0.5], "turns", 0, "answer", "token_ids"),
        with_value([float("nan")], "turns", 0, "answer", "logprobs"),
        with_value(-1, "turns", 0, "answer", "token_ids", 0),
        with_value(-1, "turns", 0, "answer", "prompt_tokens"),
        with_value(-1, "turns", 0, "answer", "reused_tokens"),
        with_value(-0.5, "turns", 0, "answer", "seconds"),
        with_value("long", "turns", 0, "answer", "seconds"),
        with_value(float("inf"), "turns", 0, "answer", "seconds"),
        with_value(1, "turns", 0, "answer", "stopped"),
        with_value(None, "turns", 0, "answer"),
        without("regions", 1),
    ],
    ids=lambda change: change.__name__,
)
@pytest.mark.filterwarnings("ignore::gpt4roi_nb.boxes.BoxClippedWarning")
def test_a_damaged_conversation_is_refused(gpt4roi, image_file, tmp_path, change):
    path = tmp_path / "talk.json"
    talked(gpt4roi, image_file).save(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=r"talk\.json' is a damaged conversation"):
        RegionSession.load(path, gpt4roi)


def test_another_version_is_refused(gpt4roi, image_file, tmp_path):
    path = tmp_path / "talk.json"
    talked(gpt4roi, image_file).save(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "version": 99}), encoding="utf-8")
    with pytest.raises(ValueError, match="has version 99, but this package reads 1"):
        RegionSession.load(path, gpt4roi)


def test_a_failed_save_leaves_the_old_file_whole(gpt4roi, image_file, tmp_path, monkeypatch):
    path = tmp_path / "talk.json"
    session = talked(gpt4roi, image_file)
    session.save(path)
    before = path.read_bytes()
    monkeypatch.setattr("gpt4roi_nb.files.json.dumps", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        session.save(path)
    assert path.read_bytes() == before


def test_a_planted_link_is_not_written_through(gpt4roi, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.write_text("theirs")
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "talk.json.part").symlink_to(theirs)
    (folder / "talk.json.image.png").symlink_to(tmp_path / "not yet there")
    talked(gpt4roi, tiny_image()).save(folder / "talk.json")
    assert theirs.read_text() == "theirs" and sorted(path.name for path in tmp_path.iterdir()) == ["mine", "theirs"]
    assert (np.asarray(RegionSession.load(folder / "talk.json", gpt4roi).image) == tiny_image()).all()


def test_saving_to_a_link_keeps_the_link(gpt4roi, image_file, tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "talk.json"
    link.symlink_to(tmp_path / "disk" / "talk.json")
    session = talked(gpt4roi, image_file)
    for _ in range(2):  # the file is not there yet, and is
        session.save(link)
        assert link.is_symlink() and RegionSession.load(link, gpt4roi).history == session.history


def test_a_pipe_or_a_device_is_not_replaced(gpt4roi, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    session = talked(gpt4roi, tiny_image())
    for path in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(ValueError, match="is not the name of a file to save to"):
            session.save(path)
    assert (tmp_path / "pipe").is_fifo() and not os.path.isfile("/dev/null") and len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize(
    "name", ["a" * 300, "a/" * 3000 + "b", "a\0b", "a\ud83d"], ids=["name", "path", "null", "half"]
)
def test_a_name_that_no_file_can_have_is_said(gpt4roi, image_file, tmp_path, name):
    session = talked(gpt4roi, image_file)
    for use in (
        lambda: session.save(tmp_path / name),
        lambda: session.export(tmp_path / f"{name}.html"),
        lambda: RegionSession.load(tmp_path / name, gpt4roi),
    ):
        with pytest.raises(
            ValueError, match=r"expected the path of a file or folder, but .* (more than|holds a null byte)"
        ):
            use()
    session.save(tmp_path / "talk.json")
    content = json.loads((tmp_path / "talk.json").read_text())
    content["image"]["path"] = name
    (tmp_path / "talk.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"talk\.json' is a damaged conversation: .* expected the path of a file"):
        RegionSession.load(tmp_path / "talk.json", gpt4roi)


def test_a_name_that_its_image_beside_cannot_have_is_said(gpt4roi, tmp_path):
    with pytest.raises(ValueError, match="more than the file system takes"):
        talked(gpt4roi, tiny_image()).save(tmp_path / ("a" * 250))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::gpt4roi_nb.boxes.BoxClippedWarning")
def test_a_damaged_conversation(gpt4roi, image_file, tmp_path):
    talked(gpt4roi, image_file).save(tmp_path / "talk.json")
    content = json.loads((tmp_path / "talk.json").read_text())

    @cases
    def case(rng: random.Random) -> None:
        (tmp_path / "damaged.json").write_bytes(written(mutated(content, rng), rng))
        with ends_well():
            saved = read_conversation(tmp_path / "damaged.json")
            saved.find_image()
            assert [region.number for region in saved.regions] == list(range(1, len(saved.regions) + 1))

    case()
