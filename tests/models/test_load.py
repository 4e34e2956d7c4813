"""`load_model`: which class a checkpoint is, and what is refused before weights are read."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_gpt4roi
from tiny_families import saved_family, tiny_family

from gpt4roi_nb import GPT4RoI, load_model
from gpt4roi_nb.models import FAMILIES, PromptedModel
from gpt4roi_nb.models.families import default_question
from gpt4roi_nb.session.region_model import Question, RegionModel

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8))
BOX = (20.0, 10.0, 80.0, 60.0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_family(tmp_path_factory.mktemp("vipllava"), "vipllava")


def test_a_saved_model_answers_as_before(saved: Path) -> None:
    model = load_model(saved, device="cpu")
    assert isinstance(model, PromptedModel) and model.way == "draw" and model.device.type == "cpu"
    expected = PromptedModel(*tiny_family("vipllava"))
    ask = ("What is <region1>?", [BOX])
    assert (
        model.session(IMAGE).ask(*ask, max_new_tokens=5).text
        == expected.session(IMAGE).ask(*ask, max_new_tokens=5).text
    )
    assert model.fingerprint() == expected.fingerprint()
    assert load_model(saved, regions="crop", device="cpu", dtype=torch.bfloat16).model.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen2_5_vl", "kosmos-2", "florence2", "paligemma"])
def test_every_named_family_is_loaded_from_a_folder(name: str, tmp_path: Path) -> None:
    """Its configuration, its processor with its chat template and its weights come back as they were saved."""
    model, processor = tiny_family(name)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, expected = load_model(tmp_path, device="cpu"), PromptedModel(model, processor)
    assert isinstance(again, PromptedModel) and again.way == FAMILIES[name].way == expected.way
    assert again.capabilities == expected.capabilities and again.note == expected.note
    question = default_question(again.way, name)
    said, wanted = (one.session(IMAGE).ask(question, [BOX], max_new_tokens=5) for one in (again, expected))
    assert (said.text, said.told, said.token_ids) == (wanted.text, wanted.told, wanted.token_ids)
    assert again.fingerprint() == expected.fingerprint()
    assert again.likelihoods(IMAGE, question, [BOX], ["a", "b"]) == pytest.approx(
        expected.likelihoods(IMAGE, question, [BOX], ["a", "b"]), abs=1e-5
    )


def test_a_gpt4roi_is_loaded_as_one(tmp_path: Path) -> None:
    tiny_gpt4roi().save_pretrained(tmp_path)
    model: RegionModel = load_model(tmp_path, device="cpu")
    assert isinstance(model, GPT4RoI) and model.capabilities.roi_features


def test_a_way_that_does_not_suit_is_refused_before_weights_are_read(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt4roi_nb.models.load.AutoModelForImageTextToText", None)
    with pytest.raises(ValueError, match="does not suit vipllava"):
        load_model(saved, regions="native")


def test_what_is_no_image_text_to_text_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="is a bert, and transformers has no image-text-to-text model"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "osprey", "auto_map": {"AutoConfig": "a.B"}}))
    with pytest.raises(ValueError, match="without running code of the checkpoint"):
        load_model(tmp_path)


def test_what_does_not_fit_is_refused_before_weights_are_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt4roi_nb.models.load.AutoModelForImageTextToText", None)
    for free, words in (
        (500_000, 'the smallest change that fits: dtype="bfloat16", which needs'),
        (1000, 'nothing smaller fits either .*quantization=.4bit., dtype="bfloat16" needs'),
    ):
        monkeypatch.setattr("gpt4roi_nb.memory.sum_free", lambda devices, free=free: free)
        with pytest.raises(MemoryError, match=f"needs .* for the weights as float32 .* are free on cpu; {words}"):
            load_model(saved, device="cpu")
    with pytest.raises(AttributeError):  # it goes on to what was taken away
        load_model(saved, device="cpu", check_free_memory=False)


def test_the_language_model_alone_is_quantised(saved: Path) -> None:
    model = load_model(saved, device="cpu", quantization="8bit")
    kinds = {name: type(module).__name__ for name, module in model.model.named_modules()}
    quantised = {name for name, kind in kinds.items() if kind == "Linear8bitLt"}
    assert quantised and all("language_model" in name for name in quantised)
    assert "Linear" in {kind for name, kind in kinds.items() if "vision_tower" in name}
    assert model.session(IMAGE).ask("What is <region1>?", [BOX], max_new_tokens=3).tokens
    assert len(model.answers([Question(IMAGE, "What is <region1>?", [BOX])] * 2, max_new_tokens=2)) == 2
