"""Every command is listed, its help is quick and shows an example, and repeated values equal their sources."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gpt4roi_nb import commands
from gpt4roi_nb.__main__ import main
from gpt4roi_nb.checkpoint.convert import DEFAULT_TOWER, DTYPES
from gpt4roi_nb.data.scenes.formats.write import SIZE
from gpt4roi_nb.evaluate.ask_table import main as table_main
from gpt4roi_nb.evaluate.benchmarks.registry import BENCHMARKS
from gpt4roi_nb.evaluate.run import BATCH_SIZE
from gpt4roi_nb.evaluate.verify import CHECKS, ITEMS

SLOW = ("torch", "transformers", "numpy")
# Prints the help of each command, and the slow packages that were imported for it.
SCRIPT = f"""
import contextlib, io, json, sys
from gpt4roi_nb.__main__ import main
said = {{}}
for name in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main([*name.split(), "--help"])
    said[name] = printed.getvalue()
print(json.dumps([said, [name for name in {SLOW!r} if name in sys.modules]]))
"""
MORE = ("checkpoint convert", "checkpoint start", "evaluate verify", "evaluate export", "evaluate import")


@pytest.fixture(scope="module")
def helped() -> tuple[dict[str, str], list[str]]:
    names = json.dumps(["", "ask", *commands.COMMANDS, *MORE])
    done = subprocess.run([sys.executable, "-c", SCRIPT, names], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_help_imports_nothing_slow(helped) -> None:
    said, imported = helped
    assert all(text.startswith("usage: python -m gpt4roi_nb") for text in said.values())
    assert imported == []


@pytest.mark.parametrize("name", ["ask", *commands.COMMANDS])
def test_every_command_is_listed_and_its_help_shows_how_it_is_called(helped, name) -> None:
    said, _ = helped
    assert f"    {name} " in said[""] or f"    {name}\n" in said[""]
    assert "for example:\n  python -m gpt4roi_nb " + name in said[name]


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_the_examples_of_a_help_are_taken(helped, name) -> None:
    examples = [line for line in helped[0][name].splitlines() if line.startswith("  python -m gpt4roi_nb ")]
    assert examples
    for line in examples:
        _, _, _, command, *words = shlex.split(line)
        assert command == name and commands.parse(command, words)


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_a_command_is_run_with_the_parser_of_its_help(name, capsys) -> None:
    """The module itself, as `python -m gpt4roi_nb.evaluate` calls it."""
    with pytest.raises(SystemExit) as ended:
        main([name, "--absent"])
    assert ended.value.code == 2
    assert f"{commands.PROG} {name}: error:" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["evaluate", "kokos"], ["scenes"], ["draw", "a.png", "What?", "--box", "1,2,3"]])
def test_a_slip_is_told_in_one_line(words, capsys) -> None:
    """The usage of `evaluate` alone has 14 lines, below which nobody finds the error."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1
    assert said.endswith(f" (see {commands.PROG} {words[0]} --help)\n")


@pytest.mark.parametrize("command", commands.COMMANDS)
def test_an_interrupt_ends_a_command_in_one_line(command, helped, monkeypatch, capsys) -> None:
    """Also while its module is imported, which takes seconds."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("runpy.run_module", interrupted)
    line = next(line for line in helped[0][command].splitlines() if line.startswith("  python -m gpt4roi_nb "))
    assert main(shlex.split(line)[3:]) == commands.INTERRUPTED
    assert capsys.readouterr().err == f"{commands.PROG} {command}: interrupted\n"


def test_a_python_without_the_packages_is_told_what_to_do(root: Path) -> None:
    bare = [sys.executable, "-S", "-m", "gpt4roi_nb", "--help"]  # without site-packages
    done = subprocess.run(bare, cwd=root, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and "`make setup`" in last and ".venv/bin/python" in last


def test_what_is_written_out_is_what_the_modules_say() -> None:
    assert set(commands.DTYPES) == set(DTYPES)
    assert commands.TOWER == DEFAULT_TOWER
    assert tuple(BENCHMARKS) == commands.BENCHMARKS
    assert tuple(CHECKS) == commands.PUBLISHED_MODELS
    assert (commands.BATCH_SIZE, commands.VERIFY_ITEMS, commands.SCENE_SIZE) == (BATCH_SIZE, ITEMS, SIZE)


def documented_commands(root: Path) -> list[list[str]]:
    """The Python commands in the shell blocks of docs/command_line.md, as words; a backslash continues a line."""
    blocks = re.findall(r"```bash\n(.*?)```", (root / "docs" / "command_line.md").read_text(), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith(".venv/bin/python ")]


def test_the_documented_commands_are_taken(root: Path) -> None:
    asked = [words for words in documented_commands(root) if words[1] == "-m"]
    assert len(asked) >= 6
    for _, _, module, *words in asked:
        if module != "gpt4roi_nb":  # a module by its own name
            (name,) = (name for name, (_, its_module, _) in commands.COMMANDS.items() if its_module == module)
            words = [name, *words]
        if words[0] != "ask":
            assert commands.parse(words[0], words[1:])


def test_the_documented_questions_can_be_asked_as_they_stand(root: Path, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^(printf .*)$", (root / "docs" / "command_line.md").read_text(), re.MULTILINE)
    subprocess.run(["bash", "-c", block], check=True)
    (code,) = (words[2] for words in documented_commands(root) if words[1] == "-c")
    exec(code, {})
    asked = [words[3:] for words in documented_commands(root) if words[1] == "-m"]
    ask, ask_table = (words for words in asked if words[0].startswith("ask"))
    assert main(ask) == 0
    assert capsys.readouterr().out == "a small red wooden star\n" and (tmp_path / "numbered.png").is_file()
    assert table_main(ask_table[1:]) == 0
    answers = (tmp_path / "answers.csv").read_text().splitlines()
    assert len(answers) == 3 and answers[1].endswith(",a small red wooden star,")
