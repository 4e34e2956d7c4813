"""The region encoder gives the numbers recorded from the original code, step by step (C = 64)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_recipe import GOLDEN, read_json, recipe, summary

from gpt4roi_nb import winograd
from gpt4roi_nb.check_gpu.golden import fill
from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.roi import RegionEncoder, append_coordinates, resize

CHANNELS, LEVELS = 64, 4
TOLERANCE = 2e-5
PREFIX, STRIP = "region_encoder.", "model.spi_module."
# How the file cuts the maps of each level (fidelity.md): steps of channels and of places.
COORDINATE_STEPS, INPUT_STEPS, ROUND_STEPS, FUSED_STEPS = (16, 16, 4, 4), (16, 8, 4, 2), (32, 16, 8, 4), (8, 8, 8, 4)


@pytest.fixture(scope="module")
def encoder() -> RegionEncoder:
    config = GPT4RoIConfig(
        vision_config={
            "hidden_size": CHANNELS,
            "intermediate_size": 64,
            "num_hidden_layers": 12,
            "num_attention_heads": 4,
            "image_size": 224,
            "patch_size": 14,
        },
        region_config={"hidden_size": CHANNELS},
    )
    encoder = RegionEncoder(config).eval()
    assert fill(encoder, PREFIX, STRIP) == {name for name, *_ in read_json("roi_small_keys.json")}
    return encoder


@pytest.fixture(scope="module")
def features() -> list[torch.Tensor]:
    grid = 16
    return [
        torch.from_numpy(recipe.raw_normal(f"input.feat{level}", (2, grid * grid, CHANNELS))) for level in range(LEVELS)
    ]


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "roi_small.npz")


@pytest.fixture(scope="module")
def boxes(golden) -> list[torch.Tensor]:
    return [torch.from_numpy(golden[f"boxes.img{image}"]) for image in range(2)]


@pytest.fixture(scope="module")
def steps(encoder, features, boxes):
    """Every step of the encoder, by its name in the file."""
    fusion, head = encoder.fusion, encoder.head
    found: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for level, size in enumerate(fusion.sizes):
            grid = features[level].transpose(1, 2).reshape(2, CHANNELS, 16, 16)
            found[f"resized_with_coord.l{level}"] = append_coordinates(resize(grid, size))
        maps = fusion.project(features)
        found.update({f"input_conv.l{level}": maps[level] for level in range(LEVELS)})
        for index, fusion_round in enumerate(fusion.rounds):
            mixed = fusion.mix(maps)
            maps = [fusion_round(level) for level in mixed]
            found.update({f"fuse_conv{index}.in.l{level}": mixed[level] for level in range(LEVELS)})
            found.update({f"fuse_conv{index}.out.l{level}": maps[level] for level in range(LEVELS)})
        found.update({f"fused.l{level}": maps[level] for level in range(LEVELS)})
        pooled = head.pool(maps, boxes)
        convolved = [conv(grid) for conv, grid in zip(head.level_convs, pooled, strict=True)]
        found.update({f"roialign.l{level}": pooled[level] for level in range(LEVELS)})
        found.update({f"pconv.l{level}": convolved[level] for level in range(LEVELS)})
        flat = torch.relu(sum(convolved)).flatten(1)
        found["flatten_linear.in"] = flat
        found["flatten_linear.out"] = head.flatten_projection(flat)
        found["pos_embedd"] = head.position_embedding(torch.cat(boxes))
        found["updims.in"] = found["flatten_linear.out"] + found["pos_embedd"]
    return found


def recorded_slice(name: str, tensor: torch.Tensor) -> torch.Tensor:
    step, _, level_name = name.partition(".l")
    level = int(level_name) if level_name.isdigit() else 0
    if step == "resized_with_coord":
        half, last, skip = CHANNELS // 2, CHANNELS - 1, COORDINATE_STEPS[level]
        return tensor[:, [0, 1, half, last, last + 1, last + 2], ::skip, ::skip]
    if step == "input_conv":
        return tensor[:, ::8, :: INPUT_STEPS[level], :: INPUT_STEPS[level]]
    if step.startswith("fuse_conv"):
        return tensor[:, ::16, :: ROUND_STEPS[level], :: ROUND_STEPS[level]]
    if step == "fused":
        return tensor[:, ::16, :: FUSED_STEPS[level], :: FUSED_STEPS[level]]
    if step in ("roialign", "pconv"):
        return tensor[:, ::8, ::3, ::3]
    return tensor[:, ::997]


def test_every_step_agrees_with_the_original(steps, golden):
    checked = 0
    for name, tensor in steps.items():
        assert tuple(golden[f"{name}.shape"]) == tuple(tensor.shape), name
        np.testing.assert_allclose(summary(tensor), golden[f"{name}.meanstd"], atol=TOLERANCE, err_msg=name)
        if f"{name}.sample" in golden:
            sample = recorded_slice(name, tensor)
            np.testing.assert_allclose(sample, golden[f"{name}.sample"], atol=TOLERANCE, rtol=0, err_msg=name)
            checked += 1
        if name in golden:
            np.testing.assert_allclose(tensor, golden[name], atol=TOLERANCE, rtol=0, err_msg=name)
            checked += 1
    # Everything in the file was compared: a slice or the whole of every step, except for the rounds' inputs.
    assert checked == len(steps) - 5 * LEVELS


def test_the_fusion_as_the_model_runs_it_agrees_with_the_original(encoder, features, golden):
    """Its first round resizes inside the convolution; the steps above resize before it."""
    with torch.no_grad():
        fused = encoder.fusion(features)
    for level, maps in enumerate(fused):
        name = f"fused.l{level}"
        np.testing.assert_allclose(summary(maps), golden[f"{name}.meanstd"], atol=TOLERANCE, err_msg=name)
        sample = recorded_slice(name, maps)
        np.testing.assert_allclose(sample, golden[f"{name}.sample"], atol=TOLERANCE, rtol=0, err_msg=name)


def test_the_fusion_as_the_model_runs_it_has_the_gradients_of_the_steps(encoder, features):
    """The steps are those that agree with the original; no gradients of its own were recorded."""
    gradients = []
    for run in (encoder.fusion, lambda given: steps_of(encoder.fusion, given)):
        given = [level[:1].clone().requires_grad_() for level in features]
        maps = run(given)
        sum(torch.from_numpy(recipe.raw_normal(f"gradient{level}", each.shape)).mul(each).mean() * 100
            for level, each in enumerate(maps)).backward()  # fmt: skip
        gradients.append([tensor.grad for tensor in (*given, *encoder.fusion.parameters())])
        encoder.zero_grad()
    for found, expected in zip(*gradients, strict=True):
        # A value within rounding of ReLU's corner has one gradient or the other; all else is equal (tests/test_roi.py).
        assert (found - expected).norm() <= 5e-3 * expected.norm()


def steps_of(fusion, features):
    maps = fusion.project(features)
    for fusion_round in fusion.rounds:
        maps = [fusion_round(mixed) for mixed in fusion.mix(maps)]
    return maps


@pytest.mark.parametrize("fewest_channels", [1, winograd.MIN_CHANNELS])
def test_region_vectors_agree_with_the_original(encoder, features, boxes, golden, fewest_channels, monkeypatch):
    """Also with the head's convolutions computed as they are at the original's width."""
    monkeypatch.setattr(winograd, "MIN_CHANNELS", fewest_channels)
    with torch.no_grad():
        vectors = encoder(features, boxes)
    expected = np.concatenate([golden["out.img0"], golden["out.img1"]])
    np.testing.assert_allclose(vectors, expected, atol=TOLERANCE, rtol=0)


def test_edge_cases_agree_with_the_original(encoder, features):
    """An image without boxes, boxes partly outside, a box of no area."""
    golden = np.load(GOLDEN / "roi_small_edge.npz")
    with torch.no_grad():
        vectors = encoder(features, [torch.from_numpy(golden[f"boxes.img{image}"]) for image in range(2)])
    assert golden["out.img0"].shape == (0, vectors.shape[1])
    np.testing.assert_allclose(vectors, golden["out.img1"], atol=TOLERANCE, rtol=0)


def test_a_shifted_box_would_be_noticed(encoder, features, boxes, golden):
    """The tolerance is sharp: half a pixel, the difference that `aligned` makes, is far outside it."""
    with torch.no_grad():
        vectors = encoder(features, [boxes[0] + 0.5 / 224, boxes[1] + 0.5 / 224])
    assert np.abs(vectors[:3].numpy() - golden["out.img0"]).max() > 100 * TOLERANCE
