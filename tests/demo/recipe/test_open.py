"""What the recipe's further part asks: boxes that are no object's, images of other worlds, benchmarks' wordings."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gpt4roi_nb.data.protocol_texts import LETTERS
from gpt4roi_nb.data.scenes.scene import scenes
from gpt4roi_nb.data.scenes.unknown import NOT_MY_SCENE
from gpt4roi_nb.demo.recipe.bank import DRAWN_AT, load_or_draw, with_out_of_domain
from gpt4roi_nb.demo.recipe.curriculum import (
    ANSWER_FAMILIES,
    BALANCED_FAMILIES,
    Conversation,
    careless,
    draw_conversation,
    draw_question,
    out_of_domain_conversation,
)
from gpt4roi_nb.demo.recipe.hidden import HiddenStates, encode
from gpt4roi_nb.demo.recipe.language import draw_rows, rows_losses
from gpt4roi_nb.demo.recipe.protocols import PROTOCOL_LETTERS, PROTOCOL_NAMES, PROTOCOL_POINTING, protocol_questions
from gpt4roi_nb.demo.recipe.rows import RowBuilder
from gpt4roi_nb.demo.recipe.shared_prefix import SHARED_PREFIX
from gpt4roi_nb.prompt import IGNORE


@pytest.fixture
def mixed(bank, tmp_path):
    return with_out_of_domain(bank, tmp_path, 5, len(DRAWN_AT))


def test_images_out_of_domain_follow_the_scenes_and_are_drawn_once(mixed, bank, tmp_path):
    assert (mixed.scenes, len(mixed)) == (len(bank), len(bank) + len(DRAWN_AT))
    assert mixed.scene(len(bank)).objects == ()
    (path,) = tmp_path.glob("*.npy")
    written = path.stat().st_mtime_ns
    assert (with_out_of_domain(bank, tmp_path, 5, len(DRAWN_AT)).images == mixed.images).all()
    assert path.stat().st_mtime_ns == written


@torch.no_grad()
def test_boxes_of_no_object_enter_rows_as_they_enter_a_single_conversation(mixed, processor, model):
    rng = np.random.default_rng(4)
    size = mixed.images.shape[1]
    known, other = mixed.scene(1), mixed.scene(mixed.scenes)
    talks = [
        [draw_conversation(known, 1, rng, {kind: 1.0}) for kind in ("phrase", "nothing", "same")],
        [out_of_domain_conversation(known, size, rng) for _ in range(3)],
    ]
    rows = RowBuilder(processor).rows(talks, [known, other])
    chosen = [1, mixed.scenes]
    patches, regions = encode(model, HiddenStates(model, mixed), chosen, 0.0, rng, rows.other_boxes)
    total, tokens = 0.0, 0
    encoding = model.encode_image(processor.image_processor([scene.image for scene in (known, other)])["pixel_values"])
    for image, (scene, image_talks) in enumerate(zip((known, other), talks, strict=True)):
        maps = [level[image : image + 1] for level in encoding.fused_maps]
        for talk in image_talks:
            prompt = processor.prompt(talk.turns)
            exact = talk.boxes or [scene.objects[k].box for k in talk.objects]
            boxes = torch.tensor([exact[number - 1] for number in prompt.regions], dtype=torch.float32) / size
            loss = model(
                input_ids=torch.tensor([prompt.input_ids]),
                image_features=encoding.image_features[image : image + 1],
                region_features=model.encode_regions(maps, [boxes]) if len(boxes) else None,
                labels=torch.tensor([prompt.labels]),
            ).loss
            count = sum(label != IGNORE for label in prompt.labels)
            total, tokens = total + loss.item() * count, tokens + count

    model.language_model.set_attn_implementation(SHARED_PREFIX)
    packed = rows_losses(model, rows, patches, regions)["words"].item()

    assert packed == pytest.approx(total / tokens, abs=2e-3)  # loose boxes are read as exact ones; states in float16


def test_a_question_out_of_domain_is_answered_by_saying_so(bank):
    talk = out_of_domain_conversation(bank.scene(0), 56, np.random.default_rng(0))
    assert talk.turns[1] == ("assistant", NOT_MY_SCENE)
    assert talk.objects == ()


def test_careless_typing_changes_questions_alone(bank):
    rng = np.random.default_rng(0)
    talk = draw_conversation(bank.scene(0), 2, rng, {"phrase": 1.0})
    typed = [careless(talk, rng) for _ in range(40)]

    assert any(one.turns != talk.turns for one in typed)
    assert all(one.turns[1::2] == talk.turns[1::2] for one in typed)


def test_benchmarks_ask_about_the_scene_of_the_bank(recipe, tmp_path):
    bank = load_or_draw(tmp_path, 3, 3, size=recipe.image_size, grid=recipe.grid, n_objects=recipe.plain_objects)
    scene = bank.scene(2)
    asked = protocol_questions(scene.seed, scene.image.shape[0])

    assert any(question.text.startswith("What is the category of <region1>?") for question in asked[PROTOCOL_NAMES])
    assert {question.answer for question in asked[PROTOCOL_LETTERS]} <= set(LETTERS)
    assert {question.objects for question in asked[PROTOCOL_LETTERS]} == {()}
    categories = {thing.category for thing in scene.objects}
    for question in asked[PROTOCOL_NAMES]:
        if question.text == "What is the category of <region1>?" and question.answer not in ("table", "wall"):
            assert question.answer in categories


def test_what_pointing_asks_for_fits_its_question(processor):
    found = 0
    for scene in scenes(3, 12, size=56):
        for question in protocol_questions(scene.seed, 56)[PROTOCOL_POINTING]:
            assert len(question.objects) == len(LETTERS)
            said = (("user", question.text), ("assistant", question.answer))
            rows = RowBuilder(processor).rows([[Conversation(said, question.objects, question)]], [scene])
            if len(rows.fits):
                found += 1
                assert bool(rows.fits[LETTERS.index(question.answer)])
                assert rows.item_objects.tolist() == [question.objects[LETTERS.index(question.answer)]]
    assert found > 5


def test_a_scene_that_offers_nothing_to_point_at_is_asked_something_else():
    scene = next(one for one in scenes(5, 50, size=56) if not protocol_questions(one.seed, 56)[PROTOCOL_POINTING])
    shares = {PROTOCOL_POINTING: 0.9, PROTOCOL_NAMES: 0.1}
    assert draw_question(scene, np.random.default_rng(0), shares).kind == PROTOCOL_NAMES


@pytest.mark.parametrize("family", [family for mix in (ANSWER_FAMILIES, BALANCED_FAMILIES) for family, _ in mix])
def test_every_family_makes_rows(family, mixed, processor):
    few = replace(family, rows=2, questions=3)
    rows = draw_rows(
        RowBuilder(processor), [mixed.scene(1), mixed.scene(mixed.scenes)], few, np.random.default_rng(0), True
    )

    assert (rows.labels != IGNORE).any(1).all()
    vectors = len(rows.attributes) + sum(map(len, rows.other_boxes))
    assert len(rows.regions) == int((rows.input_ids == processor.tokenizer.convert_tokens_to_ids("<bbox>")).sum())
    assert not len(rows.regions) or int(rows.regions.max()) < vectors
