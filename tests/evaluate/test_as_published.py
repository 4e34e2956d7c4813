"""docs/as_published.md has a row for every published figure in code, and its commands and splits exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gpt4roi_nb.evaluate.__main__ import CANNOT_TELL, DIFFERS, INTERRUPTED, parse
from gpt4roi_nb.evaluate.benchmarks.registry import BENCHMARKS
from gpt4roi_nb.evaluate.verify import ABOVE, AS_PUBLISHED, BELOW, CHECKS, LEAST_IMAGES, UNTOLD

PAGE = (Path(__file__).parents[2] / "docs" / "as_published.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if re.match(r"\| `\w+` \| ", line)
]


def commands() -> list[list[str]]:
    """Those in backquotes and in blocks, without comments."""
    found = re.findall(r"python -m gpt4roi_nb\.evaluate ([^`\n]*)", PAGE)
    return [shlex.split(text, comments=True) for text in found]


def test_every_published_figure_in_code_has_its_row_and_no_other_row_is_there():
    expected = [
        (f"`{name}`", one.model, f"`{one.split}`", ", ".join(f"{key} {value:g}" for key, value in one.metrics.items()))
        for name, benchmark in BENCHMARKS.items()
        for one in benchmark.published
    ]
    assert len(expected) > 10
    assert sorted(tuple(row[:4]) for row in ROWS) == sorted(expected)


def test_every_row_asks_its_own_benchmark_and_split():
    for row in ROWS:
        (command,) = re.findall(r"^`python -m gpt4roi_nb\.evaluate ([^`]*)`$", row[4])
        options = parse(shlex.split(command))
        assert options.benchmarks == [row[0].strip("`")] and options.split == row[2].strip("`"), command
        assert options.split in BENCHMARKS[options.benchmarks[0]].splits, command
        assert options.scorer in (None, *BENCHMARKS[options.benchmarks[0]].scoring), command
        assert options.checkpoint and options.root == Path("data")
        assert len(row) == 6


def test_every_command_of_the_page_is_one():
    found = commands()
    assert len(found) > len(ROWS) and any(command[0] == "verify" for command in found)
    for command in found:
        options = parse(command)
        assert "model" not in options or options.model in CHECKS
    for check in (check for checks in CHECKS.values() for check in checks):
        assert check.split in BENCHMARKS[check.benchmark].splits and check.scorer in BENCHMARKS[check.benchmark].scoring


def test_the_page_tells_the_rules_of_verify():
    for code in (DIFFERS, CANNOT_TELL, INTERRUPTED):
        assert f"\n| {code} | " in PAGE
    assert f"\n| {AS_PUBLISHED} | " in PAGE and f"\n| {BELOW}, {ABOVE} | " in PAGE and f"\n| {UNTOLD} | " in PAGE
    assert f"fewer than {LEAST_IMAGES} images" in PAGE
    tolerances = {check.benchmark: dict(check.tolerances) for check in CHECKS["GPT4RoI-7B"]}
    assert tolerances == {"vcr": {"Q→A": 7, "QA→R": 7, "Q→AR": 8}, "lvis": {"SS": 7, "S-IoU": 6}}
    assert "The tolerance is 7 points, 8 for Q→AR, and 6 for S-IoU." in PAGE


@pytest.mark.parametrize("figures", ["75.6", "82.9", "53.20, 65.24, 68.29", "90.5 / 82.7", "65.76", "41.24", "168.2"])
def test_figures_that_nothing_reproduces_stand_there_too(figures):
    assert figures in PAGE.partition("## Figures that no command here reproduces")[2]
