"""The notebooks run from top to bottom, and what they say of their first answers is true; so is the README."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LESSONS = NOTEBOOKS[1:]  # with exercises and their solutions
CELL_SECONDS = 900  # for a cell that hangs
# What a lesson says where its demonstration found nothing; each must be found with the demo checkpoint.
NOTHING_TO_SHOW = ("No such map was found", "None of these scenes' prompts has a sink")
_SOLUTION = re.compile(r"<details>.*?```python\n(.*?)```", re.DOTALL)
_COVERED = re.compile(r"covering the squares of region 2 makes it fall by (-?[\d.]+) at most")
_ANSWER_AND_TRUTH = re.compile(r"^the model: (.*)\nthe truth: (.*)$", re.MULTILINE)


def printed(path: Path) -> str:
    """What the cells of a notebook print, once it has run from top to bottom without an error.

    An exercise is a cell to fill in, its check, and a solution: the check runs as it stands, and once more with the
    solution.
    """
    notebook = nbformat.read(path, as_version=4)
    solved = []
    for index, cell in enumerate(notebook.cells):
        solved.append(cell)
        solution = _SOLUTION.search(cell.source) if cell.cell_type == "markdown" else None
        if solution:
            solved += [
                nbformat.v4.new_code_cell(solution[1]),
                nbformat.v4.new_code_cell(notebook.cells[index - 1].source),
            ]
    notebook.cells = solved
    client = nbclient.NotebookClient(
        notebook, timeout=CELL_SECONDS, kernel_name="python3", resources={"metadata": {"path": str(ROOT / "notebooks")}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


@pytest.mark.slow
@pytest.mark.timeout(2400)  # one of them trains
@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=pytest.mark.xdist_group(path.stem), id=path.stem) for path in NOTEBOOKS]
)
def test_it_runs_its_answers_are_right_and_its_checks_know_a_solution(path: Path) -> None:
    said = printed(path)
    # So that each is run once, all is looked at here.
    check_answers(said)
    check_exercises(said)
    if "words of the truth in the answers" in said:
        check_training(said)


def check_answers(printed: str) -> None:
    """What the model is shown to say is true, and no demonstration comes to nothing."""
    for answer, truth in _ANSWER_AND_TRUTH.findall(printed):
        for thing in truth.split(" and "):  # a second thing may be compared rather than named whole
            words = thing.split()
            assert any(word in answer.split() for word in words), f"{answer!r} is not {truth!r}"
        assert truth.split(" and ")[0] in answer, f"{answer!r} is not {truth!r}"
    for drop in _COVERED.findall(printed):  # else the lesson's map would be the reason for the word after all
        assert float(drop) < 0.3
    for nothing in NOTHING_TO_SHOW:
        assert nothing not in printed, f"a demonstration has nothing to show: {nothing!r}"


def check_exercises(printed: str) -> None:
    """The check of an exercise knows a solution from an empty cell."""
    empty = re.findall(r"^Exercise (\d+): not tried yet\.$", printed, re.MULTILINE)
    right = re.findall(r"^Exercise (\d+): right\.", printed, re.MULTILINE)
    assert empty == right == [str(number) for number in range(1, len(empty) + 1)]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_has_goals_and_exercises_with_solutions_and_says_what_it_does_not_show(path: Path) -> None:
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    assert "**Goals.**" in text
    assert text.count("### Exercise") == len(_SOLUTION.findall(text)) >= 3
    assert "## What this does not show" in text or path.stem in ("02_the_data", "03_train_it_yourself")


def test_what_a_lesson_says_of_finding_nothing_is_known_here() -> None:
    """So that the test above looks for the words that would be printed."""
    text = "\n".join(cell.source for path in LESSONS for cell in nbformat.read(path, as_version=4).cells)
    assert all(nothing in text for nothing in NOTHING_TO_SHOW)


def test_the_first_notebook_asks_and_tells_the_truth() -> None:
    """So that the test above has something to compare."""
    source = "".join(cell.source for cell in nbformat.read(NOTEBOOKS[0], as_version=4).cells)
    assert NOTEBOOKS[0].stem == "01_point_and_ask"
    assert source.count('"the model:"') == source.count('"the truth:"') >= 3


_LOSS = re.compile(r"^loss: ([\d.]+) at first, ([\d.]+) at last$", re.MULTILINE)
_SHARE = re.compile(r"^words of the truth in the answers: (\d+)% before, (\d+)% after$", re.MULTILINE)


def check_training(printed: str) -> None:
    """Both losses fell, the probes' answers turned right, by their own boxes, and the second stage was taken up."""
    falls = _LOSS.findall(printed)
    assert len(falls) == 2 and all(float(last) < 0.8 * float(first) for first, last in falls), falls
    ((before, after),) = _SHARE.findall(printed)
    assert int(after) >= 75 and int(after) >= int(before) + 25, printed
    own, others = map(int, re.search(r"with its own box (\d+)%, with another's (\d+)%", printed).groups())
    assert own >= others + 20
    assert re.search(r"^stopped at step 1\d of ", printed, re.MULTILINE)


def test_the_readmes_python_prints_what_it_says() -> None:
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    expected = re.findall(r"^print\(.*\) +# (.*)$", block, re.MULTILINE)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(block, {})
    assert len(expected) == 2 and said.getvalue().splitlines() == expected


def test_the_pythons_of_the_docs_run(tmp_path, monkeypatch):
    """Block after block of the page, as a reader would paste them."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "from_python.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()) as said:
        for block in blocks:
            exec(block, names)
    assert len(blocks) == 9 and said.getvalue() and (tmp_path / "talk.json").is_file()
