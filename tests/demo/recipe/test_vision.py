"""The shortcuts of training compute what the model computes."""

import numpy as np
import torch

from gpt4roi_nb.data.scenes.scene import make_scene
from gpt4roi_nb.demo.recipe.bank import NO_OBJECT, load_or_draw, patch_owners
from gpt4roi_nb.demo.recipe.vision import SMALLEST_SIDE, draw_batch, jitter, pixel_values, pool


def test_separable_pooling_is_roi_align(bank, model):
    batch = draw_batch(bank, range(4), 0.1, np.random.default_rng(0))
    with torch.no_grad():
        maps = model.encode_image(batch.pixel_values).fused_maps
        head = model.region_encoder.head
        for ours, theirs in zip(pool(head, maps, batch.boxes), head.pool(maps, batch.boxes), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_training_sees_the_pixels_that_a_user_s_picture_becomes(recipe, processor):
    large = make_scene(9, size=6 * recipe.image_size).image
    kept = make_scene(9, size=recipe.image_size).image

    ours = pixel_values(kept[None])[0]
    theirs = processor.image_processor(kept)["pixel_values"][0]
    torch.testing.assert_close(ours, theirs)
    reduced = processor.image_processor(large)["pixel_values"][0]
    assert (ours - reduced).abs().mean() < 0.1


def test_jittered_boxes_stay_inside_and_keep_a_side():
    exact = np.array([[0.0, 0.0, 0.05, 0.05], [0.9, 0.9, 1.0, 1.0], [0.2, 0.3, 0.6, 0.5]] * 50, np.float32)
    drawn = jitter(exact, 0.2, np.random.default_rng(0))

    assert drawn.dtype == np.float32 and drawn.min() >= 0 and drawn.max() <= 1
    assert ((drawn[:, 2:] - drawn[:, :2]) >= SMALLEST_SIDE - 1e-6).all()
    assert not np.array_equal(drawn, exact)


def test_a_patch_belongs_to_the_object_that_covers_most_of_it():
    masks = np.zeros((2, 8, 8), bool)
    masks[0, :4, :4] = True
    masks[1, :4, 4:7] = True
    masks[1, 4:5, 4:8] = True  # a quarter of its patch

    assert patch_owners(masks, grid=2).tolist() == [[0, 1], [NO_OBJECT, NO_OBJECT]]


def test_a_bank_is_read_back_as_it_was_drawn_and_not_drawn_again(recipe, tmp_path):
    said = []
    options = {"size": recipe.image_size, "grid": recipe.grid, "n_objects": (3, 5), "report": said.append}
    first = load_or_draw(tmp_path, 8, 2, **options)
    drawn = (tmp_path / "images.npy").stat().st_mtime_ns
    again = load_or_draw(tmp_path, 8, 2, **options)

    assert (tmp_path / "images.npy").stat().st_mtime_ns == drawn
    assert again.objects == first.objects
    assert again.scene(1).objects[0].box == first.objects[1][0].box
