"""The region encoder's faster computations equal its plain steps, with gradients, in every precision."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_config
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.roi import MultiLevelFusion, RegionEncoder, layout_for, resize, resizing_taps

HALVES = [torch.bfloat16, torch.float16]


def config(channels: int = 16, **region: int) -> GPT4RoIConfig:
    """Grid 4 × 4; maps of 16, 8 and 4 places per side."""
    return tiny_config(region_config={"num_levels": 3, "feature_layers": [2, 3, 4], "hidden_size": channels, **region})


def hidden_states(config: GPT4RoIConfig, images: int = 2, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = images, config.num_image_tokens, config.vision_config.hidden_size
    return [torch.randn(shape, generator=generator) for _ in config.level_sizes]


def step_by_step(fusion: MultiLevelFusion, features: list[Tensor]) -> list[Tensor]:
    maps = fusion.project(features)
    for fusion_round in fusion.rounds:
        maps = [fusion_round(mixed) for mixed in fusion.mix(maps)]
    return maps


def region_encoder(config: GPT4RoIConfig, seed: int = 0) -> RegionEncoder:
    torch.manual_seed(seed)
    return RegionEncoder(config).eval()


@pytest.mark.parametrize("sizes", [(4, 16), (4, 8, 16), (4, 32, 16), (4, 4, 4)])
def test_taps_are_a_convolution_of_resized_maps_up_to_its_borders(sizes):
    maps, kernel = torch.randn(1, 1, sizes[0], sizes[0]), torch.randn(1, 1, 3, 3)
    resized = maps
    for size in sizes[1:]:
        resized = resize(resized, size)
    taps = resizing_taps(*sizes)
    found = torch.einsum("bcyx, ocij, hiy, wjx -> bohw", maps, kernel, taps, taps)
    torch.testing.assert_close(found, F.conv2d(resized, kernel, padding=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("rounds", [0, 1, 3])
@pytest.mark.parametrize("grid", [1, 2, 4])
def test_the_fusion_is_what_its_steps_make(rounds, grid):
    """Also with a single patch and without any round."""
    sizes = config(num_groups=4, num_fusion_rounds=rounds)
    sizes.vision_config.image_size = grid * sizes.vision_config.patch_size
    fusion, features = region_encoder(sizes).fusion, hidden_states(sizes)
    with torch.no_grad():
        for found, expected in zip(fusion(features), step_by_step(fusion, features), strict=True):
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_the_fusion_has_the_gradients_of_its_steps(reentrant):
    """Also with checkpointing, of either kind."""
    sizes = config(num_groups=4, num_fusion_rounds=2)
    gradients = []
    for run in (step_by_step, lambda fusion, features: fusion(features)):
        fusion = region_encoder(sizes).fusion.train()
        for fusion_round in fusion.rounds:
            fusion_round.gradient_checkpointing = reentrant is not None
            fusion_round._gradient_checkpointing_func = partial(checkpoint, use_reentrant=reentrant)
        features = [level.requires_grad_() for level in hidden_states(sizes)]
        maps = run(fusion, features)
        generator = torch.Generator().manual_seed(1)
        sum((level * torch.randn(level.shape, generator=generator)).sum() for level in maps).backward()
        gradients.append([tensor.grad for tensor in (*features, *fusion.parameters())])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, atol=2e-5 * expected.abs().max().item(), rtol=0)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_no_further_from_float32_than_its_steps_are(dtype):
    sizes = config(channels=128)
    features = hidden_states(sizes)
    expected = step_by_step(region_encoder(sizes).fusion, features)
    fusion, halves = region_encoder(sizes).fusion.to(dtype), [level.to(dtype) for level in features]

    def deviation(maps: list[Tensor]) -> float:
        return sum(F.mse_loss(level.float(), exact).item() for level, exact in zip(maps, expected, strict=True)) ** 0.5

    with torch.no_grad():
        assert deviation(fusion(halves)) < 1.05 * deviation(step_by_step(fusion, halves))


@pytest.mark.parametrize("dtype", HALVES)
def test_autocast_is_no_further_from_float32_than_the_steps_are(dtype):
    sizes = config(channels=128, num_fusion_rounds=1)
    encoder, features = region_encoder(sizes), hidden_states(sizes)
    with torch.no_grad():
        expected = encoder.fusion(features)
        with torch.autocast("cpu", dtype):
            stepwise, found = step_by_step(encoder.fusion, features), encoder.fusion(features)
    for level, one, exact in zip(found, stepwise, expected, strict=True):
        assert F.mse_loss(level, exact) < F.mse_loss(one.float(), exact)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_boxes_are_pooled_from_float32_maps_into_the_dtype_of_the_weights(dtype):
    sizes = config(num_groups=4)
    encoder = region_encoder(sizes).to(dtype)
    maps = encoder.fusion([level.to(dtype) for level in hidden_states(sizes)])
    assert {level.dtype for level in maps} == {torch.float32}
    assert all(level.is_contiguous() for level in maps)  # else RoIAlign copies whole maps for every box
    pooled = encoder.head.pool(maps, [torch.tensor([[0.1, 0.2, 0.6, 0.7]]), torch.empty(0, 4)])
    assert {level.dtype for level in pooled} == {dtype}


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_the_convolutions_in_half_precision_get_channels_last(dtype, monkeypatch):
    """Whatever the device: the layout follows from the dtype alone."""
    sizes = config(num_groups=4, num_fusion_rounds=2)
    fusion = region_encoder(sizes).fusion.to(dtype)
    first = fusion.rounds[0].conv(torch.randn(1, 16, 4, 4, dtype=dtype), fusion._taps(0, torch.device("cpu")))
    assert first.is_contiguous(memory_format=layout_for(dtype))  # group norm and the next round read it
    given = []
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", lambda conv, maps, *rest: given.append(maps) or maps)
    for maps in fusion.mix([torch.randn(1, 16, size, size, dtype=dtype) for size in fusion.sizes]):
        fusion.rounds[1].conv(maps)
    channels_last = [maps.is_contiguous(memory_format=torch.channels_last) for maps in given]
    assert channels_last == [dtype != torch.float32] * len(fusion.sizes)


def test_hidden_states_with_a_leading_token_are_rejected():
    sizes = config(num_groups=4)
    features = [torch.cat([level[:, :1], level], dim=1) for level in hidden_states(sizes)]
    with pytest.raises(ValueError, match=r"level 0 must hold 16 patches, .* but holds 17"):
        region_encoder(sizes).fusion(features)
