"""`ask-table` answers a table of questions row by row, and says what is wrong with rows that it cannot ask."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.evaluate import ask_table, predict
from gpt4roi_nb.evaluate.ask_table import NOT_ASKED, main
from gpt4roi_nb.evaluate.question_table import read_table

NAMED = "What is <region1>?"
ROWS = [
    ["a.png", NAMED, "2 2 20 20", "7"],
    ["b.png", NAMED, "4,4,30,30", "é"],
    ["a.png", "Is <region1> larger than <region2>?", "2 2 20 20; 5 5 9 9", ""],
    ["a.png", "What is this?", "", "one, two"],
    ["absent.png", NAMED, "2 2 20 20", ""],
    ["a.png", NAMED, "", ""],
    ["a.png", NAMED, "2 2 x", ""],
    ["a.png", NAMED, "900 900 950 950", ""],
    ["broken.png", NAMED, "2 2 20 20", ""],
    ["a.png", NAMED, "2 2 20 20", "again"],
    ["../a.png", NAMED, "2 2 20 20", ""],
    ["link.png", NAMED, "2 2 20 20", ""],
    ["b.png", "What is Region 1?", "4,4,30,30", ""],
]
PROBLEMS = {
    4: "there is no image 'absent.png'",
    5: "add a box",
    6: "each box must be four numbers",
    7: "lies wholly outside the image",
    8: "is not an image that can be read",
    10: "a path below the folder",
    11: "outside",
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny_gpt4roi(seed=1).save_pretrained(folder)
    return str(folder)


@pytest.fixture()
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(("a.png", "b.png")):
        Image.fromarray(np.roll(tiny_image(), number, 0)).save(folder / name)
    (folder / "broken.png").write_text("no image\n")
    Image.fromarray(tiny_image()).save(tmp_path / "a.png")
    (folder / "link.png").symlink_to(tmp_path / "a.png")
    return folder


@pytest.fixture()
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GPT4RoI, "from_pretrained", None)


def test_a_line_break_of_unicode_cuts_no_row_and_an_infinite_box_is_a_problem_of_its_row(
    photos: Path, tmp_path: Path
) -> None:
    rows = [
        ["a.png", "What is <region1>,\u2028and why?", "1 2 30 40"],
        ["a.png", "What is\x85<region1>?", "1 2 30 40"],
        ["a.png", NAMED, "1 2 inf 40"],
        ["a.png", NAMED, "nan 2 30 40"],
    ]
    (tmp_path / "q.csv").write_text("image;question;boxes\n" + "".join(";".join(row) + "\n" for row in rows))
    found = read_table(tmp_path / "q.csv", photos).rows
    assert [row.question for row in found] == [question for _, question, _ in rows]
    assert [row.boxes for row in found[:2]] == [((1.0, 2.0, 30.0, 40.0),)] * 2
    assert ["finite pixels" in row.problem for row in found] == [False, False, True, True]


def write(file: Path, rows: list[list[str]], header: str = "image,question,boxes,note", delimiter: str = ",") -> Path:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerows([header.split(","), *rows])
    return file


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def run(photos: Path, table: Path, checkpoint: str, *more: str) -> int:
    answers = table.with_name("answers.csv")
    options = ["--checkpoint", checkpoint, "--max-new-tokens", "3", "--batch-size", "2", *more]
    return main([str(photos), str(table), str(answers), *options])


def test_every_row_has_an_answer_or_a_problem_in_words(photos, tmp_path, tiny, capsys) -> None:
    assert run(photos, write(tmp_path / "questions.csv", ROWS), tiny) == 1
    found = read(tmp_path / "answers.csv")
    assert [[row[name] for name in ("image", "question", "boxes", "note")] for row in found] == ROWS
    for number, row in enumerate(found):
        if number in PROBLEMS:
            assert row["answer"] == "" and PROBLEMS[number] in row["problem"]
        else:
            assert row["problem"] == ""
    assert found[0]["answer"] == found[9]["answer"]
    assert f"{len(ROWS) - len(PROBLEMS)} of {len(ROWS)} rows have an answer" in capsys.readouterr().err
    model = GPT4RoI.from_pretrained(tiny, device="cpu")
    session = model.session(photos / "a.png")
    assert found[0]["answer"] == str(session.ask(NAMED, [[2, 2, 20, 20]], max_new_tokens=3))


def test_an_interrupt_keeps_what_was_answered_and_the_same_call_goes_on(
    photos, tmp_path, tiny, monkeypatch, capsys
) -> None:
    rows = [["a.png", NAMED, f"2 2 {20 + number} 20", ""] for number in range(5)]
    table = write(tmp_path / "questions.csv", rows)
    plain, asked = predict.BatchedPredictor._write, []

    def interrupted(self, questions, shared):
        if len(asked) == 1:
            raise KeyboardInterrupt
        asked.append(len(questions))
        return plain(self, questions, shared)

    monkeypatch.setattr(predict.BatchedPredictor, "_write", interrupted)
    assert run(photos, table, tiny) == 130
    first = read(tmp_path / "answers.csv")
    assert [row["problem"] for row in first].count(NOT_ASKED) == 3 and len(first) == 5
    assert "the same call continues" in capsys.readouterr().err

    def counted(self, questions, shared):
        asked.append(len(questions))
        return plain(self, questions, shared)

    monkeypatch.setattr(predict.BatchedPredictor, "_write", counted)
    assert run(photos, table, tiny) == 0
    second = read(tmp_path / "answers.csv")
    assert sum(asked) == 5  # nothing was asked twice
    assert all(row["problem"] == "" for row in second)
    assert all(new["answer"] == old["answer"] for new, old in zip(second, first, strict=True) if not old["problem"])

    # One more row: only that one is asked.
    write(table, [*rows, ["b.png", NAMED, "1 1 9 9", ""]])
    assert run(photos, table, tiny) == 0 and sum(asked) == 6
    assert run(photos, table, tiny, "--max-new-tokens", "2") == 2
    assert "holds another run (max_new_tokens: 3, now 2)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("image,boxes", "has no column question; its first line has 'image', 'boxes'"),
        ("image,question", "has no column boxes (or x1, y1, x2, y2)"),
        ("image,question,boxes,answer", "already has a column 'answer'"),
        ("image,question,boxes,image", "has two columns 'image'"),
        ("", "has no column image"),
    ],
)
def test_a_table_that_lacks_something_is_told_before_a_model_is_loaded(
    header, message, photos, tmp_path, no_model, capsys
) -> None:
    table = tmp_path / "questions.csv"
    table.write_text(f"{header}\na.png,What?\n" if header else "")
    assert run(photos, table, "absent") == 2
    assert message in capsys.readouterr().err


def test_where_no_row_can_be_asked_no_model_is_loaded(photos, tmp_path, no_model) -> None:
    table = write(tmp_path / "questions.csv", [ROWS[4], ROWS[5], [*ROWS[0], "a fifth cell"]])
    assert run(photos, table, "absent") == 1
    problems = [row["problem"] for row in read(tmp_path / "answers.csv")]
    assert len(problems) == 3 and "this row has 5 cells, but the header 4" in problems[2]


def test_other_spreadsheets_write_semicolons_and_four_columns(photos, tmp_path) -> None:
    header = "image,question,x1,y1,x2,y2"
    rows = [["a.png", NAMED, "1", "2", "30", "4.5"], ["a.png", "What, please?", "", "", "", ""]]
    table = write(tmp_path / "questions.csv", rows, header, ";")
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    found = read_table(table, photos)
    assert found.delimiter == ";" and [row.problem for row in found.rows] == ["", ""]
    assert [row.boxes for row in found.rows] == [((1, 2, 30, 4.5),), ()]
    table.write_bytes("image,question,boxes\né.png,What?,\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        read_table(table, photos)


def test_nothing_of_anybody_elses_is_written_over(photos, tmp_path, no_model, capsys) -> None:
    table = write(tmp_path / "questions.csv", ROWS)
    (tmp_path / "answers.csv").write_text("mine")
    assert run(photos, table, "absent") == 2
    assert "already exists" in capsys.readouterr().err
    assert ask_table.main([str(tmp_path / "no"), str(table), str(tmp_path / "new.csv")]) == 2
    assert "there is no folder" in capsys.readouterr().err
