"""The generated world: the same for the same seed, with boxes and masks that say exactly what can be seen."""

import subprocess
import sys
from collections import Counter
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from gpt4roi_nb.data.scenes.scene import (
    CATEGORIES,
    COLOURS,
    MATERIALS,
    MAX_OBJECTS,
    SIZES,
    Scene,
    make_scene,
    scene_seed,
    scenes,
)

SEED = 41


@pytest.fixture(scope="module")
def some() -> list[Scene]:
    return list(scenes(SEED, 24))


def same(one: Scene, other: Scene) -> bool:
    return (
        one.objects == other.objects
        and one.seed == other.seed
        and np.array_equal(one.image, other.image)
        and np.array_equal(one.masks, other.masks)
    )


@pytest.mark.slow
def test_a_scene_is_the_same_whenever_and_wherever_it_is_made() -> None:
    code = (
        "from zlib import crc32; from gpt4roi_nb.data.scenes import make_scene\n"
        "scene = make_scene(7, size=168); print(crc32(scene.image.tobytes()), crc32(scene.masks.tobytes()))"
    )
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    make_scene(11)
    here = make_scene(7, size=168)
    assert fresh == [str(crc32(here.image.tobytes())), str(crc32(here.masks.tobytes()))]


@pytest.mark.slow
def test_a_series_does_not_depend_on_the_number_of_workers_or_its_length(some: list[Scene]) -> None:
    parallel = list(scenes(SEED, 9, workers=2))
    assert all(same(one, other) for one, other in zip(parallel, some[:9], strict=True))


def test_a_scene_can_be_made_again_from_its_own_seed(some: list[Scene]) -> None:
    assert some[5].seed == scene_seed(SEED, 5)
    assert same(make_scene(some[5].seed), some[5])


def test_different_seeds_give_different_scenes(some: list[Scene]) -> None:
    assert len({scene.image.tobytes() for scene in some}) == len(some)
    assert scene_seed(1, 2) != scene_seed(2, 1)


@pytest.mark.parametrize("size", [64, 168, 224, 336, 400])
def test_arrays_have_the_promised_shapes_and_kinds(size: int) -> None:
    scene = make_scene(5, size=size)
    assert (scene.image.shape, scene.image.dtype) == ((size, size, 3), np.uint8)
    assert (scene.masks.shape, scene.masks.dtype) == ((len(scene.objects), size, size), bool)


@pytest.mark.parametrize("size", [168, 250, 336])
def test_boxes_are_the_tight_bounds_of_disjoint_masks(size: int) -> None:
    for seed in range(8):
        scene = make_scene(seed, size=size)
        assert scene.masks.sum(0).max() == 1
        for thing, mask in zip(scene.objects, scene.masks, strict=True):
            rows, cols = np.nonzero(mask)
            assert thing.box == (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)


def test_a_mask_covers_what_is_drawn_there() -> None:
    """Coloured things are more saturated than the table, so saturation finds them apart from the mask."""
    for scene in scenes(8, 24, n_objects=1):
        if scene.objects[0].colour != "white":
            saturation = scene.image.max(2).astype(int) - scene.image.min(2)
            mask = scene.masks[0]
            assert saturation[mask].mean() > 2 * saturation[~mask].mean()
            found = saturation > 70
            assert (found & mask).sum() > 0.98 * found.sum()


def test_every_object_lies_inside_the_image(some: list[Scene]) -> None:
    for scene in some:
        for thing in scene.objects:
            x1, y1, x2, y2 = thing.box
            assert 1 <= min(x1, y1) < max(x2, y2) <= 335
            assert max(abs(thing.position[0]), abs(thing.position[1] - 6)) < 6


@pytest.mark.slow
def test_every_object_is_at_least_four_tenths_visible() -> None:
    """Against the same solid alone on the table: its whole silhouette, found among scenes with one object."""
    whole: dict[tuple[str, str], int] = {}
    for scene in scenes(3, 300, size=168, n_objects=1):
        key = scene.objects[0].category, scene.objects[0].size
        whole[key] = max(whole.get(key, 0), int(scene.masks.sum()))
    for scene in scenes(4, 40, size=168, n_objects=10):
        for thing, mask in zip(scene.objects, scene.masks, strict=True):
            # 0.85: a cube or a mug shows less of itself from some sides than from others
            assert mask.sum() > 0.85 * 0.4 * whole[thing.category, thing.size]


def test_boxes_of_two_objects_never_nearly_coincide() -> None:
    for scene in scenes(5, 30, size=168, n_objects=10):
        for index, one in enumerate(scene.objects):
            for other in scene.objects[:index]:
                width = min(one.box[2], other.box[2]) - max(one.box[0], other.box[0])
                height = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1])
                areas = [(t.box[2] - t.box[0]) * (t.box[3] - t.box[1]) for t in (one, other)]
                shared = max(width, 0) * max(height, 0)
                assert shared / (sum(areas) - shared) < 0.5


def test_the_larger_size_is_clearly_larger() -> None:
    widths: dict[tuple[str, str], list[int]] = {}
    for scene in scenes(3, 80, n_objects=1):
        thing = scene.objects[0]
        widths.setdefault((thing.category, thing.size), []).append(thing.box[2] - thing.box[0])
    for category in CATEGORIES:
        assert min(widths[category, "large"]) > 1.3 * max(widths[category, "small"])


@pytest.mark.slow
def test_every_value_of_every_attribute_comes_up_about_as_often() -> None:
    things = [thing for scene in scenes(6, 250, size=64) for thing in scene.objects]
    for attribute, values in (
        ("category", CATEGORIES),
        ("colour", COLOURS),
        ("material", MATERIALS),
        ("size", SIZES),
    ):
        counts = Counter(getattr(thing, attribute) for thing in things)
        assert set(counts) == set(values)
        assert min(counts.values()) > 0.5 * len(things) / len(values)


def test_some_scenes_hold_things_of_one_colour_or_one_shape(some: list[Scene]) -> None:
    for attribute in ("category", "colour"):
        assert any(len({getattr(t, attribute) for t in scene.objects}) < len(scene.objects) for scene in some)


def test_a_small_image_is_the_large_one_reduced(some: list[Scene]) -> None:
    for scene in some[:8]:
        small = make_scene(scene.seed, size=168)
        reduced = np.asarray(Image.fromarray(scene.image).resize((168, 168), Image.Resampling.BICUBIC))
        assert np.abs(small.image.astype(int) - reduced).max() <= 1
        for one, other in zip(small.objects, scene.objects, strict=True):
            assert (one.phrase, one.position) == (other.phrase, other.position)
            assert np.abs(np.array(one.box) - np.array(other.box) / 2).max() <= 1


@pytest.mark.parametrize("count", [1, 4, 10, MAX_OBJECTS])
def test_a_number_of_objects_is_kept_exactly(count: int) -> None:
    assert len(make_scene(2, size=64, n_objects=count).objects) == count


def test_a_range_of_objects_is_used_up_to_both_ends() -> None:
    assert {len(scene.objects) for scene in scenes(1, 40, size=64, n_objects=(2, 4))} == {2, 3, 4}


@pytest.mark.parametrize("wrong", [0, (5, 3), MAX_OBJECTS + 1, (0, 2)])
def test_an_impossible_number_of_objects_is_refused(wrong: int | tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="n_objects"):
        make_scene(0, n_objects=wrong)


def test_an_image_too_small_and_a_negative_seed_are_refused() -> None:
    with pytest.raises(ValueError, match="size must be at least"):
        make_scene(0, size=8)
    with pytest.raises(ValueError, match="seed"):
        make_scene(-1)


def test_a_phrase_names_size_colour_material_and_category(some: list[Scene]) -> None:
    thing = some[0].objects[0]
    assert thing.phrase.split() == [thing.size, thing.colour, thing.material, thing.category]
