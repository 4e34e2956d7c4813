"""What the recipe's image heads are taught agrees with the answers of the world's questions."""

import numpy as np
import pytest
import torch

from gpt4roi_nb.data.scenes.image_kinds import EXTREMES, extremes
from gpt4roi_nb.data.scenes.open_questions import ask
from gpt4roi_nb.data.scenes.relation_kinds import SIDES
from gpt4roi_nb.data.scenes.scene import CATEGORIES, COLOURS, make_scene
from gpt4roi_nb.demo.recipe.bank import with_out_of_domain
from gpt4roi_nb.demo.recipe.curriculum import Family
from gpt4roi_nb.demo.recipe.language import draw_rows, rows_losses
from gpt4roi_nb.demo.recipe.protocols import PROTOCOL_LETTERS, PROTOCOL_POINTING
from gpt4roi_nb.demo.recipe.rows import RowBuilder
from gpt4roi_nb.demo.recipe.surroundings import (
    THINGS,
    WAYS,
    WORDS,
    ImageHeads,
    around_words,
    extreme_words,
    named,
    thing_tallies,
)
from gpt4roi_nb.prompt import IGNORE

SCENES = [make_scene(seed, size=168) for seed in range(12)]


def words_of(numbers):
    """The colours and categories that `named` names."""
    return {word for word, there in zip((*COLOURS, *CATEGORIES), numbers, strict=True) if there}


def test_extremes_name_the_object_of_the_answer():
    found = extreme_words(SCENES)
    for scene, row in zip(SCENES, found.tolist(), strict=True):
        clear = extremes(scene)
        for name, (colour, category) in zip(EXTREMES, row, strict=True):
            if name in clear:
                thing = scene.objects[clear[name]]
                assert (COLOURS[colour], CATEGORIES[category]) == (thing.colour, thing.category)
            else:
                assert (colour, category) == (IGNORE, IGNORE)


def test_what_stands_around_is_what_the_questions_say():
    rng, asked = np.random.default_rng(0), 0
    for scene in SCENES:
        for _ in range(12):
            question = ask(scene, "around", rng)
            if question is None or question.target == "nothing":
                continue
            ways = [words_of(one) for one in around_words(scene, question.objects[0]) if one is not None]
            assert set(question.target.split()) in ways
            asked += 1
    assert asked > 20


def test_a_close_call_is_not_taught():
    unclear = [one is None for scene in SCENES for k in range(len(scene.objects)) for one in around_words(scene, k)]
    assert any(unclear)
    assert not all(unclear)
    assert len(around_words(SCENES[0], 0)) == len(WAYS) == len(SIDES) + 1


def test_tallies_of_things_add_up_to_the_objects():
    scene = SCENES[0]
    tallies = thing_tallies([scene], 12)[0]
    assert tallies.shape == (144, THINGS)
    last = tallies[-1].view(len(COLOURS), len(CATEGORIES))
    for colour, row in zip(COLOURS, last.tolist(), strict=True):
        for category, count in zip(CATEGORIES, row, strict=True):
            assert count == sum((one.colour, one.category) == (colour, category) for one in scene.objects)


def test_nothing_names_nothing():
    assert named(SCENES[0], []) == [0.0] * WORDS


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("describe", {"things", "extremes"}),
        ("relation", {"things", "extremes", "around", "between"}),
        ("phrase", {"things", "extremes", "around"}),
        (PROTOCOL_POINTING, {"things", "extremes", "around", "between", "fits"}),
    ],
)
def test_the_heads_read_what_the_rows_hold(kind, expected, bank, processor, model, tmp_path):
    mixed = with_out_of_domain(bank, tmp_path, 5, 2)
    rows = draw_rows(
        RowBuilder(processor),
        [mixed.scene(1), mixed.scene(mixed.scenes)],
        Family({kind: 0.9, PROTOCOL_LETTERS: 0.1} if kind == PROTOCOL_POINTING else {kind: 1.0}, 2, 3, out_of_domain=1),
        np.random.default_rng(0),
    )
    width = model.config.text_config.hidden_size
    count = len(rows.attributes) + sum(map(len, rows.other_boxes))
    features = torch.randn(2, rows.tallies.shape[1], width)

    losses = rows_losses(model, rows, features, torch.randn(count, width), probe_heads=ImageHeads(width))

    ours = losses.keys() & {"things", "extremes", "around", "between", "fits"}
    assert expected - {"between"} <= ours <= expected
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
