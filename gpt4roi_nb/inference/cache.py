"""Keys and values of a conversation, with room to grow, shared by prompts that begin alike. For inference only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 64  # tokens allocated ahead


class GrowingLayer(DynamicLayer):
    """transformers' cache layer with memory allocated ahead for new tokens, where the original copies all each step."""

    keys: Tensor
    values: Tensor
    _key_room: Tensor | None = None
    _value_room: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values, each (B, heads, n, D); return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        self.keys, self._key_room = _append(self.keys, length, key_states, self._key_room)
        self.values, self._value_room = _append(self.values, length, value_states, self._value_room)
        return self.keys, self.values

    def branch(self, length: int, rows: int) -> GrowingLayer:
        """Make a layer of `rows` rows that each begin with the first `length` tokens of this one, which has one row."""
        grown = GrowingLayer()
        grown.lazy_initialization(self.keys, self.values)
        grown.keys = self.keys[..., :length, :].expand(rows, -1, -1, -1)
        grown.values = self.values[..., :length, :].expand(rows, -1, -1, -1)
        return grown

    def gather(self, length: int, rows: Tensor) -> GrowingLayer:
        """Make a layer whose row k begins with the first `length` tokens of row `rows[k]` of this one."""
        grown = GrowingLayer()
        grown.lazy_initialization(self.keys, self.values)
        grown.keys, grown._key_room = _select(self.keys, length, rows)
        grown.values, grown._value_room = _select(self.values, length, rows)
        return grown

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows, (B,) int64."""
        length = self.get_seq_length()
        if length:
            self.keys, self._key_room = _select(self.keys, length, indices)
            self.values, self._value_room = _select(self.values, length, indices)


def _append(states: Tensor, length: int, new: Tensor, room: Tensor | None) -> tuple[Tensor, Tensor]:
    """Append new states, (B, heads, n, D), to states, (B, heads, length, D); return both together and their memory."""
    total = length + new.shape[-2]
    lies_in_room = room is not None and states.data_ptr() == room.data_ptr() and states.shape[0] == room.shape[0]
    if room is None or not lies_in_room or room.shape[-2] < total:
        room = new.new_empty(*new.shape[:-2], total + ROOM, new.shape[-1])
        if length:
            room[..., :length, :] = states
    room[..., length:total, :] = new
    return room[..., :total, :], room


def _select(states: Tensor, length: int, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Copy the first `length` tokens of rows, (B,) int64, into memory with room; return the states and their memory."""
    room = states.new_empty(len(rows), states.shape[1], length + ROOM, states.shape[-1])
    selected = room[..., :length, :]
    torch.index_select(states[..., :length, :], 0, rows.to(states.device), out=selected)
    return selected, room


def new_cache() -> Cache:
    """Make an empty cache."""
    return Cache(layer_class_to_replicate=GrowingLayer)


def branch(cache: Cache, length: int, rows: int = 1) -> Cache:
    """Make a cache of `rows` rows that each begin with the first `length` tokens of another, which has one row.

    Nothing is copied before the branch grows; what it writes does not change the other. Until then, the other must not
    be cut back and continued.
    """
    grown = new_cache()
    if length:
        grown.layers.extend(layer.branch(length, rows) for layer in cache.layers)  # type: ignore[union-attr]
    return grown


def gather(cache: Cache, length: int, rows: Tensor) -> Cache:
    """Make a cache whose row k is a copy of the first `length` tokens of row `rows[k]`, (B,) int64, of another."""
    grown = new_cache()
    grown.layers.extend(layer.gather(length, rows) for layer in cache.layers)  # type: ignore[union-attr]
    return grown
