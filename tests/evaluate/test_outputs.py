"""Semantic, panoptic and instance outputs of region masks and class probabilities, on grids small enough to read."""

import numpy as np
import pytest

from gpt4roi_nb.evaluate.metrics.outputs import Segment, instances, panoptic, semantic

THINGS = (True, False, False)  # of classes 0, 1, 2; column 3 is void


def masks(*rows: str) -> np.ndarray:
    """One mask per string: "##.." in an image one pixel high."""
    return np.array([[[sign == "#" for sign in row]] for row in rows], bool)


def test_a_pixel_takes_the_class_with_the_largest_sum_over_regions() -> None:
    regions = masks("###.", ".###", "....")
    probabilities = np.array([[0.6, 0.4, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 1, 0]])
    # the middle two: 0.6 for class 0, 0.9 for class 1, 0.5 for class 2
    assert semantic(regions, probabilities).tolist() == [[0, 1, 1, 1]]


def test_pixels_without_a_region_or_in_a_void_one_have_no_class() -> None:
    regions = masks("#..", ".#.")
    probabilities = np.array([[0.7, 0.2, 0.1, 0], [1e-8, 1e-8, 1e-8, 1]])
    assert semantic(regions, probabilities).tolist() == [[0, -1, -1]]
    ids, segments = panoptic(regions, probabilities, THINGS)
    assert ids.tolist() == [[1, 0, 0]]
    assert segments == [Segment(1, 0, (0,))]
    assert instances(probabilities, THINGS).regions.tolist() == [0]


@pytest.mark.slow
def test_semantic_bands_of_a_large_image_fit_together() -> None:
    rng = np.random.default_rng(0)
    regions = rng.random((3, 300, 400)) < 0.4
    probabilities = rng.dirichlet(np.ones(150), 3)
    probabilities[:, -1] = 0
    sums = np.einsum("nc,nhw->chw", probabilities[:, :-1], regions)
    expected = np.where(regions.any(0), sums.argmax(0), -1)
    assert np.array_equal(semantic(regions, probabilities), expected)


def test_a_region_of_which_less_than_four_fifths_remains_is_dropped() -> None:
    probabilities = np.array([[0.9, 0.1, 0, 0], [0, 0.8, 0.2, 0]])
    ids, segments = panoptic(masks("##........", ".#########"), probabilities, THINGS)
    assert ids.tolist() == [[1, 1, *[2] * 8]]  # 8 of 9 remain
    ids, segments = panoptic(masks("##........", ".####....."), probabilities, THINGS)
    assert ids.tolist() == [[1, 1, *[0] * 8]]  # 3 of 4 do not suffice
    assert segments == [Segment(1, 0, (0,))]
    ids, _ = panoptic(masks("##........", ".#####...."), probabilities, THINGS)
    assert ids.tolist() == [[1, 1, 2, 2, 2, 2, 0, 0, 0, 0]]  # 4 of 5 do: the bound itself is kept


def test_stuff_of_one_class_is_one_segment_and_things_are_apart() -> None:
    regions = masks("#...", ".#..", "..#.", "...#")
    probabilities = np.array([[0.9, 0, 0, 0], [0, 0.9, 0, 0], [0.9, 0, 0, 0], [0, 0.9, 0, 0]])
    ids, segments = panoptic(regions, probabilities, THINGS)
    assert ids.tolist() == [[1, 2, 3, 2]]
    assert segments == [Segment(1, 0, (0,)), Segment(2, 1, (1, 3)), Segment(3, 0, (2,))]


def test_instances_are_the_likeliest_pairs_of_all_classes_and_then_things_only() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2, 0], [0.1, 0.6, 0.3, 0]])
    found = instances(probabilities, THINGS, top=2)  # 0.6 for stuff, 0.5 for the thing
    assert (found.regions.tolist(), found.categories.tolist(), found.scores.tolist()) == ([0], [0], [0.5])
    assert instances(probabilities, THINGS).scores.tolist() == [0.5, 0.1]
    assert instances(np.zeros((0, 4)), THINGS).scores.tolist() == []
    many = instances(np.full((300, 4), 0.25), (True, True, True))
    assert len(many.scores) == 100
    assert many.regions.tolist() == [k // 3 for k in range(100)]  # equal ones keep their order


def test_no_regions_give_empty_outputs() -> None:
    none, rows = np.zeros((0, 2, 3), bool), np.zeros((0, 4))
    assert (semantic(none, rows) == -1).all()
    ids, segments = panoptic(none, rows, THINGS)
    assert ids.shape == (2, 3)
    assert segments == []


def test_wrong_shapes_are_told() -> None:
    with pytest.raises(ValueError, match=r"masks must be \(N, H, W\) bool"):
        semantic(np.zeros((1, 2, 3)), np.zeros((1, 4)))
    with pytest.raises(ValueError, match="one row per mask: there are 2 masks"):
        panoptic(np.zeros((2, 2, 3), bool), np.zeros((1, 4)), THINGS)
