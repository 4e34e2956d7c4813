"""Which optimizer trains what."""

import pytest

from gpt4roi_nb.demo.recipe.language import LanguagePhase
from gpt4roi_nb.demo.recipe.loop import make_optimizers
from gpt4roi_nb.demo.recipe.muon import Muon
from gpt4roi_nb.demo.recipe.ordered import OrderPhase
from gpt4roi_nb.demo.recipe.surroundings import ImageHeads
from gpt4roi_nb.demo.recipe.vision import VisionPhase


def language_phase(model):
    return LanguagePhase(model, ImageHeads(model.config.text_config.hidden_size))


@pytest.mark.parametrize(
    ("phase", "parts"),
    [
        (lambda model: OrderPhase(model, 2), {"layers.0."}),
        (language_phase, {"model.language_model.model.layers.", "model.vision_tower.encoder.layers."}),
        (VisionPhase, set()),  # a whole tower is AdamW's
    ],
    ids=["order", "language", "vision"],
)
def test_muon_trains_matrices_inside_layers(phase, parts, model, recipe):
    trained = phase(model)
    names = {id(parameter): name for name, parameter in trained.named_parameters()}
    by_muon = {
        names[id(parameter)]
        for optimizer in make_optimizers(trained, recipe)
        if isinstance(optimizer, Muon)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    inside = {
        name
        for name, parameter in trained.named_parameters()
        if parameter.ndim > 1 and parameter.requires_grad and any(name.startswith(part) for part in parts)
    }
    assert by_muon == inside
    assert bool(by_muon) == bool(parts)
