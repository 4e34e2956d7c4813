"""`python -m gpt4roi_nb memory` prints the tables of the documentation, and those of another checkpoint."""

from __future__ import annotations

from tiny import tiny_gpt4roi

from gpt4roi_nb.memory_tables import main


def test_the_page_shows_the_tables_of_the_command(root, capsys):
    main([])
    printed = capsys.readouterr().out.strip()
    assert printed in (root / "docs" / "memory.md").read_text()


def test_the_command_says_what_is_no_checkpoint(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "is no checkpoint of a GPT4RoI: it lacks config.json" in capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert main([str(tmp_path)]) == 2
    assert "its config.json says bert" in capsys.readouterr().err


def test_the_command_takes_a_checkpoint(tmp_path, capsys):
    tiny_gpt4roi(seed=1).save_pretrained(tmp_path)
    main([str(tmp_path)])
    assert "| float32 | " in capsys.readouterr().out
