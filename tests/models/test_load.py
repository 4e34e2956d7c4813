"""`load_model`: which class a checkpoint is, and what is refused before weights are read."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_gpt4roi
from tiny_families import tiny_family

from gpt4roi_nb import GPT4RoI, load_model
from gpt4roi_nb.models import PromptedModel
from gpt4roi_nb.session.region_model import RegionModel

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8))
BOX = (20.0, 10.0, 80.0, 60.0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vipllava")
    model, processor = tiny_family("vipllava")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


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


def test_a_gpt4roi_is_loaded_as_one(tmp_path: Path) -> None:
    tiny_gpt4roi().save_pretrained(tmp_path)
    model: RegionModel = load_model(tmp_path, device="cpu")
    assert isinstance(model, GPT4RoI) and model.capabilities.roi_features
    with pytest.raises(ValueError, match="told a box by a token of its own"):
        load_model(tmp_path, regions="draw")
    with pytest.raises(ValueError, match="told a box by a token of its own"):
        load_model(regions="draw")


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
