"""A sum of convolutions with fewer products is that of the convolutions, and follows their weights."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from gpt4roi_nb import winograd
from gpt4roi_nb.winograd import BOXES_AT_ONCE, MIN_CHANNELS, ConvolutionSum, can_compute, filter_bytes

HALVES = [torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def _for_few_channels(monkeypatch):
    monkeypatch.setattr(winograd, "MIN_CHANNELS", 1)


def convolutions(channels: int = 16, levels: int = 3) -> list[nn.Conv2d]:
    torch.manual_seed(0)
    return [nn.Conv2d(channels, channels, kernel_size=3, padding=1) for _ in range(levels)]


def grids(boxes: int = 2, height: int = 6, width: int = 6, channels: int = 16, levels: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(boxes, channels, height, width, generator=generator) for _ in range(levels)]


def plain(convs: list[nn.Conv2d], given: list[Tensor]) -> Tensor:
    return torch.stack([conv(grid) for conv, grid in zip(convs, given, strict=True)]).sum(0)


@pytest.mark.parametrize("boxes", [0, 1, BOXES_AT_ONCE, BOXES_AT_ONCE + 1])
@pytest.mark.parametrize(("height", "width"), [(14, 14), (7, 7), (5, 6), (1, 2)])
@torch.no_grad()
def test_it_is_the_sum_of_the_convolutions(boxes, height, width):
    convs, given = convolutions(), grids(boxes, height, width)
    found = ConvolutionSum()(convs, given)
    torch.testing.assert_close(found, plain(convs, given), atol=2e-6, rtol=0)
    assert found.is_contiguous()


@torch.no_grad()
def test_it_takes_the_way_of_fewer_products(monkeypatch):
    asked = []
    monkeypatch.setattr(nn.Conv2d, "forward", lambda conv, grid: asked.append(conv))
    ConvolutionSum()(convolutions(), grids())
    assert asked == []


def replaced(conv: nn.Conv2d) -> None:
    conv.weight.data = conv.weight.data * 2


def changed_in_place(conv: nn.Conv2d) -> None:
    with torch.no_grad():
        conv.weight[0, 0, 0, 1] = 5.0  # none of the values that are compared


def changed_behind(conv: nn.Conv2d) -> None:
    conv.weight.data += 0.1  # keeps the version, as adapters' merging does


def rounded(conv: nn.Conv2d) -> None:
    conv.weight.data = conv.weight.data.bfloat16()
    conv.weight.data = conv.weight.data.float()


def trained(conv: nn.Conv2d) -> None:
    conv.weight.grad = torch.randn_like(conv.weight)
    version = conv.weight._version
    torch.optim.AdamW([conv.weight], lr=0.1, fused=True).step()
    assert conv.weight._version == version, "the comment at SAMPLED is out of date"


def exchanged(conv: nn.Conv2d) -> None:
    conv.weight = nn.Parameter(conv.weight.detach().clone())
    conv.weight.data[0, 0, 0, 1] = 5.0


def assigned(conv: nn.Conv2d) -> None:
    conv.load_state_dict({name: value * 2 for name, value in conv.state_dict().items()}, assign=True)


@pytest.mark.parametrize(
    "change",
    [replaced, changed_in_place, changed_behind, rounded, trained, exchanged, assigned],
    ids=lambda f: f.__name__,
)
def test_changed_weights_are_noticed(change):
    convs, given, convolution_sum = convolutions(), grids(), ConvolutionSum()
    with torch.no_grad():
        before = convolution_sum(convs, given)
        change(convs[1])
        found = convolution_sum(convs, given)
        torch.testing.assert_close(found, plain(convs, given), atol=5e-6, rtol=0)
        assert not torch.equal(found, before)


def test_unchanged_weights_are_transformed_once(monkeypatch):
    made = []
    transform = winograd.transform_filters
    monkeypatch.setattr(winograd, "transform_filters", lambda convs: made.append(convs) or transform(convs))
    convs, convolution_sum = convolutions(), ConvolutionSum()
    with torch.inference_mode():
        for boxes in (2, 0, 2, 3):
            convolution_sum(convs, grids(boxes))
    assert len(made) == 1


def test_weights_made_in_inference_mode_have_no_version():
    with torch.inference_mode():
        convs, given = convolutions(), grids()
        torch.testing.assert_close(ConvolutionSum()(convs, given), plain(convs, given), atol=2e-6, rtol=0)


def test_filters_made_in_inference_mode_serve_outside_it():
    convs, given, convolution_sum = convolutions(), grids(), ConvolutionSum()
    for conv in convs:
        conv.weight.requires_grad_(False)
    with torch.inference_mode():
        convolution_sum(convs, given)
    found = convolution_sum(convs, given)
    found.sum().backward()  # the biases train
    assert convs[0].bias.grad is not None
    torch.testing.assert_close(found, plain(convs, given), atol=2e-6, rtol=0)


@torch.no_grad()
def test_another_default_dtype_changes_nothing():
    convs, given = convolutions(), grids()
    expected = plain(convs, given)
    torch.set_default_dtype(torch.float64)
    try:
        torch.testing.assert_close(ConvolutionSum()(convs, given), expected, atol=2e-6, rtol=0)
    finally:
        torch.set_default_dtype(torch.float32)


class Doubled(nn.Module):
    """What an adapter puts in the place of a convolution."""

    def __init__(self, base_layer: nn.Conv2d) -> None:
        super().__init__()
        self.base_layer = base_layer

    def forward(self, grid: Tensor) -> Tensor:
        return 2 * self.base_layer(grid)


@torch.no_grad()
def test_convolutions_with_adapters_or_hooks_compute_themselves():
    convs, given = convolutions(), grids()
    adapted = [convs[0], Doubled(convs[1]), convs[2]]
    torch.testing.assert_close(ConvolutionSum()(adapted, given), plain(adapted, given))
    seen = []
    convs[2].register_forward_hook(lambda conv, inputs, output: seen.append(output))
    ConvolutionSum()(convs, given)
    assert len(seen) == 1


def test_with_gradients_the_convolutions_compute():
    results = []
    for run in (ConvolutionSum(), plain):
        convs, given = convolutions(), [grid.requires_grad_() for grid in grids()]
        run(convs, given).square().sum().backward()
        results.append([tensor.grad for tensor in (*given, *(conv.weight for conv in convs))])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_it_computes_what_is_large_and_float32_and_no_more(monkeypatch):
    assert can_compute(convolutions(), grids())
    for dtype in HALVES:
        assert not can_compute([conv.to(dtype) for conv in convolutions()], [grid.to(dtype) for grid in grids()])
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_compute(convolutions(), grids())
    monkeypatch.setattr(winograd, "MIN_CHANNELS", MIN_CHANNELS)
    assert not can_compute(convolutions(), grids())


@torch.no_grad()
def test_what_is_kept_takes_the_bytes_that_are_reckoned_with(monkeypatch):
    convs, convolution_sum = convolutions(), ConvolutionSum()
    convolution_sum(convs, grids())
    assert convolution_sum._filters.nbytes == filter_bytes(3, 16)
    convolution_sum([conv.bfloat16() for conv in convs], [grid.bfloat16() for grid in grids()])
    assert convolution_sum._filters is None
    monkeypatch.setattr(winograd, "MIN_CHANNELS", MIN_CHANNELS)
    assert filter_bytes(3, 16) == 0 and filter_bytes(4, 1024) == 2**28


@torch.no_grad()
def test_a_copy_holds_no_filters():
    """Neither a stored module does: it would be twice as large."""
    convs, convolution_sum = convolutions(), ConvolutionSum()
    convolution_sum(convs, grids())
    size = len(pickle.dumps(ConvolutionSum()))
    assert len(pickle.dumps(convolution_sum)) == len(pickle.dumps(copy.deepcopy(convolution_sum))) == size
