"""The whole recipe in miniature: it runs, goes on where it was, and what it makes can be talked with."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data.scenes.questions import Question
from gpt4roi_nb.data.scenes.scene import make_scene
from gpt4roi_nb.demo.check import answerer
from gpt4roi_nb.demo.check.__main__ import main as check
from gpt4roi_nb.demo.check.answerer import MAX_NEW_TOKENS, model_answerer
from gpt4roi_nb.demo.check.queries import Query
from gpt4roi_nb.demo.recipe import make as making
from gpt4roi_nb.demo.recipe.curriculum import LESSONS
from gpt4roi_nb.demo.recipe.recipe import Phase

# One worker makes the miniature that all of them look at.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo_recipe")]

FEW = 4  # tokens: the miniature's answers are noise that never ends, and writing it took most of the time
STAGES = ("stage1", "stage2", "finish", "polish", "talk")  # the second goes on in the last three


@pytest.fixture(scope="module")
def made(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "REPORTED_SCENES", 2)
        patch.setattr(answerer, "MAX_NEW_TOKENS", FEW)
        figures = making.make(recipe, folder / "out", folder / "run", report=lambda text: None)
    return folder, figures


def test_every_phase_runs_and_the_record_stands_beside_the_weights(made):
    folder, figures = made

    assert {"accuracy", "shuffled", "n"} <= set(figures)
    names = {path.name for path in (folder / "out").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "recipe.json", "README.md"} <= names
    record = json.loads((folder / "out/recipe.json").read_text())
    assert record["steps"] == {"vision": 3, **dict.fromkeys((*LESSONS, *STAGES), 2)}


def test_a_finished_run_is_not_trained_again(made, recipe, monkeypatch):
    folder, figures = made
    monkeypatch.setattr(making, "REPORTED_SCENES", 2)
    monkeypatch.setattr(answerer, "MAX_NEW_TOKENS", FEW)
    said = []

    again = making.make(recipe, folder / "again", folder / "run", report=said.append)

    assert sum("finished before" in line for line in said) == 1 + len(LESSONS) + len(STAGES)
    assert again == figures
    assert (folder / "again/model.safetensors").read_bytes() == (folder / "out/model.safetensors").read_bytes()


def test_the_halves_can_be_made_apart(made, recipe, tmp_path):
    whole = made[0] / "run"
    for half, phases in (("language", set(LESSONS)), ("vision", {"vision"})):
        run = tmp_path / half
        assert making.make(recipe, tmp_path / "out", run, half=half, report=lambda text: None) is None
        assert {path.stem for path in run.glob("*.pt")} == phases
        for phase in phases:
            found, wanted = (
                torch.load(folder / f"{phase}.pt", weights_only=True)["weights"] for folder in (run, whole)
            )
            torch.testing.assert_close(found, wanted)


def test_a_run_folder_of_another_recipe_is_refused(made, recipe, tmp_path):
    shutil.copytree(made[0] / "run", tmp_path / "run")

    with pytest.raises(ValueError, match="is of another recipe"):
        deeper = replace(recipe, text_layers=3)
        making.make(deeper, tmp_path / "out", tmp_path / "run", half="language", report=lambda text: None)
    with pytest.raises(ValueError, match=r"is of another recipe or seed, \{'seed': 0,"):
        making.make(recipe, tmp_path / "out", tmp_path / "run", seed=1, half="language", report=lambda text: None)
    with pytest.raises(ValueError, match=r"vision\.pt is of another recipe"):
        longer = replace(recipe, vision=Phase(4, 1e-3))
        making.make(longer, tmp_path / "out", tmp_path / "run", half="vision", report=lambda text: None)


def test_answers_in_a_batch_are_those_of_a_session(made):
    gpt4roi = GPT4RoI.from_pretrained(made[0] / "out")
    scene = make_scene(4)
    session = gpt4roi.session(scene.image)
    texts = ["What is <region1>?", "Is <region1> the same colour as <region2>?", "How many objects are there?"]
    used = [(0,), (1, 2), ()]
    alone = []
    for text, objects in zip(texts, used, strict=True):
        boxes = [scene.objects[k].box for k in objects]
        alone.append(session.ask(text, boxes, max_new_tokens=MAX_NEW_TOKENS).text)
        session.reset()

    answer = model_answerer(gpt4roi)
    queries = [Query(Question("", text, "", objects, ""), objects) for text, objects in zip(texts, used, strict=True)]
    asked = [(scene, query) for query in queries]
    assert answer(asked) == alone
    assert answer(asked[1:2]) == alone[1:2]  # the opening was read before
    other = make_scene(5)
    mixed = answer([(other, queries[0]), *asked])  # two scenes in one batch
    assert mixed[1:] == alone
    assert (
        mixed[0]
        == gpt4roi.session(other.image).ask(texts[0], [other.objects[0].box], max_new_tokens=MAX_NEW_TOKENS).text
    )


def test_check_prints_one_json_object(made, capsys, monkeypatch):
    monkeypatch.setattr(answerer, "MAX_NEW_TOKENS", FEW)
    check(["--checkpoint", str(made[0] / "out"), "--scenes", "1", "--seed", "3", "--json"])

    figures = json.loads(capsys.readouterr().out)
    assert {"accuracy", "shuffled", "n"} <= set(figures)
