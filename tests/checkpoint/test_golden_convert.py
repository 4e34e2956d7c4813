"""A checkpoint in the authors' layout, at the real widths, is converted and gives the numbers from their code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from authors import write_authors, write_base, write_tower
from golden_recipe import GOLDEN, encode_each_image_once, read_json, recipe
from safetensors import safe_open

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.checkpoint import convert_original
from gpt4roi_nb.checkpoint.keys import to_original

# One worker makes the 400 million weights.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("golden_convert")]

KEYS = read_json("e2e_keys.json")
CONFIG = read_json("e2e_config.json")
OUTCOMES = {name: (shape, dtype, outcome) for name, shape, dtype, outcome, _ in read_json("delta.json")["tensors"]}
BASE_ROWS = 1000


def made(part: str) -> dict[str, torch.Tensor]:
    """Tensors by the recipe, old buffers included."""
    return {
        name: torch.from_numpy(recipe.tensor_for(name, shape)) if kind == "param" else torch.ones(shape)
        for name, shape, _, kind in KEYS[part]
    }


@pytest.fixture(scope="module")
def state():
    return made("model")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    tower = {name.removeprefix("vision_tower."): tensor for name, tensor in made("vision_tower").items()}
    return write_tower(tmp_path_factory.mktemp("clip"), tower, CONFIG["vision_config"])


def test_a_converted_checkpoint_gives_the_recorded_numbers(state, clip, tmp_path):
    source = write_authors(tmp_path / "source", state, CONFIG["model_config"], shards=3)
    report = convert_original(source, tmp_path / "target", vision=clip, progress=False)
    expected = {name for part in ("model", "vision_tower") for name, *_ in KEYS[part]}
    told = {
        fate.original if not fate.name.startswith("vision") else f"vision_tower.{fate.original}"
        for fate in report.fates
    }
    assert expected - told == {"vision_tower.vision_model.embeddings.position_ids"}  # told without the prefix

    golden = np.load(GOLDEN / "e2e_A.npz")
    gpt4roi = GPT4RoI.from_pretrained(tmp_path / "target", device="cpu", dtype=torch.float32)
    encode_each_image_once(gpt4roi.model)
    pixel_values = gpt4roi.processor.image_processor(GOLDEN / "image0.png")["pixel_values"]
    with torch.no_grad():
        outputs = gpt4roi.model(
            input_ids=torch.from_numpy(golden["A.input_ids"])[None],
            labels=torch.from_numpy(golden["A.labels"])[None],
            pixel_values=pixel_values,
            boxes=[torch.from_numpy(golden["A.boxes"])],
        )
    np.testing.assert_allclose(outputs.region_features, golden["A.embeds_bbox"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(outputs.logits[0, -8:], golden["A.logits_last8"], atol=1e-3, rtol=0)
    assert outputs.loss.item() == pytest.approx(float(golden["A.loss"]), abs=1e-4)
    prompt = torch.from_numpy(golden["genA.input_ids"])[None]
    generated = gpt4roi.model.generate(
        input_ids=prompt,
        pixel_values=pixel_values,
        boxes=[torch.from_numpy(golden["genA.boxes"])],
        max_new_tokens=len(golden["genA.new_ids"]),
        do_sample=False,
    )
    assert generated[0, prompt.shape[1] :].tolist() == golden["genA.new_ids"].tolist()


def test_a_delta_merges_as_recorded_bit_for_bit(state, clip, tmp_path):
    """The same checkpoint in float16, with a base that the recipe makes under other names."""
    delta, base = {}, {}
    for name, tensor in state.items():
        outcome = OUTCOMES[name][2]
        target = tensor.half()
        if outcome.startswith("copied"):
            delta[name] = target
        elif outcome.startswith("buffer"):
            delta[name], base[name] = torch.zeros_like(tensor), tensor
        else:
            rows = BASE_ROWS if outcome.startswith("rows") else len(target)
            shape = (rows, *target.shape[1:])
            base[name] = torch.from_numpy(recipe.tensor_for(f"base.{name}", shape)).half()
            delta[name] = target.clone()
            delta[name][:rows] -= base[name]
    sizes = {**CONFIG["model_config"], "max_position_embeddings": 2048}
    report = convert_original(
        write_authors(tmp_path / "delta", delta, sizes, shards=2),
        tmp_path / "target",
        base=write_base(tmp_path / "base", base, {**sizes, "vocab_size": BASE_ROWS}, shards=2),
        vision=clip,
        progress=False,
    )
    fates = {fate.original: fate for fate in report.fates if fate.what != "ignored"}
    words = {"added": "added: delta", "rows added": "rows [0,1000) added", "copied": "copied from delta"}
    merged = {}
    for file in (tmp_path / "target").glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            merged.update({to_original(name): opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
    for name, (shape, dtype, outcome) in OUTCOMES.items():
        if outcome.startswith("buffer"):
            assert name not in fates
            continue
        assert outcome.startswith(words[fates[name].what])
        assert list(merged[name].shape) == shape and str(merged[name].dtype) == dtype
        expected = delta[name].clone()
        if name in base:
            expected[: len(base[name])] += base[name]
        assert merged[name].equal(expected), name
