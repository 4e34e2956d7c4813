"""The sum is computed in float16, and a wrong base is detected by the rounding of the differences."""

from __future__ import annotations

import warnings

import pytest
import torch

from gpt4roi_nb.checkpoint.delta import MAX_ODD, Adder, WrongBaseWarning, odd_share, share_on_steps

SHAPE = (400, 500)


def drawn(seed: int, shape: tuple[int, ...] = SHAPE, mean: float = 0.0, std: float = 0.02) -> torch.Tensor:
    return mean + std * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("moved", [0.0005, 0.01, 0.2, 1.0])
@pytest.mark.parametrize("trained_in", [torch.float16, torch.float32, torch.bfloat16])
def test_the_right_base_is_always_found_right(moved, trained_in):
    base = drawn(0).half()
    target = (base.float() + moved * drawn(1)).to(trained_in).half()
    delta = target - base
    adder = Adder()
    assert adder.add(delta, base, "x").equal(delta + base)
    assert share_on_steps(delta, base)[0] == 1.0
    assert adder.checked == ["x"] and odd_share(delta) < MAX_ODD


@pytest.mark.parametrize("moved", [0.0005, 0.01, 0.2, 1.0])
@pytest.mark.parametrize("apart", [0.01, 0.05, 1.0])
def test_another_base_is_noticed(moved, apart):
    base = drawn(0).half()
    other = (base.float() + apart * drawn(2)).half()
    delta = (base.float() + moved * drawn(1)).half() - base
    with pytest.raises(ValueError, match="was computed from another base"):
        Adder().add(delta, other, "x")


def test_another_base_can_be_forced_with_one_warning():
    base, other = drawn(0).half(), drawn(2).half()
    delta = (base.float() + 0.01 * drawn(1)).half() - base
    with pytest.raises(ValueError, match=r"another base\..*: --force \(force=True\)$"):
        Adder().add(delta, other, "x")
    adder = Adder(force=True)
    with pytest.warns(WrongBaseWarning, match="THE BASE DOES NOT LOOK LIKE THIS DELTA'S.*x: only"):
        target = adder.add(delta, other, "x")
    assert target.equal(delta + other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert adder.add(delta, other.bfloat16(), "y").equal(delta + other.bfloat16().half())
    assert adder.checked == []
    assert [doubt.split(":")[0] for doubt in adder.doubts] == ["x", "y", "y"]
    right = Adder(force=True)
    right.add(delta, base, "x")
    assert right.doubts == [] and right.checked == ["x"]
    large = torch.full(SHAPE, 60_000.0).half()
    with pytest.raises(ValueError, match="NaN or infinite in float16"):
        adder.add(large, large, "z")


def test_norms_are_looked_at_as_well():
    base = drawn(0, (4096,), mean=1.0, std=0.1).half()
    delta = (base.float() + drawn(1, (4096,), std=0.003)).half() - base
    Adder().add(delta, base, "norm")
    with pytest.raises(ValueError, match=r"norm: only .* was computed from another base"):
        Adder().add(delta, (base.float() * 7).half(), "norm")


def test_small_tensors_are_judged_together():
    adder = Adder()
    with pytest.raises(ValueError, match=r"^tensor [2-9]"):
        for index in range(10):
            base = drawn(index, (20, 20)).half()
            delta = (base.float() + 0.01 * drawn(index + 100, (20, 20))).half() - base
            adder.add(delta, drawn(index + 200, (20, 20)).half(), f"tensor {index}")


def test_unrelated_matrices_are_told_by_their_norms_where_rounding_says_nothing():
    base, other = drawn(0).half(), drawn(2).half()
    delta = drawn(1) - base.float()  # computed in float32
    assert odd_share(delta.half()) > MAX_ODD
    Adder().add(delta, base, "x")
    with pytest.raises(ValueError, match="the norm is that of two unrelated matrices"):
        Adder().add(delta, other, "x")


def test_rows_that_the_base_has_not_come_from_the_delta():
    base = drawn(0, (1000, 8)).half()
    delta = drawn(3, (1006, 8)).half()
    delta[:1000] = (base.float() + 0.01 * drawn(1, (1000, 8))).half() - base
    merged = Adder().add(delta, base, "embeddings")
    assert merged[1000:].equal(delta[1000:]) and merged[:1000].equal(delta[:1000] + base)


def test_a_sum_that_overflows_is_refused():
    large = torch.full(SHAPE, 60_000.0).half()
    with pytest.raises(ValueError, match="NaN or infinite in float16"):
        Adder().add(large, large, "x")
