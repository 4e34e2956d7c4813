"""The tower's last layers learn to number the objects of an image, and change nothing else."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from gpt4roi_nb.data.scenes.question_kinds import left_to_right
from gpt4roi_nb.data.scenes.scene import SceneObject
from gpt4roi_nb.demo.recipe.bank import DRAWN_AT, with_out_of_domain
from gpt4roi_nb.demo.recipe.hidden import HiddenStates
from gpt4roi_nb.demo.recipe.loop import run_phase
from gpt4roi_nb.demo.recipe.ordered import (
    MAX_NUMBERED,
    OrderPhase,
    numbered_rightly,
    order_step,
    point,
    train_order,
    up_to_ties,
)
from gpt4roi_nb.demo.recipe.recipe import Further, Phase
from gpt4roi_nb.demo.recipe.vision import pixel_values

FROZEN = 2  # layers of the miniature's tower; one trains


def test_the_kept_states_are_the_towers(model, bank):
    states = HiddenStates(model, bank, trained=1)
    tokens = OrderPhase(model, FROZEN)(states.frozen([2, 0]))
    pixels = model.encode_image(_pixels(bank, [2, 0])).image_features
    torch.testing.assert_close(tokens, pixels, atol=5e-3, rtol=5e-3)  # the states are kept in float16


def _pixels(bank, indices):
    return pixel_values(np.stack([bank.images[k] for k in indices]))


def test_a_number_beyond_the_objects_points_at_nothing(model):
    logits, shown = point(OrderPhase(model, FROZEN), torch.zeros(2, 16, model.config.text_config.hidden_size))
    assert logits.shape == (2, MAX_NUMBERED, 17)
    assert shown.shape == (2, MAX_NUMBERED, model.config.text_config.hidden_size)
    assert (logits[..., -1] == 0).all()


@pytest.mark.slow
def test_numbers_are_learnt_by_the_last_layers_and_the_projector_alone(model, bank, tmp_path):
    mixed = with_out_of_domain(bank, tmp_path, 5, len(DRAWN_AT))
    recipe = replace(Further().tiny(), order=Phase(60, 3e-3), order_images=6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scenes = np.arange(len(bank))

    run = partial(run_phase, folder=tmp_path, recipe=recipe, seed=0, report=lambda text: None)
    took = train_order(model, HiddenStates(model, mixed, trained=1), recipe, run)

    assert took["steps"] == 60
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in changed} == {"vision_tower", "multi_modal_projector"}
    assert all("layers.2." in name for name in changed if name.startswith("vision_tower"))
    phase = OrderPhase(model, FROZEN)
    phase.load_state_dict(torch.load(tmp_path / "order.pt", weights_only=True)["weights"], strict=False)
    right = numbered_rightly(phase, HiddenStates(model, bank, trained=1), scenes)
    assert min(right[name] for name in ("category", "colour", "material", "size")) > 0.5  # of the scenes it learnt


def test_losses_are_finite_with_images_of_no_object(model, bank, tmp_path):
    mixed = with_out_of_domain(bank, tmp_path, 5, len(DRAWN_AT))
    losses = order_step(OrderPhase(model, FROZEN), HiddenStates(model, mixed, trained=1), 8, np.random.default_rng(0))
    assert losses.keys() == {"pointer", "object", "place", "centre", "near"}
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())


def test_left_to_right_is_by_the_middles_of_the_boxes(bank):
    for things in bank.objects:
        middles = [things[k].box[0] + things[k].box[2] for k in left_to_right(things)]
        assert middles == sorted(middles)


def test_objects_that_stand_about_level_take_the_order_that_costs_less():
    def thing(x):
        return SceneObject("ball", "red", "metal", "small", (x, 10, x + 20, 30), (0.0, 0.0), 0.0)

    things = [thing(90), thing(12), thing(10), thing(94)]
    free, dear = torch.zeros(8, 4), torch.zeros(8, 4)
    dear[[0, 1], [2, 1]] = 1.0  # the strict order, 2 and then 1
    dear[[2, 3], [0, 3]] = -1.0
    assert up_to_ties(things, free, 6.0) == up_to_ties(things, dear, 0.0) == [2, 1, 0, 3]
    assert up_to_ties(things, dear, 6.0) == [1, 2, 0, 3]
    assert up_to_ties(things, dear, 1.0) == [2, 1, 0, 3]
