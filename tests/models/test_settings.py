"""What can be chosen about a way: colour and width of `draw`, margin of `context`; and how a way's words are worded."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_gpt4roi
from tiny_families import saved_family, tiny_family

from gpt4roi_nb import load_model
from gpt4roi_nb.__main__ import main
from gpt4roi_nb.models import PromptedModel, render_without_weights
from gpt4roi_nb.models.draw_command import main as draw
from gpt4roi_nb.models.families import point
from gpt4roi_nb.models.ways.draw import COLOURS
from gpt4roi_nb.models.ways.settings import settings_of

GREY = Image.new("RGB", (336, 168), (90, 90, 90))
BOX = (100.0, 40.0, 200.0, 120.0)
ASKED = ("What is <region1>?", [BOX])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = saved_family(tmp_path_factory.mktemp("vipllava"), "vipllava")
    GREY.save(folder / "photo.png")
    return folder


def test_the_colours_are_those_of_vip_llava() -> None:
    """By hand from `color_pool` of its visual_prompt_generator.py."""
    assert list(COLOURS.items()) == [
        ("red", (255, 0, 0)),
        ("lime", (0, 255, 0)),
        ("blue", (0, 0, 255)),
        ("yellow", (255, 255, 0)),
        ("fuchsia", (255, 0, 255)),
        ("aqua", (0, 255, 255)),
        ("orange", (255, 165, 0)),
        ("purple", (128, 0, 128)),
        ("gold", (255, 215, 0)),
    ]


def test_colour_and_width_are_chosen_where_a_model_is_loaded(saved: Path) -> None:
    model = load_model(saved, regions="draw", colour="blue", width=5, device="cpu")
    told = model.render(GREY, *ASKED)
    assert told.text == "What is the object within the blue rectangle?"
    rows = (np.asarray(told.images[0]) == (0, 0, 255)).all(-1)[:, 150]
    assert np.flatnonzero(rows).tolist() == [*range(40, 45), *range(115, 120)]  # five pixels inside both edges
    assert "regions=draw (blue first, 5 pixels where the longest side has 336, opaque)" in model.about
    bare = render_without_weights(saved, "draw", GREY, *ASKED, colour="blue", width=5)
    assert (bare.text, bare.note) == (told.text, told.note)
    assert np.array_equal(np.asarray(bare.images[0]), np.asarray(told.images[0]))


def test_the_margin_is_chosen_where_a_model_is_loaded(saved: Path) -> None:
    model = load_model(saved, regions="context", margin=0.1, device="cpu")
    told = model.render(GREY, *ASKED)
    assert told.images[0].size == (120, 96) and told.note["margin"] == 0.1  # a tenth of 100 × 80 on each side
    assert model.with_regions("context").render(GREY, *ASKED).images[0].size == (200, 160)
    assert "regions=context (margin 0.1)" in model.about


@pytest.mark.parametrize(
    ("way", "setting", "why"),
    [
        ("crop", {"colour": "blue"}, "colour is a setting of regions=\"draw\", but regions is 'crop'"),
        ("marks", {"width": 2}, 'width is a setting of regions="draw"'),
        ("draw", {"margin": 0.1}, 'margin is a setting of regions="context"'),
        ("draw", {"colour": "green"}, "colour must be one of red, lime"),
        ("draw", {"width": 0}, "width must be above 0"),
        ("draw", {"width": float("nan")}, "width must be above 0"),
        ("context", {"margin": -1}, "margin must be at least 0"),
        ("context", {"margin": float("nan")}, "margin must be at least 0"),
    ],
)
def test_a_setting_of_another_way_is_refused_before_weights_are_read(
    saved: Path, monkeypatch: pytest.MonkeyPatch, way: str, setting: dict, why: str
) -> None:
    monkeypatch.setattr("gpt4roi_nb.models.load.AutoModelForImageTextToText", None)
    for refuses in (
        lambda: settings_of(way, **setting),
        lambda: load_model(saved, regions=way, **setting),
        lambda: render_without_weights(saved, way, GREY, *ASKED, **setting),
    ):
        with pytest.raises(ValueError, match=why):
            refuses()


def test_a_gpt4roi_has_no_such_setting(tmp_path: Path) -> None:
    tiny_gpt4roi().save_pretrained(tmp_path)
    for path in (tmp_path, None):
        with pytest.raises(ValueError, match="colour is a setting of regions=\"draw\", but regions is 'native'"):
            load_model(path, colour="blue")


def test_a_likely_slip_is_told_the_right_name() -> None:
    with pytest.raises(TypeError, match="load_model has no 'color'; did you mean 'colour'"):
        load_model(regions="draw", color="blue")


def test_the_image_itself_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = tmp_path / "photo.png"
    GREY.save(photo)
    before = photo.read_bytes()
    assert draw([str(photo), "What is <region1>?", "--box", "1", "2", "40", "40", "--out", str(photo)]) == 2
    assert photo.read_bytes() == before and "would overwrite the image itself" in capsys.readouterr().err


def test_the_demos_own_way_has_a_name_on_the_command_line_too(tmp_path: Path) -> None:
    GREY.save(tmp_path / "photo.png")
    words = [str(tmp_path / "photo.png"), "What is <region1>?", "--box", "1", "2", "40", "40", "--regions", "native"]
    assert draw([*words, "--out", str(tmp_path / "told.png")]) == 0
    assert main(["ask", *words]) == 0


def test_the_command_line_takes_them(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(saved / "photo.png"), "What is <region1>?", "--box", *map(str, map(int, BOX))]
    words += ["--checkpoint", str(saved)]
    assert draw([*words, "--colour", "lime", "--width", "2", "--out", str(tmp_path / "told.png")]) == 0
    assert "text: What is the object within the lime rectangle?" in capsys.readouterr().out
    assert ((np.asarray(Image.open(tmp_path / "told.png")) == (0, 255, 0)).all(-1)[:, 150]).sum() == 4
    asked = ["ask", *words, "--max-new-tokens", "1", "--device", "cpu", "--json"]
    assert main([*asked, "--colour", "lime", "--width", "2"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["told"] == "What is the object within the lime rectangle?"
    assert "draw (lime first, 2 pixels" in result["about"]
    assert main([*asked, "--regions", "crop", "--width", "0"]) == 2
    assert 'width is a setting of regions="draw"' in capsys.readouterr().err


def test_perception_lm_is_told_of_a_drawing_as_its_makers_do() -> None:
    """Their notebook image_grounding asks: "Please describe the region inside the rec rectangle."."""
    told = PromptedModel(*tiny_family("perception_lm"), "draw").render(GREY, "Please describe <region1>.", [BOX])
    assert told.text == "Please describe the region inside the red rectangle."
    assert "notebook image_grounding" in told.note["source"] and "ViP-LLaVA" in told.note["source"]
    named = point(GREY, {1: BOX}, "draw", "perception_lm").pieces("Name the category of the object <region1>.")
    assert "".join(words for words, _ in named) == "Name the category of the object inside the red rectangle."


def test_the_note_of_marks_names_the_line_and_the_colours_that_are_drawn() -> None:
    note = point(GREY, {1: BOX, 2: (10.0, 10.0, 60.0, 60.0)}, "marks", "vipllava").note
    assert note["colours"] == "#c94d0a, #1a77ca"
    assert note["line"] == "2 pixels with white edges, opaque; white numbers"  # the least
    large = point(GREY.resize((1800, 1800)), {1: BOX}, "marks", "vipllava").note
    assert large["line"].startswith("10 pixels") and large["colours"] == "#c94d0a"
    assert PromptedModel(*tiny_family("vipllava"), "marks").note["colours"].count("#") == 10  # of a card


@pytest.mark.parametrize(("question", "why"), [(" ", "is empty"), ("What is <region>?", "not a reference to a region")])
def test_a_question_is_refused_without_weights_as_with_them(saved: Path, question: str, why: str) -> None:
    for refuses in (
        lambda: load_model(saved, regions="draw", device="cpu").render(GREY, question, ()),
        lambda: render_without_weights(saved, "draw", GREY, question, ()),
        lambda: render_without_weights(None, None, GREY, question, ()),
    ):
        with pytest.raises(ValueError, match=why):
            refuses()
