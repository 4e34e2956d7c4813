"""Scenes as records: each object is asked about once, by its own box, and the answer is what the scene says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpt4roi_nb.data.scenes import scene_records
from gpt4roi_nb.data.scenes.scene import scenes


def test_each_object_is_asked_about_by_its_own_box(tmp_path: Path) -> None:
    records = scene_records(tmp_path, 3, seed=5, size=64)
    drawn = [(scene, thing) for scene in scenes(5, 3, size=64) for thing in scene.objects]
    for record, (scene, thing) in zip(records, drawn, strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / record.image)), scene.image)
        assert record.boxes.tolist() == [list(map(float, thing.box))]
        (_, asked), said = record.turns
        assert "<region1>" in asked and said == ("assistant", f"a {thing.phrase}")
    assert len({record.id for record in records}) == len(records)
    assert scene_records(tmp_path, 3, seed=5, size=64) == records
    together = scene_records(tmp_path, 3, seed=5, size=64, together=True)
    assert [record.image for record in together] == list(dict.fromkeys(record.image for record in records))
    assert sum(len(record.boxes) for record in together) == len(records)
    first = [record for record in records if record.image == together[0].image]
    assert [turn[1] for turn in together[0].turns[1::2]] == [record.turns[1][1] for record in first]
    assert all(f"<region{n}>" in text for n, (_, text) in enumerate(together[0].turns[::2], start=1))
    colours = [record.turns[1][1].split()[-1] for record in scene_records(tmp_path, 3, seed=5, size=64, kind="colour")]
    assert colours == [thing.colour for _, thing in drawn]


def test_a_kind_that_is_not_about_one_region_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kind must be one of"):
        scene_records(tmp_path, 1, seed=5, kind="count")
