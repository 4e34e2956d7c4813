"""The notebooks run from top to bottom, and what they say of their first answers is true; so is the README."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from types import SimpleNamespace

import nbclient
import nbformat
import pytest
import torch
from lessons import NOTEBOOKS, NOTHING_TO_SHOW, ROOT, RUN_IN_LAB, RUN_THROUGH_A_HUB, SOLUTION, check, solved

FIRST, *LESSONS = NOTEBOOKS.values()  # lessons have exercises and their solutions
CELL_SECONDS = 900  # for a cell that hangs


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if name not in RUN_IN_LAB + RUN_THROUGH_A_HUB])
def test_it_runs_its_answers_are_right_and_its_checks_know_a_solution(name: str) -> None:
    """Of those that no browser test runs."""
    notebook = solved(NOTEBOOKS[name])
    folder = {"metadata": {"path": str(ROOT / "notebooks")}}
    nbclient.NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3", resources=folder).execute()
    check(notebook)


def test_what_browser_tests_run_are_notebooks() -> None:
    assert set(RUN_IN_LAB + RUN_THROUGH_A_HUB) <= NOTEBOOKS.keys()


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_has_goals_and_exercises_with_solutions_and_says_what_it_does_not_show(path: Path) -> None:
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    assert "**Goals.**" in text
    assert text.count("### Exercise") == len(SOLUTION.findall(text)) >= 3
    assert "## What this does not show" in text or path.stem in ("02_the_data", "03_train_it_yourself")


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_answers_in_checks_are_folded(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    checks = [cell for cell in cells if cell.cell_type == "code" and ": not tried yet." in cell.source]
    assert len(checks) >= 3
    assert all(cell.metadata.get("jupyter", {}).get("source_hidden") for cell in checks)
    assert all(cell.source.startswith("# The check of exercise ") for cell in checks)  # the line that Lab shows


NUMBERS = torch.tensor([[0.1, 0.2], [0.4, 0.3]])
LOOKED = SimpleNamespace(tokens=["a", "star"], layers=[0, 1], heads=[0, 1], matrix=lambda span, token: NUMBERS)
FEATURES = SimpleNamespace(similarity_map=lambda region, level: NUMBERS)
WITHOUT = SimpleNamespace(change=NUMBERS[0] - 1, verdict=lambda token: "it falls")


@pytest.mark.parametrize(
    ("name", "number", "known", "words"),
    [
        ("02_the_data", 1, {"annotation": {"bbox": [1, 2, 3, 4]}, "my_box": 7}, "four numbers"),
        ("04_what_is_in_a_region", 2, {"features": FEATURES, "my_place": (9, 9)}, "(0, 0) to (1, 1)"),
        ("04_what_is_in_a_region", 2, {"features": FEATURES, "my_place": 3}, "(row, column)"),
        ("05_where_does_it_look", 1, {"attention": LOOKED, "without_one": WITHOUT, "my_token": 99}, "0 to 1"),
        ("05_where_does_it_look", 2, {"attention": LOOKED, "without_one": WITHOUT, "my_head": (9, 0)}, "(1, 1)"),
        ("05_where_does_it_look", 2, {"attention": LOOKED, "without_one": WITHOUT, "my_head": 3}, "(layer, head)"),
    ],
)
def test_a_check_says_what_form_an_answer_has(name, number, known, words, capsys):
    """An answer out of range, or a number for a pair, gave a traceback of the folded cell."""
    cells = nbformat.read(NOTEBOOKS[name], as_version=4).cells
    (source,) = (cell.source for cell in cells if cell.source.startswith(f"# The check of exercise {number}."))
    exec(source, dict(known))
    said = capsys.readouterr().out
    assert said.startswith(f"Exercise {number}: ") and words in said


@pytest.mark.parametrize("path", NOTEBOOKS.values(), ids=lambda path: path.stem)
def test_the_next_lesson_is_a_link(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    links = re.findall(r"^Next: \[.+\]\((.+)\)$", "\n".join(cell.source for cell in cells), re.MULTILINE)
    names = sorted(NOTEBOOKS)
    following = names[names.index(path.stem) + 1 :][:1]
    assert [link.removesuffix(".ipynb") for link in links] == following


def test_what_a_lesson_says_of_finding_nothing_is_known_here() -> None:
    """So that the test above looks for the words that would be printed."""
    text = "\n".join(cell.source for path in LESSONS for cell in nbformat.read(path, as_version=4).cells)
    assert all(nothing in text for nothing in NOTHING_TO_SHOW)


def test_the_first_notebook_asks_and_tells_the_truth() -> None:
    """So that the test above has something to compare."""
    source = "".join(cell.source for cell in nbformat.read(FIRST, as_version=4).cells)
    assert FIRST.stem == "01_point_and_ask"
    assert source.count('"the model:"') == source.count('"the truth:"') >= 3


def test_running_all_cells_leaves_the_first_chat_to_its_reader() -> None:
    """Else the region that the reader draws in section 2 is not region 1."""
    source = "\n".join(cell.source for cell in nbformat.read(FIRST, as_version=4).cells if cell.cell_type == "code")
    assert "\nchat = RegionChat(" in source
    assert not re.search(r"\bchat\.(?!session\.(roi_features|describe)\b)", source)


def test_the_readmes_python_prints_what_it_says() -> None:
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"## Ten lines of Python\n+```python\n(.*?)```", readme, re.DOTALL).group(1)
    expected = re.findall(r"^print\(.*\) +# (.*)$", block, re.MULTILINE)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(block, {})
    assert len(expected) == 2 and said.getvalue().splitlines() == expected


def test_the_readmes_three_lines_open_a_chat(monkeypatch):
    from tiny_families import tiny_family

    from gpt4roi_nb.models import PromptedModel

    asked: list[str] = []

    def load(path: str) -> PromptedModel:
        asked.append(path)
        return PromptedModel(*tiny_family("qwen3_vl"), None, path)

    monkeypatch.setattr("gpt4roi_nb.load_model", load)
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    *lines, last = block.splitlines()
    names: dict[str, object] = {}
    exec("\n".join(lines), names)
    chat = eval(last, names)
    assert asked == ["Qwen/Qwen3-VL-2B-Instruct"] and isinstance(chat.gpt4roi, PromptedModel)
    chat.close()


@pytest.mark.slow
def test_the_pythons_of_the_docs_run(tmp_path, monkeypatch):
    """Block after block of the page, as a reader would paste them."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "from_python.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()) as said:
        for block in blocks:
            exec(block, names)
    assert len(blocks) == 10 and said.getvalue() and (tmp_path / "talk.json").is_file()
