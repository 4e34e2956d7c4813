"""The notebooks with their exercises solved, and what must be true of what their cells print.

Each notebook is run once: those that a browser test runs are looked at there, all others by `test_notebooks.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
RUN_IN_LAB = ("02_the_data", "03_train_it_yourself", "08_other_models")
RUN_THROUGH_A_HUB = ("01_point_and_ask", "06_measure", "07_browse_failures")
# What a lesson says where its demonstration found nothing; each must be found with the demo checkpoint.
NOTHING_TO_SHOW = ("No such map was found", "None of these scenes' prompts has a sink")
SOLUTION = re.compile(r"<details>.*?```python\n(.*?)```", re.DOTALL)
_COVERED = re.compile(r"covering the squares of region 2 makes it fall by (-?[\d.]+) at most")
_ANSWER_AND_TRUTH = re.compile(r"^the model: (.*)\nthe truth: (.*)$", re.MULTILINE)
_LOSS = re.compile(r"^loss: ([\d.]+) at first, ([\d.]+) at last$", re.MULTILINE)
_SHARE = re.compile(r"^words of the truth in the answers: (\d+)% before, (\d+)% after$", re.MULTILINE)
_P_VALUE = re.compile(r"McNemar's test: p = (\S+)")
_IN_WORDS = re.compile(r"In words, \w+ loses (\d+) points")
_CONTROL = re.compile(r"with its own box (\d+)%, with another's (\d+)%")


def solved(path: Path) -> nbformat.NotebookNode:
    """The notebook with solutions: an exercise's check runs as it stands, and once more after the solution."""
    notebook = nbformat.read(path, as_version=4)
    cells = []
    for index, cell in enumerate(notebook.cells):
        cells.append(cell)
        solution = SOLUTION.search(cell.source) if cell.cell_type == "markdown" else None
        if solution:
            check = notebook.cells[index - 1].source
            cells += [nbformat.v4.new_code_cell(solution[1]), nbformat.v4.new_code_cell(check)]
    notebook.cells = cells
    return notebook


def check(notebook: nbformat.NotebookNode) -> None:
    """What a solved notebook printed, once it has run from top to bottom without an error, is right."""
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    _check_answers(printed)
    _check_exercises(printed)
    _check_comparisons(printed)
    if "words of the truth in the answers" in printed:
        _check_training(printed)


def _check_answers(printed: str) -> None:
    """What the model is shown to say is true, and no demonstration comes to nothing."""
    for answer, truth in _ANSWER_AND_TRUTH.findall(printed):
        for thing in truth.split(" and "):  # a second thing may be compared rather than named whole
            words = thing.split()
            assert any(word in answer.split() for word in words), f"{answer!r} is not {truth!r}"
        assert truth.split(" and ")[0] in answer, f"{answer!r} is not {truth!r}"
    for drop in _COVERED.findall(printed):  # else the lesson's map would be the reason for the word after all
        assert float(drop) < 0.3
    for lost in _IN_WORDS.findall(printed):  # else the lesson's control would not separate the words from the image
        assert int(lost) >= 30
    for nothing in NOTHING_TO_SHOW:
        assert nothing not in printed, f"a demonstration has nothing to show: {nothing!r}"


def _check_comparisons(printed: str) -> None:
    """A paired test finds the damage; where a lesson makes a second one, it finds nothing between two alike."""
    found, *nothing = map(float, _P_VALUE.findall(printed)) if "McNemar" in printed else (0.0,)
    assert found < 0.01 and all(p > 0.1 for p in nothing)


def _check_exercises(printed: str) -> None:
    """The check of an exercise knows a solution from an empty cell."""
    empty = re.findall(r"^Exercise (\d+): not tried yet\.$", printed, re.MULTILINE)
    right = re.findall(r"^Exercise (\d+): right\.", printed, re.MULTILINE)
    assert empty == right == [str(number) for number in range(1, len(empty) + 1)]


def _check_training(printed: str) -> None:
    """Both losses fell, the probes' answers turned right, by their own boxes, and the second stage was taken up."""
    falls = _LOSS.findall(printed)
    assert len(falls) == 2 and all(float(last) < 0.8 * float(first) for first, last in falls), falls
    ((before, after),) = _SHARE.findall(printed)
    assert int(after) >= 75 and int(after) >= int(before) + 25, printed
    ((own, others),) = _CONTROL.findall(printed)
    assert int(own) >= int(others) + 20
    assert re.search(r"^stopped at step 1\d of ", printed, re.MULTILINE)
