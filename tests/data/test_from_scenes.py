"""Scenes as records: each object is asked about once, by its own box, and the answer is what the scene says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpt4roi_nb.data import scene_records
from gpt4roi_nb.data.scenes import scenes


def test_each_object_is_asked_about_by_its_own_box(tmp_path: Path) -> None:
    records = scene_records(tmp_path, 3, seed=5, size=64)
    for record, scene in zip(records, scenes(5, 3, size=64), strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / record.image)), scene.image)
        assert record.boxes.tolist() == [list(map(float, thing.box)) for thing in scene.objects]
        asked, said = record.turns[::2], record.turns[1::2]
        for number, thing in enumerate(scene.objects, 1):
            assert f"<region{number}>" in asked[number - 1][1]
            assert said[number - 1] == ("assistant", f"a {thing.phrase}")
    assert scene_records(tmp_path, 3, seed=5, size=64) == records
    colours = scene_records(tmp_path, 2, seed=5, size=64, kind="colour")[0].turns[1::2]
    things = next(scenes(5, 1, size=64)).objects
    assert [text.split()[-1] for _, text in colours] == [thing.colour for thing in things]


def test_a_kind_that_is_not_about_one_region_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kind must be one of"):
        scene_records(tmp_path, 1, seed=5, kind="count")
