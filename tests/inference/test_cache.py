"""The cache holds what transformers' own holds, and branches do not affect each other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache

from gpt4roi_nb.inference.cache import ROOM, branch, new_cache

LAYERS, HEADS, WIDTH = 2, 3, 4
steps = st.lists(st.integers(-12, ROOM + 10).filter(bool), min_size=1, max_size=12)


def states(tokens: int, rows: int = 1) -> torch.Tensor:
    return torch.rand(rows, HEADS, tokens, WIDTH)


def grow(caches, tokens: int, rows: int = 1) -> None:
    for layer in range(LAYERS):
        keys, values = states(tokens, rows), states(tokens, rows)
        for cache in caches:
            cache.update(keys, values, layer)


def assert_same(cache, other) -> None:
    for one, two in zip(cache.layers, other.layers, strict=True):
        assert one.keys.equal(two.keys) and one.values.equal(two.values)


@given(steps)
def test_growing_and_cutting_back_as_transformers_does(changes):
    ours, theirs = new_cache(), DynamicCache()
    for change in changes:
        if change > 0:
            grow((ours, theirs), change)
        elif ours.get_seq_length():
            cut = max(change, 1 - ours.get_seq_length())  # at least one token stays
            ours.crop(cut)
            theirs.crop(cut)
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert_same(ours, theirs)


def test_a_step_copies_nothing():
    cache = new_cache()
    grow([cache], 5)
    before = cache.layers[0].keys.data_ptr()
    for _ in range(ROOM):
        grow([cache], 1)
    assert cache.layers[0].keys.data_ptr() == before


@pytest.mark.parametrize("length", [0, 1, 5])
def test_branches_begin_alike_and_part(length):
    trunk, copy = new_cache(), DynamicCache()
    grow((trunk, copy), 5)
    branches = [branch(trunk, length, rows) for rows in (1, 3, 3)]
    for one, rows in zip(branches, (1, 3, 3), strict=True):
        assert one.get_seq_length() == length
        grow([one], 2, rows)
        assert one.layers[0].keys.shape == (rows, HEADS, length + 2, WIDTH)
        for row in one.layers[1].values:
            assert row[:, :length].equal(copy.layers[1].values[0, :, :length])
    assert not branches[1].layers[0].keys.equal(branches[2].layers[0].keys)
    assert_same(trunk, copy)
