"""Damaged recordings: what is loaded can be drawn, and anything else is an error in words."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from mutations import cases, ends_well, mutated, written
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb.capture import Attention, RoIFeatures


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a.safetensors, a saved attention, and f.safetensors, saved features."""
    folder = tmp_path_factory.mktemp("recordings")
    session = tiny_gpt4roi(seed=1).session(tiny_image())
    session.ask("What is <region1>?", [(3, 4, 30, 40)], max_new_tokens=3).attention().save(folder / "a.safetensors")
    features = session.roi_features([(3, 4, 30, 40)], rounds=True)
    features.logit_lens(2)
    features.save(folder / "f.safetensors")
    return folder


def use_attention(attention: Attention) -> None:
    if attention.grid:
        assert attention.to_image(0).shape == (attention.grid, attention.columns)
    assert torch.stack(list(attention.mass().values())).shape[1] == len(attention.tokens)
    assert attention.matrix("image").shape == (len(attention.layers), len(attention.heads))
    assert all(len(box) == 4 for box in attention.regions.values())
    if "sinks" in attention._found:
        assert all(sink.attention is not None for sink in attention.sinks())


def use_features(features: RoIFeatures) -> None:
    assert len(features.pixel_boxes) == len(features.tokens) == len(features.similarity())
    if len(features.boxes):
        assert features.similarity_map(0).ndim == 2
    assert features.norms() and features._found.get("contribution", {"bias": 0})


def damaged(tensors: dict[str, torch.Tensor], rng: random.Random) -> dict[str, torch.Tensor]:
    """The tensors with one missing, of another shape, or of another type."""
    changed, name = dict(tensors), rng.choice(list(tensors))
    whole = changed.pop(name)
    changes = [
        None, torch.zeros(2, 3), torch.zeros(()), torch.zeros(0), whole[..., :1].contiguous(), whole.to(torch.int64),
        whole[None], whole.flip(0).contiguous(), torch.full_like(whole, 2),
    ]  # fmt: skip
    change = rng.choice(changes)
    return changed if change is None else changed | {name: change}


@pytest.mark.parametrize(("name", "kind", "use"), [("a", Attention, use_attention), ("f", RoIFeatures, use_features)])
def test_a_damaged_recording(name: str, kind: Any, use: Any, folder: Path, tmp_path: Path) -> None:
    source, file = folder / f"{name}.safetensors", tmp_path / "damaged.safetensors"
    tensors = load_file(source)
    with safe_open(source, framework="pt") as content:
        about = json.loads(content.metadata()["about"])
    use(kind.load(source))

    @cases
    def case(rng: random.Random) -> None:
        text = written(mutated(about, rng), rng).decode("utf-8", "replace")
        save_file(damaged(tensors, rng) if rng.random() < 0.5 else tensors, file, metadata={"about": text})
        with ends_well():
            loaded = kind.load(file)
            repr(loaded)
            use(loaded)

    case()


@pytest.mark.parametrize("name", ["weights", "logprobs", "rollout", "relevancy 0"])
def test_an_attention_whose_tensors_do_not_fit_is_said_when_it_is_loaded(
    name: str, folder: Path, tmp_path: Path
) -> None:
    tensors, file = load_file(folder / "a.safetensors"), tmp_path / "a.safetensors"
    with safe_open(folder / "a.safetensors", framework="pt") as content:
        metadata = content.metadata()
    save_file(tensors | {name: torch.zeros(2, 3)}, file, metadata=metadata)
    with pytest.raises(ValueError, match=rf"no saved attention: '{name}' must be of shape .* but is \(2, 3\)"):
        Attention.load(file)
    del tensors["logprobs"]
    save_file(tensors, file, metadata=metadata)
    with pytest.raises(ValueError, match="it lacks 'logprobs'"):
        Attention.load(file)
