"""`python -m gpt4roi_nb ask`: an answer without a notebook, and one line for any error."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb import GPT4RoI, RegionSession, draw_regions
from gpt4roi_nb.__main__ import main
from gpt4roi_nb.data.scenes.scene import make_scene

SCENE = make_scene(seed=5)
ONE, TWO = (tuple(map(float, thing.box)) for thing in SCENE.objects[:2])
NAMED = "What is <region1>?"
COMPARED = "Is <region1> larger than <region2>?"
BEGIN = "python -m gpt4roi_nb: "


def words(box) -> list[str]:
    return [f"{side:g}" for side in box]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    file = tmp_path_factory.mktemp("scene") / "scène 1.png"
    Image.fromarray(SCENE.image).save(file)
    return str(file)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny_gpt4roi(seed=1).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def no_model(monkeypatch):
    """Make loading a model fail: errors must be reported before."""
    monkeypatch.setattr(GPT4RoI, "from_pretrained", None)


def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gpt4roi_nb", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@pytest.mark.slow
def test_a_script_gets_json_and_an_image(scene, tmp_path):
    saved = tmp_path / "answer.png"
    boxes = ["--box", *words(ONE), "--box", *words(TWO)]
    done = run("ask", scene, COMPARED, *boxes, "--json", "--save", str(saved), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    expected = GPT4RoI.from_pretrained(device="cpu").session(SCENE.image).ask(COMPARED, [ONE, TWO])
    assert result.keys() == {"question", "answer", "boxes", "tokens", "prompt_tokens", "seconds", "checkpoint"}
    assert (result["question"], result["answer"]) == (COMPARED, expected.text)
    assert (result["tokens"], result["prompt_tokens"]) == (expected.tokens, expected.prompt_tokens)
    assert result["boxes"] == [list(ONE), list(TWO)]
    assert result["seconds"] > 0
    assert result["checkpoint"].endswith("checkpoint")
    drawn = draw_regions(Image.fromarray(SCENE.image), [ONE, TWO])
    assert np.array_equal(np.asarray(Image.open(saved)), np.asarray(drawn))
    assert done.stderr.startswith(BEGIN) and "for photographs give --checkpoint" in done.stderr.lower()


@pytest.mark.slow
def test_bad_input_ends_a_script_with_2_and_one_line(tmp_path):
    done = run("ask", "absent.png", NAMED, "--box", "1", "2", "30", "40", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{BEGIN}there is no image file 'absent.png' in ")
    assert done.stderr.count("\n") == 1


def test_the_answer_is_all_that_is_printed(scene, capsys):
    assert main(["ask", scene, NAMED, "--box", *words(ONE)]) == 0
    assert capsys.readouterr().out == "a small red wooden star\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "box",
    [
        ["--box", *words(ONE)],
        ["--box", " ".join(words(ONE))],
        ["--box", ",".join(words(ONE))],
        [f"--box={list(ONE)}"],
        ["--box", f"{ONE}"],
    ],
)
def test_a_box_may_be_written_in_several_ways(scene, box, capsys):
    assert main(["ask", *box, scene, NAMED, "--json"]) == 0  # also before the image
    assert json.loads(capsys.readouterr().out)["boxes"] == [list(ONE)]


def test_a_box_partly_outside_is_clipped_with_a_word(scene, capsys):
    assert main(["ask", scene, NAMED, "--json", "--box", "-5", "-1e1", "60.5", "90"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["boxes"] == [[0, 0, 60.5, 90]]
    assert f"{BEGIN}boxes[0] = (-5, -10, 60.5, 90) reaches outside the 336 × 336 image" in printed.err
    assert "Warning" not in printed.err


def test_a_question_may_name_no_region(scene, tiny, capsys):
    assert main(["ask", scene, "What is this?", "--checkpoint", tiny, "--max-new-tokens", "3", "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert (result["boxes"], result["checkpoint"], len(result["tokens"]) <= 3) == ([], tiny, True)
    assert "photographs" not in printed.err


@pytest.mark.parametrize("options", [["--dtype", "bfloat16"], ["--quantization", "8bit"], ["--device", "cpu"]])
def test_the_model_is_loaded_as_asked(scene, options, monkeypatch, capsys):
    loaded = {}
    ours = GPT4RoI.from_pretrained

    def load(path, **given):
        loaded.update(given)
        return ours(path, **given)

    monkeypatch.setattr(GPT4RoI, "from_pretrained", load)
    assert main(["ask", scene, NAMED, "--box", *words(ONE), *options]) == 0
    assert loaded[options[0].removeprefix("--")] == options[1]
    assert capsys.readouterr().out == "a small red wooden star\n"


BOX = ["--box", *words(ONE)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["tell"], "invalid choice: 'tell'"),
        (["ask"], "the following arguments are required: image, question"),
        (["ask", "SCENE", NAMED, "--box"], "--box: takes four numbers, x1 y1 x2 y2 in pixels, but got ''"),
        (["ask", "SCENE", NAMED, "--box", "1", "2", "3"], "--box: takes four numbers, .*, but got '1 2 3'"),
        (["ask", "SCENE", NAMED, "--box", "1,2,3,4,5"], "--box: takes four numbers"),
        (["ask", "SCENE", NAMED, "--box", "1", "2", "3", "4", "5"], r"unrecognized arguments: 5 \(see .* ask --help\)"),
        (["ask", "SCENE", NAMED, "--box", "1", "2", "x", "4"], "but got '1 2 x 4'; repeat --box for each box"),
        (["ask", "SCENE", NAMED, "--box", "1", "2", "nan", "4"], r"boxes\[0\] = \(1, 2, nan, 4\) has a coordinate"),
        (["ask", "SCENE", NAMED, "--box", "9", "9", "3", "4"], "has x2 <= x1 or y2 <= y1; expected the top left"),
        (
            ["ask", "SCENE", NAMED, *BOX, "--box", "900", "0", "950", "9"],
            r"boxes\[1\] = .* lies wholly outside the image",
        ),
        (["ask", "SCENE", NAMED], "the text names <region1>, but there is no box for it; add a box"),
        (["ask", "SCENE", "What is it?", *BOX], "the text never names <region1>, for which a box was given"),
        (["ask", "SCENE", " "], "the question is empty"),
        (["ask", "FOLDER", NAMED, *BOX], "expected an image file, but .* is a folder"),
        (["ask", "FOLDER/no.png", NAMED, *BOX], r"no\.png' \(9 bytes\) is not an image that can be read"),
        (
            ["ask", "SCENE", NAMED, *BOX, "--save", "FOLDER/absent/a.png"],
            "--save .* cannot be written: there is no folder",
        ),
        (["ask", "SCENE", NAMED, *BOX, "--save", "SCENE"], "--save .* would overwrite the image itself; give another"),
        (["ask", "SCENE", NAMED, *BOX, "--save", "FOLDER/a.palm"], "--save takes the name of an image file, such as"),
        (["ask", "SCENE", NAMED, *BOX, "--save", "FOLDER/a.xyz"], "--save takes the name of an image file, such as"),
        (["ask", "SCENE", NAMED, *BOX, "--max-new-tokens", "0"], "--max-new-tokens: must be at least 1, but is 0"),
        (
            ["ask", "SCENE", NAMED, *BOX, "--max-new-tokens", "many"],
            "--max-new-tokens: must be a whole number, but is 'many'",
        ),
        (["ask", "SCENE", NAMED, *BOX, "--dtype", "int8"], "--dtype: invalid choice: 'int8'"),
        (
            ["ask", "SCENE", NAMED, *BOX, "--device", "abacus"],
            "--device must be one that PyTorch can use, .* but is 'abacus'",
        ),
    ],
)
def test_bad_input_is_told_before_a_model_is_loaded(arguments, message, scene, tmp_path, no_model, capsys):
    (tmp_path / "no.png").write_text("no image\n")
    arguments = [word.replace("SCENE", scene).replace("FOLDER", str(tmp_path)) for word in arguments]
    assert main(arguments) == 2
    assert_one_line(capsys, message)


def assert_one_line(capsys, message: str) -> None:
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(f"{BEGIN}.*{message}.*\n", printed.err), printed.err


@pytest.mark.parametrize("checkpoint", ["FOLDER", "FOLDER/absent", "absent/absent"])
def test_a_bad_checkpoint_is_bad_input(checkpoint, scene, tmp_path, capsys):
    checkpoint = checkpoint.replace("FOLDER", str(tmp_path))
    assert main(["ask", scene, NAMED, *BOX, "--checkpoint", checkpoint]) == 2
    assert_one_line(capsys, r"(lacks config\.json|no checkpoint at)")


def test_a_question_that_is_too_long_is_bad_input(scene, tiny, capsys):
    assert main(["ask", scene, "why " * 600, "--checkpoint", tiny]) == 2
    assert "tokens long, but the model can take 512 with the answer" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (MemoryError("15.2 GB\nare needed"), 1, "15.2 GB are needed"),
        (ImportError("pip install bitsandbytes"), 1, "pip install bitsandbytes"),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "CUDA out of memory"),
        (OSError(28, "No space left on device"), 1, r"\[Errno 28\] No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_other_failures_have_their_own_exit_codes(error, code, message, scene, tiny, monkeypatch, capsys):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(RegionSession, "ask", fail)
    assert main(["ask", scene, "What is this?", "--checkpoint", tiny]) == code
    assert_one_line(capsys, message)


def test_an_image_that_cannot_be_written_costs_no_answer(scene, tmp_path, capsys):
    (tmp_path / "taken.png").mkdir()
    assert main(["ask", scene, NAMED, *BOX, "--save", str(tmp_path / "taken.png")]) == 1
    printed = capsys.readouterr()
    assert printed.out == "a small red wooden star\n"
    assert "taken.png" in printed.err


def test_help_shows_how(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["ask", "--help"])
    assert "--box x1 y1 x2 y2" in capsys.readouterr().out


def test_other_image_formats_are_read(tiny, tmp_path, capsys):
    Image.fromarray(tiny_image()).save(tmp_path / "noise.webp")
    assert main(["ask", str(tmp_path / "noise.webp"), "What?", "--checkpoint", tiny, "--max-new-tokens", "2"]) == 0
    assert capsys.readouterr().out.strip()
