"""A damaged journal loses only its damaged lines, and answers about changed images are not reused."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import pytest

from gpt4roi_nb.data.problems import NO_IMAGE, BadRecord
from gpt4roi_nb.evaluate.benchmarks.item import Prediction
from gpt4roi_nb.evaluate.journal import RUN, Journal, outcome_id

RUN_OF = {"benchmark": "coco", "limit": None}
BATCHES = [
    [Prediction("a", "cat", -0.5, None, 0.25, 64, 48, "10 20"), ("b", BadRecord(NO_IMAGE, "there is none"))],
    [Prediction("c", "(A)", -0.1, (-0.1, -2.5), 0.25, 64, 48, "30 40")],
    [Prediction("d", "", None, None, 0.5, 64, 48)],
]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "run")
    journal.begin(RUN_OF)
    for outcomes in BATCHES:
        journal.add(outcomes, 4)
    return journal


def plain(batches):
    """Outcomes by id in a form that can be compared; an exception equals only itself."""
    return {
        outcome_id(row): row if isinstance(row, Prediction) else (row[0], str(row[1]))
        for batch in batches
        for row in batch
    }


def read(folder: Path) -> Journal:
    found = Journal(folder)
    found.read()
    return found


def test_what_was_added_comes_back(journal):
    for found in (journal, read(journal.folder)):
        assert plain([found.done().values()]) == plain(BATCHES)
        assert found.settled() == {"a", "c", "d"}
        assert found.batch_sizes == {4}


def test_an_image_that_came_later_counts_whatever_the_order(journal):
    there = Prediction("b", "dog", -0.5, None, 0.25, 64, 48, "50 60")
    gone = ("d", BadRecord(NO_IMAGE, "there is none"))
    # Files are read in the order of their names; that of the second process holds earlier answers.
    (journal.folder / "answers-0.jsonl").rename(journal.folder / "answers-1.jsonl")
    journal.add([there, gone], 2)
    for found in (journal, read(journal.folder)):
        assert found.done()["b"] == there and found.settled() == {"a", "b", "c", "d"}
        assert found.batch_sizes == {4, 2}


def test_what_an_earlier_version_wrote_is_taken_over(journal):
    lines = (journal.folder / "answers-0.jsonl").read_text().replace('"batch_size": 4', '"batch": "0.1"')
    (journal.folder / "answers-0.jsonl").write_text(lines)
    (journal.folder / RUN).write_text(json.dumps({**RUN_OF, "batch_size": 16}))
    found = read(journal.folder)
    found.begin(RUN_OF)
    assert plain([found.done().values()]) == plain(BATCHES) and found.batch_sizes == set()


ROW = {"id": "c", "answer": "x", "logprob": 0.0, "option_logprobs": None, "seconds": 1.0, "width": 1, "height": 1}
DAMAGED = [
    "",
    "   ",
    "\0" * 40,
    "garbage",
    '{"batch_size": 4, "rows": [{"id": "c"',
    "[1]",
    "5",
    "{}",
    '{"batch_size": 4}',
    '{"batch_size": "4", "rows": []}',
    '{"batch_size": 4, "rows": []}',
    '{"batch_size": 4, "rows": [5]}',
    '{"batch_size": 4, "rows": [{"id": "c"}]}',
    '{"batch_size": 4, "rows": [{"id": "c", "reason": 5, "detail": ""}]}',
    *(json.dumps({"batch_size": 4, "rows": [{**ROW, **wrong}]}) for wrong in (
        {"answer": None}, {"width": "1"}, {"option_logprobs": ["a"]}, {"more": 1}, {"seconds": None},
    )),
    "[" * 100_000,
    "9" * 5000,
    '{"batch_size": "\\ud800", "rows": ',
]  # fmt: skip


@pytest.mark.parametrize("damaged", DAMAGED)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_damaged_line_is_asked_again_and_the_others_stay(journal, damaged, place):
    file = journal.folder / "answers-0.jsonl"
    lines = file.read_text().splitlines()
    lines.insert(place, damaged)
    del lines[place + 1 : place + 2]  # the line that it was
    file.write_text("".join(line + "\n" for line in lines))
    left = BATCHES[:place] + BATCHES[place + 1 :]
    assert plain([read(journal.folder).done().values()]) == plain(left)
    # Also if the process that wrote the file no longer runs.
    mended = Journal(journal.folder, process=place)
    with pytest.warns(UserWarning, match=r"1 damaged line.* from '.*answers-0.jsonl'; .* asked again"):
        mended.mend()
    assert plain([mended.done().values()]) == plain(left)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Journal(journal.folder).mend()  # nothing is left to mend
    for batch in BATCHES[place : place + 1]:
        mended.add(batch, 4)
    assert plain([read(journal.folder).done().values()]) == plain(BATCHES)


def test_half_a_character_in_another_line_does_not_keep_it_from_being_mended(journal):
    file = journal.folder / "answers-0.jsonl"
    half = {"batch_size": 4, "rows": [{**ROW, "id": "e", "answer": "a \ud83d"}]}
    file.write_text(file.read_text() + "broken\n" + json.dumps(half) + "\n")
    with pytest.warns(UserWarning, match="1 damaged line"):
        journal.mend()
    assert read(journal.folder).done()["e"].answer == "a \ufffd"


def test_a_line_that_a_kill_cut_short_is_dropped_without_a_word(journal):
    file = journal.folder / "answers-0.jsonl"
    file.write_bytes(file.read_bytes() + '{"batch_size": 4, "rows": [{"id": "é'.encode()[:-1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        journal.mend()
    assert plain([read(journal.folder).done().values()]) == plain(BATCHES)


@pytest.mark.parametrize("content", ["", "\0" * 10, "[]", '{"benchmark": ', "[" * 100_000])
def test_a_damaged_run_file_is_named(journal, content):
    (journal.folder / RUN).write_text(content)
    with pytest.raises(ValueError, match=r"run\.json.*nobody can tell.*name another folder"):
        journal.begin(RUN_OF)


def test_a_pipe_in_the_folder_does_not_hang(tmp_path):
    journal = Journal(tmp_path)
    os.mkfifo(tmp_path / "answers-1.jsonl")
    with pytest.raises(ValueError, match="holds answers, but no run"):
        journal.begin(RUN_OF)
    with pytest.raises(ValueError, match="is a pipe"):
        journal.read()


def test_answers_about_images_that_have_changed_are_refused(journal):
    stamps = {"a": "10 20", "b": "1 1", "c": "30 40", "d": "5 6"}
    journal.check_images(stamps.__getitem__)  # the stamp of `d` is unknown, and `b` has no answer
    journal.check_images(lambda name: "")  # missing images: answers are kept
    with pytest.raises(
        ValueError, match=r"1 answers? about images that have changed since, such as the answer to 'c'; name"
    ):
        journal.check_images({**stamps, "c": "30 41"}.__getitem__)
