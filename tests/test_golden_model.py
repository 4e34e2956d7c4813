"""The whole model, with the real widths, gives the numbers recorded from the original code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_recipe import GOLDEN, encode_each_image_once, read_json, summary
from transformers.initialization import no_init_weights

from gpt4roi_nb.check_gpu.golden import fill, recorded_config
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.processor import GPT4RoIImageProcessor

# One worker makes the 400 million weights, and encodes the image.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("golden_model")]


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "e2e_A.npz")


@pytest.fixture(scope="module")
def model() -> GPT4RoIForConditionalGeneration:
    with no_init_weights():  # every weight is set below, so initialising 400 million of them would be wasted
        model = GPT4RoIForConditionalGeneration(recorded_config())
    keys = read_json("e2e_keys.json")
    expected = {name for part in ("model", "vision_tower") for name, _, _, kind in keys[part] if kind == "param"}
    assert fill(model) == expected
    encode_each_image_once(model)
    return model.eval()


@pytest.fixture(scope="module")
def pixel_values() -> torch.Tensor:
    return GPT4RoIImageProcessor(224)(GOLDEN / "image0.png")["pixel_values"]


@pytest.fixture(scope="module")
def outputs(model, golden, pixel_values):
    with torch.no_grad():
        return model(
            input_ids=torch.from_numpy(golden["A.input_ids"])[None],
            labels=torch.from_numpy(golden["A.labels"])[None],
            pixel_values=pixel_values,
            boxes=[torch.from_numpy(golden["A.boxes"])],
            output_hidden_states=True,
        )


def test_region_vector_logits_and_loss(outputs, golden):
    np.testing.assert_allclose(outputs.region_features, golden["A.embeds_bbox"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(outputs.logits[0, -8:], golden["A.logits_last8"], atol=1e-3, rtol=0)
    assert outputs.loss.item() == pytest.approx(float(golden["A.loss"]), abs=1e-4)
    assert outputs.logits[0].argmax(-1).tolist() == golden["A.argmax"].tolist()


def test_the_prompt_is_spliced_as_in_the_original(outputs, golden):
    embeddings = outputs.hidden_states[0][0]
    np.testing.assert_allclose(embeddings[::8, ::128], golden["A.embeds_all.sample"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(summary(embeddings), golden["A.embeds_all.meanstd"], atol=1e-4)
    np.testing.assert_allclose(outputs.image_features[0, ::16, ::32], golden["A.embeds_patches.sample"], atol=1e-4)
    assert embeddings[int(golden["A.bbox_pos"][0])].equal(outputs.region_features[0])


def test_levels_and_fused_maps(model, golden, pixel_values):
    with torch.no_grad():
        encoding = model.encode_image(pixel_values)
    for level, step in enumerate((8, 8, 8, 4)):
        np.testing.assert_allclose(
            encoding.levels[level][0, ::32, ::64], golden[f"A.spi_in{level}.sample"], atol=1e-4, rtol=0
        )
        np.testing.assert_allclose(
            encoding.fused_maps[level][0, ::64, ::step, ::step], golden[f"A.fused{level}.sample"], atol=1e-4, rtol=0
        )


def test_greedy_generation_with_the_cache(model, golden, pixel_values):
    prompt = torch.from_numpy(golden["genA.input_ids"])[None]
    steps = len(golden["genA.new_ids"])
    generated = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        pixel_values=pixel_values,
        boxes=[torch.from_numpy(golden["genA.boxes"])],
        max_new_tokens=steps,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    assert generated.sequences[0, prompt.shape[1] :].tolist() == golden["genA.new_ids"].tolist()
    np.testing.assert_allclose(torch.stack(generated.logits, dim=1)[0], golden["genA.step_logits"], atol=1e-3, rtol=0)
