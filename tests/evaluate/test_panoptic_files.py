"""Cityscapes and ADE20K on disk: regions, boxes, and what is broken or missing."""

import os
from pathlib import Path

import numpy as np
import pytest
from panoptic_scenes import STREET, YARD, write_cityscapes

from gpt4roi_nb.data.problems import BadRecord, Problems
from gpt4roi_nb.evaluate.benchmarks.panoptic_files import read_panoptic, regions_of, truth_of
from gpt4roi_nb.evaluate.metrics.ground_truth import PanopticData


@pytest.fixture
def city(tmp_path: Path) -> PanopticData:
    return read_panoptic(write_cityscapes(tmp_path / "cityscapes"), "cityscapes")


def test_regions_are_the_listed_ids_with_tight_boxes(city: PanopticData) -> None:
    regions = regions_of(city.images[0], city.classes)
    assert regions.ids.tolist() == [7, 26, 26000, 26001]  # the group is a region too
    assert [city.classes[k].name for k in regions.classes] == ["road", "car", "car", "car"]
    assert regions.boxes.tolist() == [[0, 0, 50, 40], [90, 0, 100, 40], [60, 0, 90, 20], [60, 20, 90, 40]]
    assert np.array_equal(regions.masks[1], STREET == 26)
    truth = truth_of(city.images[1], city.classes)
    assert truth.instances is not None
    assert np.array_equal(truth.instances, YARD)
    assert np.array_equal(truth.segments, YARD)


def test_broken_records_are_counted_by_reason(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, [STREET, YARD, YARD])
    (root / "leftImg8bit/val/city/city_000001_000000_leftImg8bit.png").unlink()
    (root / "gtFine/cityscapes_panoptic_val/city_000002_000000_gtFine_panoptic.png").write_bytes(b"no image")
    problems = Problems()
    data = read_panoptic(root, "cityscapes", problems=problems)
    assert [image.id[:11] for image in data.images] == ["city_000000", "city_000002"]
    assert problems.counts() == {"no such image": 1}
    with pytest.raises(ValueError, match="image cannot be read"):
        regions_of(data.images[1], data.classes)
    # a segment that the file does not list, and one of a class that it does not know
    listed = data.images[0].annotation["segments_info"]
    listed[0]["category_id"], listed[-1]["id"] = 99, 1
    assert regions_of(data.images[0], data.classes, problems).ids.tolist() == [26, 26000]
    assert problems.counts() == {"no such image": 1, "index out of range": 1, "missing field": 1}


@pytest.mark.parametrize("kind", ["pipe", "bomb"])
def test_a_file_that_never_ends_or_is_too_large_is_no_image(
    city: PanopticData, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "pipe":
        city.images[0].panoptic.unlink()
        os.mkfifo(city.images[0].panoptic)
    else:
        monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 10)
    with pytest.raises(BadRecord, match="image cannot be read"):
        regions_of(city.images[0], city.classes)


def test_missing_files_are_all_named_with_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"cityscapes_panoptic_val\.json.*gtFine/val.*leftImg8bit/val.*csCreate"
    ):
        read_panoptic(tmp_path, "cityscapes")
    with pytest.raises(FileNotFoundError, match=r"ade20k_panoptic_val\.json.*images/validation.*prepare_ade20k"):
        read_panoptic(tmp_path, "ade20k")


def test_too_many_regions_are_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt4roi_nb.evaluate.benchmarks.panoptic_files.MAX_REGIONS", 2)
    data, problems = read_panoptic(write_cityscapes(tmp_path, [STREET]), "cityscapes"), Problems()
    assert regions_of(data.images[0], data.classes, problems).ids.tolist() == [7, 26]
    assert sum(problems.left_out.values()) == 2
