"""The recipe's new part in miniature: it goes on from the weights that it names, and can be broken off."""

import hashlib
import json
from dataclasses import replace

import pytest

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data.scenes.scene import make_scene
from gpt4roi_nb.demo.check import examine
from gpt4roi_nb.demo.recipe import further as going_on
from gpt4roi_nb.demo.recipe.recipe import Further

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo_recipe")]


@pytest.fixture
def begun(model, processor, tmp_path):
    """A checkpoint to go on from, and the recipe that names it."""
    folder = tmp_path / "begun"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    record = {"recipe": {"vocabulary": 1000}, "seed": 0, "steps": {"vision": 3}, "minutes": {"vision": 1.0}}
    (folder / "recipe.json").write_text(json.dumps(record | {"threads": {"vision": 1}}))
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return folder, replace(Further().tiny(), begins_with=digest)


def test_it_goes_on_and_is_not_trained_twice(begun, tmp_path, monkeypatch):
    monkeypatch.setattr(going_on, "REPORTED_SCENES", 1)
    monkeypatch.setattr(examine, "measure_out_of_domain", lambda answer, seed: {})
    monkeypatch.setattr(examine, "measure_benchmarks", lambda gpt4roi, seed: {})
    source, recipe = begun
    said = []
    before = len(GPT4RoI.from_pretrained(source).processor.tokenizer)

    figures = going_on.further(recipe, tmp_path / "out", tmp_path / "run", source=source, report=said.append)

    assert {"accuracy", "shuffled", "n"} <= set(figures)
    record = json.loads((tmp_path / "out/recipe.json").read_text())
    assert record["steps"] == {"order": 2, "answers": 2, "balance": 2, "last": 2}
    assert record["before"]["steps"] == {"vision": 3}
    assert recipe.begins_with in (tmp_path / "out/README.md").read_text()
    kept = GPT4RoI.from_pretrained(tmp_path / "out", device="cpu")
    assert len(kept.processor.tokenizer) == before
    assert kept.session(make_scene(1).image).ask("Describe the image.").text is not None

    said.clear()
    again = going_on.further(recipe, tmp_path / "again", tmp_path / "run", source=source, report=said.append)
    assert sum("finished before" in line for line in said) == 4
    assert again == figures


def test_other_weights_are_refused(begun, tmp_path):
    source, recipe = begun
    with pytest.raises(ValueError, match="continues from weights whose SHA-256 is 0000"):
        going_on.further(replace(recipe, begins_with="0000"), tmp_path / "out", tmp_path / "run", source=source)
