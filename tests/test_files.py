"""Small files: the error for anything but a regular file with readable JSON names the file and what is wrong."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data import load
from gpt4roi_nb.evaluate import Result
from gpt4roi_nb.files import MAX_DEPTH, MAX_DIGITS, alone_in, check_regular_file, parse_json, read_json, write_json


def nested(depth: int) -> str:
    return '{"a": ' * (depth - 1) + "{}" + "}" * (depth - 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"a": ', "is truncated or not a JSON file"),
        ("", "is truncated or not a JSON file"),
        ("[1]", "must hold a JSON object, but holds a list"),
        (b"\xff\xfe{}", "is truncated or not a JSON file"),
        (f'{{"a": {"9" * (MAX_DIGITS + 1)}}}', f"holds a whole number of {MAX_DIGITS + 1} digits, expected at most"),
        (f'{{"a": [-{"9" * 5000}]}}', "holds a whole number of 5000 digits, expected at most"),
        (nested(MAX_DEPTH + 1), f"nests lists or objects more than {MAX_DEPTH} deep"),
        (f'{{"a": {"[" * MAX_DEPTH}{"]" * MAX_DEPTH}}}', f"nests lists or objects more than {MAX_DEPTH} deep"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", f"nests lists or objects more than {MAX_DEPTH} deep"),
        ("[" * 100_000, f"nests lists or objects more than {MAX_DEPTH} deep"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_json_that_cannot_be_read_is_named(tmp_path, content, words):
    file = tmp_path / "broken.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"broken\.json' {words}") as caught:
        read_json(file)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("\ufeff{}", {}),
        (f'{{"a": {"9" * MAX_DIGITS}}}', {"a": int("9" * MAX_DIGITS)}),
        ('{"a": [1e400, -0.5]}', {"a": [float("inf"), -0.5]}),
        ('{"a": "[[[["}', {"a": "[[[["}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_json_within_the_limits_is_read(tmp_path, content, expected):
    file = tmp_path / "whole.json"
    file.write_text(content, encoding="utf-8")
    assert read_json(file) == expected


def test_as_deep_as_the_limit_is_read():
    assert parse_json(nested(MAX_DEPTH), "a text")


def test_a_missing_json_file_is_named_with_its_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"the checkpoint '{tmp_path}' lacks a\.json"):
        read_json(tmp_path / "a.json", "the checkpoint")


@pytest.fixture(params=["pipe", "device", "socket", "folder", "nothing"])
def no_file(request, tmp_path):
    """A path that is not a regular file, and the words for it."""
    path = tmp_path / request.param
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "folder":
        path.mkdir()
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    elif request.param == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            yield path, ValueError, "is a socket; copy"
        return
    yield {
        "pipe": (path, ValueError, "is a pipe; copy"),
        "device": (path, ValueError, "is a device; copy"),
        "folder": (path, IsADirectoryError, "is a folder; name a file"),
        "nothing": (path, FileNotFoundError, "there is no file"),
    }[request.param]


def test_what_is_no_ordinary_file_is_named(no_file):
    path, error, words = no_file
    with pytest.raises(error, match=words):
        check_regular_file(path)


def test_a_pipe_is_no_json_file(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"a\.json' is a pipe"):
        read_json(tmp_path / "a.json")


def test_a_link_to_a_file_is_one(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "link.json").symlink_to("a.json")
    check_regular_file(tmp_path / "link.json")
    assert read_json(tmp_path / "link.json") == {}


def test_a_file_system_without_locks_is_worked_on_all_the_same(tmp_path, monkeypatch):
    def refuse(opened, operation):
        raise OSError(errno.EBADF, "as NFS says of a folder")

    monkeypatch.setattr("gpt4roi_nb.files.fcntl.flock", refuse)
    with (
        pytest.warns(UserWarning, match="cannot be locked; make sure no other training"),
        alone_in(tmp_path / "out", "training"),
    ):
        pass
    assert (tmp_path / "out").is_dir()


def test_half_a_character_is_written_and_read_again(tmp_path):
    write_json(tmp_path / "a.json", {"a": "\ud83d", "b": "\U0001f98a"})
    assert read_json(tmp_path / "a.json") == {"a": "\ud83d", "b": "\U0001f98a"}


def test_a_byte_order_mark_is_read_unless_another_reads_the_file(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf{}")
    assert read_json(tmp_path / "a.json") == {}
    with pytest.raises(ValueError, match=r"a\.json' begins with a byte order mark, which transformers does not read"):
        read_json(tmp_path / "a.json", with_mark=False)


def test_a_missing_folder_to_write_into_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'.*new\.json' cannot be written: there is no folder '.*absent'"):
        write_json(tmp_path / "absent" / "new.json", {})


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_a_name_that_no_file_can_have_is_said_wherever_a_file_is_named(name, tmp_path):
    for use in (
        lambda: check_regular_file(tmp_path / name),
        lambda: read_json(tmp_path / name),
        lambda: write_json(tmp_path / name, {}),
        lambda: load("coco", name),
        lambda: load("coco", tmp_path, also=name),
        lambda: GPT4RoI.from_pretrained(tmp_path / name),
        lambda: Result.load(tmp_path / name),
    ):
        with pytest.raises(ValueError, match=r"expected the path of a file or folder, but .* (more than|null byte)"):
            use()
    assert list(tmp_path.iterdir()) == []
