"""PQ, AP and mIoU: perfect answers, values worked out by hand, and samples of images."""

from pathlib import Path

import numpy as np
import pytest
from panoptic_answers import BED_A, CAR_A, Wrong, evaluated, metrics
from panoptic_scenes import ROOM, STREET, YARD, YARD_ROOM, write_ade20k, write_cityscapes

from gpt4roi_nb.evaluate.benchmarks.panoptic_files import read_panoptic, regions_of, truth_of
from gpt4roi_nb.evaluate.metrics.ground_truth import PanopticData
from gpt4roi_nb.evaluate.metrics.mapping import region_probabilities
from gpt4roi_nb.evaluate.metrics.panoptic import SegmentationEvaluator, confusion
from gpt4roi_nb.evaluate.metrics.statistics import intervals


@pytest.fixture
def city(tmp_path: Path) -> PanopticData:
    return read_panoptic(write_cityscapes(tmp_path / "cityscapes"), "cityscapes")


@pytest.fixture
def rooms(tmp_path: Path) -> PanopticData:
    return read_panoptic(write_ade20k(tmp_path / "ade20k"), "ade20k")


@pytest.mark.parametrize("name", ["city", "rooms"])
def test_perfect_answers_give_100_everywhere(name: str, request: pytest.FixtureRequest) -> None:
    figures = metrics(evaluated(request.getfixturevalue(name)))
    assert set(figures) == {"PQ", "SQ", "RQ", "PQ things", "PQ stuff", "AP", "AP50", "mIoU"}
    assert set(figures.values()) == {100.0}


def test_a_car_taken_for_a_person_gives_the_figures_worked_out_by_hand(city: PanopticData) -> None:
    figures = metrics(evaluated(city, CAR_A))
    # person: one right, one too many; car: one right, one missed; the group of cars counts for neither: 1 / 1.5 each
    assert figures["PQ"] == pytest.approx(100 * (1 + 1 + 2 / 3 + 2 / 3) / 4)
    assert figures["SQ"] == pytest.approx(100)
    assert figures["PQ things"] == pytest.approx(100 * 2 / 3)
    assert figures["PQ stuff"] == pytest.approx(100)
    # person: 500 pixels of 500 + 600; car: 600 + 400 of 600 + 600 + 400
    assert figures["mIoU"] == pytest.approx(100 * (1 + 1 + 500 / 1100 + 1000 / 1600) / 4)
    # person: precision 1/2 at recall 1, and the point (1, 0): 0.5 × 0.5 + 0.5 × 1. Car: precision 1 at recall 1/2.
    assert figures["AP"] == figures["AP50"] == pytest.approx(100 * (0.75 + 0.5) / 2)


def test_a_bed_taken_for_a_window_gives_the_figures_worked_out_by_hand(rooms: PanopticData) -> None:
    figures = metrics(evaluated(rooms, BED_A))
    assert figures["PQ"] == pytest.approx(100 * (1 + 1 + 2 / 3 + 2 / 3) / 4)
    assert figures["mIoU"] == pytest.approx(100 * (1 + 1 + 200 / 400 + 400 / 600) / 4)
    # bed: precision 1 up to recall 1/2, which is 51 of 101 points; window: the false one comes first, precision 1/2
    assert figures["AP"] == pytest.approx(100 * (51 / 101 + 1 / 2) / 2)


def test_a_region_without_a_class_is_missed_and_nothing_else(city: PanopticData) -> None:
    figures = metrics(evaluated(city, {("city_000000_000000", 7): None}))
    assert figures["PQ"] == pytest.approx(100 * (0 + 1 + 1 + 1) / 4)
    assert figures["mIoU"] == pytest.approx(100 * (0 + 1 + 1 + 1) / 4)
    assert figures["AP"] == 100


def test_void_and_missing_classes_stay_out_of_the_confusion_matrix() -> None:
    truth, predicted = np.array([[0, 1, -1, 1]]), np.array([[0, -1, 0, 0]])
    assert confusion(truth, predicted, 2).tolist() == [[1, 0, 0], [1, 0, 1]]
    with pytest.raises(ValueError, match="one size"):
        confusion(truth, predicted[:, :2], 2)


def test_a_class_that_is_nowhere_does_not_count(tmp_path: Path) -> None:
    data = read_panoptic(write_cityscapes(tmp_path, [STREET]), "cityscapes")
    evaluator = evaluated(data)
    assert metrics(evaluator)["PQ"] == metrics(evaluator)["mIoU"] == 100


def test_nothing_to_score_is_nan_and_no_crash(tmp_path: Path) -> None:
    data = read_panoptic(write_cityscapes(tmp_path, [STREET]), "cityscapes")
    assert all(np.isnan(value) for value in metrics(SegmentationEvaluator(data)).values())
    assert intervals(SegmentationEvaluator(data).metrics()) == {}


def test_flat_sentence_scores_leave_the_classes_as_they_are(city: PanopticData) -> None:
    evaluator = SegmentationEvaluator(city)
    for image in city.images:
        regions = regions_of(image, city.classes)
        cosines = np.where(np.arange(4) == regions.classes[:, None], 0.6, 0.5)
        evaluator.add(image, regions.masks, region_probabilities(cosines), truth_of(image, city.classes))
    figures = metrics(evaluator)
    assert figures["PQ"] == figures["mIoU"] == 100
    assert figures["AP"] == 100  # the right class still scores highest


@pytest.mark.parametrize(("dataset", "wrong"), [("cityscapes", CAR_A), ("ade20k", BED_A)])
def test_a_resample_is_what_the_official_tools_make_of_the_images_drawn(
    tmp_path: Path, dataset: str, wrong: Wrong
) -> None:
    """Each image twice and once, by counts, and the same images written out as a dataset of their own."""
    write, drawn = (write_cityscapes, [STREET, YARD]) if dataset == "cityscapes" else (write_ade20k, [ROOM, YARD_ROOM])
    small = read_panoptic(write(tmp_path / "small", drawn), dataset)
    found = evaluated(small, wrong).metrics()
    large = read_panoptic(write(tmp_path / "large", [drawn[0], drawn[1], drawn[0]]), dataset)
    again = {(large.images[2].id, number): index for (_, number), index in wrong.items()}
    expected = metrics(evaluated(large, {**wrong, **again}))
    for name, metric in found.items():
        assert metric.of_samples is not None
        assert metric.units == tuple(image.id for image in small.images)
        values = metric.of_samples(np.array([[2, 1], [1, 1]]))
        assert values == pytest.approx([expected[name], metric.value], abs=1e-9), name


def test_resampled_ap_is_the_official_one_on_random_scores(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for dataset, write, drawn in (
        ("cityscapes", write_cityscapes, [STREET, YARD, STREET, STREET]),
        ("ade20k", write_ade20k, [ROOM, YARD_ROOM, ROOM, ROOM]),
    ):
        data = read_panoptic(write(tmp_path / dataset, drawn), dataset)
        evaluator = SegmentationEvaluator(data)
        for image in data.images:
            regions = regions_of(image, data.classes)
            probabilities = region_probabilities(rng.normal(size=(len(regions.ids), 4)))
            evaluator.add(image, regions.masks, probabilities, truth_of(image, data.classes))
        for name in ("AP", "AP50"):
            metric = evaluator.metrics()[name]
            assert 0 < metric.value < 100
            assert metric.of_samples is not None
            assert metric.of_samples(np.ones((1, 4), np.int64)) == pytest.approx(metric.value, abs=1e-9)


def test_wrong_probabilities_are_told(city: PanopticData) -> None:
    regions = regions_of(city.images[0], city.classes)
    with pytest.raises(ValueError, match="each of the 4 classes and one for void"):
        SegmentationEvaluator(city).add(
            city.images[0], regions.masks, np.zeros((4, 4)), truth_of(city.images[0], city.classes)
        )
