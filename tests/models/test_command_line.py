"""`ask` and `draw` on the command line, with any model."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_gpt4roi
from tiny_families import tiny_family

from gpt4roi_nb import commands, draw_regions
from gpt4roi_nb.__main__ import main
from gpt4roi_nb.models import WAYS, PromptedModel
from gpt4roi_nb.models.draw_command import main as draw
from gpt4roi_nb.models.without_weights import render_without_weights

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8))
BOX = (20.0, 10.0, 80.0, 60.0)
BOX_WORDS = ["--box", "20", "10", "80", "60"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    PHOTO.save(folder / "photo.png")
    for name in ("vipllava", "qwen2_5_vl", "kosmos-2"):
        model, processor = tiny_family(name)
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    return folder


def test_ask_takes_any_model_and_a_way(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(place / "photo.png"), "What is <region1>?", *BOX_WORDS, "--max-new-tokens", "4", "--device", "cpu"]
    code = main(["ask", *words, "--checkpoint", str(place / "vipllava"), "--regions", "crop", "--json"])
    said = capsys.readouterr()
    assert code == 0
    result = json.loads(said.out)
    assert result["regions"] == "crop" and result["told"] == "What is the object in the image?"
    assert "unverified" in result["about"] and result["about"] in said.err
    expected = (
        PromptedModel(*tiny_family("vipllava"), "crop")
        .session(PHOTO)
        .ask("What is <region1>?", [BOX], max_new_tokens=4)
    )
    assert result["answer"] == expected.text
    code = main(["ask", *words, "--checkpoint", str(place / "vipllava"), "--regions", "text"])
    assert code == 2 and "regions='text' does not suit vipllava" in capsys.readouterr().err
    assert main(["ask", *words, "--regions", "draw", "--json"]) == 0  # the demo, without its region tokens
    assert json.loads(capsys.readouterr().out)["told"] == "What is the object within the red rectangle?"


@pytest.mark.parametrize(
    ("name", "question", "options", "why"),
    [
        ("florence2", "Why is <region1> there?", BOX_WORDS, "answers tasks about one region and no free question"),
        ("florence2", "Describe <region1>.", ["--regions", "draw", *BOX_WORDS], "does not suit florence2"),
        ("vipllava", "Is <region1> left of <region2>?", ["--regions", "crop", *BOX_WORDS * 2], "one image at a"),
        ("vipllava", "".join(f"<region{one}>" for one in range(1, 11)), BOX_WORDS * 10, "has 9 colours"),
        ("bert", "What is <region1>?", BOX_WORDS, "is a bert, and transformers has no image-text-to-text model"),
    ],
)  # fmt: skip
def test_ask_refuses_what_does_not_suit_before_a_model_is_loaded(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name, question, options, why
) -> None:
    monkeypatch.setattr("gpt4roi_nb.models.load.load_model", None)
    if not (place / name).exists():
        (place / name).mkdir()
        (place / name / "config.json").write_text(json.dumps({"model_type": name}))
    words = [str(place / "photo.png"), question, *options, "--checkpoint", str(place / name)]
    assert main(["ask", *words]) == 2
    said = capsys.readouterr()
    assert why in said.err and said.err.count("\n") == 1 and said.out == ""


def test_draw_writes_what_the_model_is_shown(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(place / "photo.png"), "What is <region1>?", *BOX_WORDS, "--out", str(tmp_path / "told.png")]
    for options, text, images in (
        ([], "What is <region1>?", 1),
        (["--regions", "full+crop"], "What is the object in image 2?", 2),
        (["--checkpoint", str(place / "vipllava")], "What is the object within the red rectangle?", 1),
        (["--checkpoint", str(place / "qwen2_5_vl")], "What is [20, 11, 80, 67]?", 1),
    ):
        assert draw([*words, *options]) == 0
        said = capsys.readouterr().out
        assert f"text: {text}\n" in said and said.count(", 140 × 100\n") + said.count(", 60 × 50\n") == images
    assert draw(words) == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "told.png")), np.asarray(draw_regions(PHOTO, [BOX])))
    assert draw([*words, "--regions", "full+crop"]) == 0
    assert Image.open(tmp_path / "told-2.png").size == (60, 50)
    assert "status: unverified" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--regions", "text"], "suit a model whose kind is not given: no convention is known for boxes as text"),
        (["--out", "absent/told.png"], "there is no folder"),
        (["--out", "told.xyz"], "takes an image's name"),
        (["--checkpoint", "./absent"], "no checkpoint at './absent'"),
        (["--box", "1", "2", "3", "9"], "never names <region2>"),
    ],
)
def test_draw_says_what_is_wrong_in_one_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options, why
) -> None:
    monkeypatch.chdir(tmp_path)
    assert draw([str(place / "photo.png"), "What is <region1>?", *BOX_WORDS, *options]) == 2
    said = capsys.readouterr().err
    assert why in said and said.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_draw_takes_boxes_as_ask_does_and_warns_in_one_line(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["draw", str(place / "photo.png"), "What is <region1>?"]
    for box in (["-5", "8", "60", "40"], ["-5,8,60,40"], ["[-5, 8, 60, 40]"]):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--box", *box])
        said = capsys.readouterr()
        assert ended.value.code == 0 and said.out.startswith("image 1: told.png, ")
        # The lines before are runpy's, of a module that this process has already imported.
        assert said.err.splitlines()[-1].startswith(f"{commands.PROG}: boxes[0] = (-5, 8, 60, 40) reaches outside")
    assert draw([str(tmp_path), "What is <region1>?", *BOX_WORDS]) == 2  # a folder
    assert capsys.readouterr().err.startswith(f"{commands.PROG} draw: expected an image file, but ")


def test_without_weights_the_same_is_told_as_with_them(place: Path, tmp_path: Path) -> None:
    question = ("What is <region1>?", [BOX])
    for name in ("vipllava", "qwen2_5_vl", "kosmos-2"):
        for way in PromptedModel(*tiny_family(name)).family.ways:
            expected = PromptedModel(*tiny_family(name), way).render(PHOTO, *question)
            found = render_without_weights(place / name, way, PHOTO, *question)
            assert (found.text, found.note) == (expected.text, expected.note)
            for one, other in zip(found.images, expected.images, strict=True):
                assert np.array_equal(np.asarray(one), np.asarray(other))
    tiny_gpt4roi().save_pretrained(tmp_path)
    assert render_without_weights(tmp_path, None, PHOTO, *question).note["status"] == "its own"


def test_without_weights_the_same_kinds_are_refused_as_with_them(tmp_path: Path) -> None:
    question = ("What is <region1>?", [BOX])
    for config, why in (
        ({"model_type": "bert"}, "is a bert, and transformers has no image-text-to-text model"),
        ({}, "does not say what kind of model it is"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=why):
            render_without_weights(tmp_path, None, PHOTO, *question)


def test_the_ways_of_the_help_are_those_that_there_are() -> None:
    assert set(commands.WAYS) == set(WAYS)
