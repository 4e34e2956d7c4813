"""A damaged file in the cache counts as missing: the tower runs again."""

from __future__ import annotations

import random
import resource
from pathlib import Path

import pytest
import torch
from mutations import cases, ends_well, garbled
from safetensors.torch import save_file

from gpt4roi_nb.files import stamp_of
from gpt4roi_nb.train.tower_cache import STATES, TowerCache

SHAPE = (2, 4, 3)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"an image")
    return file


@pytest.fixture
def cache(tmp_path: Path, image: Path) -> TowerCache:
    cache = TowerCache(tmp_path / "cache", SHAPE, torch.float32)
    cache.put(image, torch.rand(SHAPE), (64, 48))
    assert cache.has(image)
    return cache


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        (STATES, {}), (STATES, {"size": ""}), (STATES, {"size": "[1]"}), (STATES, {"size": '"ab"'}),
        (STATES, {"size": "7"}), (STATES, {"size": "[" * 10_000}), ("others", {"size": "[64, 48]"}),
    ],
)  # fmt: skip
def test_a_file_that_lacks_something_counts_as_none(
    name: str, facts: dict[str, str], cache: TowerCache, image: Path
) -> None:
    save_file({name: torch.zeros(SHAPE)}, cache._file(image), metadata={"stamp": stamp_of(image), **facts})
    assert not cache.has(image) and cache.get(image) is None
    cache.put(image, torch.ones(SHAPE), (64, 48))
    states, size = cache.get(image)
    assert (states == 1).all() and size == (64, 48)


def test_a_disk_that_fills_meanwhile_is_told_in_words(cache: TowerCache, image: Path) -> None:
    """No file may grow beyond 50 bytes in this process, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
    try:
        with pytest.raises(OSError, match=r"the tower cache could not be written to .*cache': it needs .* were free"):
            cache.put(image, torch.rand(SHAPE), (64, 48))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in cache.folder.rglob("*.part*")] == [] and cache.has(image)


def test_a_damaged_file_counts_as_none(cache: TowerCache, image: Path) -> None:
    file = cache._file(image)
    data = file.read_bytes()

    @cases
    def case(rng: random.Random) -> None:
        file.write_bytes(garbled(data, rng))
        with ends_well():
            found = cache.get(image)
            assert found is None or found[0].shape == SHAPE

    case()
