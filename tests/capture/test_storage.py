"""A recording that is damaged says so."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mutations import cases, ends_well, garbled
from PIL import Image
from tiny import tiny_image

from gpt4roi_nb.capture import storage

ABOUT = {"words": ["a", "b"], "number": 3}
TENSORS = {"maps": torch.rand(2, 3, 4), "ids": torch.arange(5)}


@pytest.mark.parametrize("ending", storage.ENDINGS)
def test_a_damaged_recording(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"a{ending}"
    storage.write(file, "attention", TENSORS, Image.fromarray(tiny_image()), ABOUT)
    data = file.read_bytes()
    assert storage.read(file, "attention")[2] == {"kind": "attention", **ABOUT}

    @cases
    def case(rng: random.Random) -> None:
        file.write_bytes(garbled(data, rng))
        with ends_well():
            storage.read(file, "attention")

    case()


@pytest.mark.parametrize("about", ["[1]", "5", "{}", "", "[" * 100_000, '{"kind": 5}'])
def test_a_description_of_another_form_is_refused(about: str, tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, about=np.array(about), tiny_image=np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match=r"a\.npz"):
        storage.read(file, "attention")


def test_arrays_of_another_kind_are_refused(tmp_path: Path) -> None:
    for pixels, maps in ((np.zeros((2, 2, 7)), np.zeros(3)), (np.zeros((2, 2, 3), np.uint8), np.array(["a"]))):
        np.savez(tmp_path / "a.npz", about=np.array('{"kind": "attention"}'), tiny_image=pixels, maps=maps)
        with pytest.raises(ValueError, match=r"a\.npz' is damaged, or no saved attention"):
            storage.read(tmp_path / "a.npz", "attention")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="is a pipe"):
        storage.read(tmp_path / "a.npz", "attention")
