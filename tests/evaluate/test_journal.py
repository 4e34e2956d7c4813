"""A journal that was damaged loses the damaged lines alone, and answers about other images are not taken over."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import pytest

from gpt4roi_nb.data.problems import NO_IMAGE, BadRecord
from gpt4roi_nb.evaluate.benchmarks.item import Prediction
from gpt4roi_nb.evaluate.journal import RUN, Journal

RUN_OF = {"benchmark": "coco", "limit": None}
ANSWERS = {
    "0.0": [Prediction("a", "cat", -0.5, None, 0.25, 64, 48, "10 20"), ("b", BadRecord(NO_IMAGE, "there is none"))],
    "0.1": [Prediction("c", "(A)", -0.1, (-0.1, -2.5), 0.25, 64, 48, "30 40")],
    "1.0": [Prediction("d", "", None, None, 0.5, 64, 48)],
}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "run")
    journal.begin(RUN_OF)
    for batch, outcomes in ANSWERS.items():
        journal.add(batch, outcomes)
    return journal


def plain(found):
    """Outcomes that can be compared: exceptions are equal to themselves alone."""
    return {
        batch: [row if isinstance(row, Prediction) else (row[0], str(row[1])) for row in rows]
        for batch, rows in found.items()
    }


def test_what_was_added_comes_back(journal):
    assert plain(journal.done()) == plain(ANSWERS)
    assert journal.settled() == {"0.1", "1.0"}
    assert plain(Journal(journal.folder, process=3).done()) == plain(ANSWERS)


ROW = {"id": "c", "answer": "x", "logprob": 0.0, "option_logprobs": None, "seconds": 1.0, "width": 1, "height": 1}
DAMAGED = [
    "",
    "   ",
    "\0" * 40,
    "garbage",
    '{"batch": "0.1", "rows": [{"id": "c"',
    "[1]",
    "5",
    "{}",
    '{"batch": "0.1"}',
    '{"batch": 1, "rows": []}',
    '{"batch": "0.1", "rows": []}',
    '{"batch": "0.1", "rows": [5]}',
    '{"batch": "0.1", "rows": [{"id": "c"}]}',
    '{"batch": "0.1", "rows": [{"id": "c", "reason": 5, "detail": ""}]}',
    *(json.dumps({"batch": "0.1", "rows": [{**ROW, **wrong}]}) for wrong in (
        {"answer": None}, {"width": "1"}, {"option_logprobs": ["a"]}, {"more": 1}, {"seconds": None},
    )),
    "[" * 100_000,
    "9" * 5000,
    '{"batch": "\\ud800", "rows": ',
]  # fmt: skip


@pytest.mark.parametrize("damaged", DAMAGED)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_damaged_line_is_asked_again_and_the_others_stay(journal, damaged, place):
    file = journal.folder / "answers-0.jsonl"
    lines = file.read_text().splitlines()
    lines.insert(place, damaged)
    del lines[place + 1 : place + 2]  # the line that it was
    file.write_text("".join(line + "\n" for line in lines))
    left = dict(list(ANSWERS.items())[:place] + list(ANSWERS.items())[place + 1 :])
    assert plain(journal.done()) == plain(left)
    # Where the process that wrote the file does not run any more, too.
    with pytest.warns(UserWarning, match=r"1 damaged line.* out of '.*answers-0.jsonl'; .* asked again"):
        Journal(journal.folder, process=place).mend()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        journal.mend()  # nothing is left to mend
    for batch in ANSWERS.keys() - left.keys():
        journal.add(batch, ANSWERS[batch])
    assert plain(journal.done()) == plain(ANSWERS)


def test_a_line_that_a_kill_cut_short_is_dropped_without_a_word(journal):
    file = journal.folder / "answers-0.jsonl"
    file.write_bytes(file.read_bytes() + '{"batch": "2.0", "rows": [{"id": "é'.encode()[:-1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        journal.mend()
    assert plain(journal.done()) == plain(ANSWERS)


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
        journal.done()


def test_answers_about_images_that_have_changed_are_refused(journal):
    stamps = {"a": "10 20", "b": "1 1", "c": "30 40", "d": "5 6"}
    journal.check_images(stamps.__getitem__)  # of `d` it is not known, and `b` has no answer
    journal.check_images(lambda name: "")  # gone: what was answered stays
    with pytest.raises(ValueError, match=r"1 answers? about images that have changed since, such as that of 'c'; name"):
        journal.check_images({**stamps, "c": "30 41"}.__getitem__)
