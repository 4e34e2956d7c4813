"""Packed rows are the same arithmetic as one conversation a row."""

import numpy as np
import pytest
import torch

from gpt4roi_nb.demo.recipe.curriculum import RARE_FORMS, SHORT, draw_conversation, draw_question
from gpt4roi_nb.demo.recipe.language import rows_losses
from gpt4roi_nb.demo.recipe.rows import RowBuilder
from gpt4roi_nb.demo.recipe.shared_prefix import SHARED_PREFIX
from gpt4roi_nb.demo.recipe.vision import draw_batch, see
from gpt4roi_nb.prompt import IGNORE


@pytest.fixture
def packed(bank, processor, model):
    rng = np.random.default_rng(0)
    talks = [[draw_conversation(bank.scene(index), turns, rng, SHORT) for turns in (1, 2, 3)] for index in (0, 1)]
    batch = draw_batch(bank, [0, 1], 0.0, rng)
    with torch.no_grad():
        encoding, regions = see(model, batch.pixel_values, batch.boxes)
    counts = [len(boxes) for boxes in batch.boxes]
    rows = RowBuilder(processor).rows(talks, [bank.scene(index) for index in (0, 1)])
    return talks, counts, encoding, regions, rows


@torch.no_grad()
def test_the_loss_of_packed_rows_is_that_of_single_conversations(packed, processor, model):
    talks, counts, encoding, regions, rows = packed
    total, tokens = 0.0, 0
    for image, first in enumerate((0, counts[0])):
        for talk in talks[image]:
            prompt = processor.prompt(talk.turns)
            labels = torch.tensor([prompt.labels])
            vectors = regions[[first + talk.objects[number - 1] for number in prompt.regions]]
            loss = model(
                input_ids=torch.tensor([prompt.input_ids]),
                image_features=encoding.image_features[image : image + 1],
                region_features=vectors if len(vectors) else None,
                labels=labels,
            ).loss
            count = int((labels[:, 1:] != IGNORE).sum())
            total, tokens = total + loss.item() * count, tokens + count

    model.language_model.set_attn_implementation(SHARED_PREFIX)
    packed_loss = rows_losses(model, rows, encoding.image_features, regions)["words"].item()

    assert packed_loss == pytest.approx(total / tokens, abs=1e-5)


def test_a_row_keeps_the_prompt_of_each_conversation(packed, processor):
    talks, _, _, _, rows = packed
    for k, talk in enumerate(talks[0]):
        start = rows.prefix_length + k * rows.slot_length
        prompt = processor.prompt(talk.turns)
        row = rows.input_ids[0]
        whole = torch.cat([row[: rows.prefix_length], row[start : start + rows.slot_length]])
        assert whole[: len(prompt.input_ids)].tolist() == prompt.input_ids


def test_a_conversation_with_follow_ups_ends_with_the_answer_to_its_last_question(bank):
    talk = draw_conversation(bank.scene(0), 3, np.random.default_rng(1), SHORT)

    assert talk.turns[-2:] == (("user", talk.last.text), ("assistant", talk.last.answer))
    assert talk.objects == talk.last.objects


@pytest.mark.parametrize("kind", RARE_FORMS)
def test_rare_forms_are_asked_often_enough_to_be_learnt_in_follow_ups_as_well(bank, kind):
    share, is_rare = RARE_FORMS[kind]
    rng = np.random.default_rng(0)
    scene = bank.scene(next(k for k in range(len(bank)) if len({thing.size for thing in bank.objects[k]}) == 2))
    first = [draw_question(scene, rng, {kind: 1.0}) for _ in range(150)]
    later = [draw_conversation(scene, 2, rng, {"phrase": 1.0}, {kind: 1.0}).last for _ in range(400)]

    for questions in (first, [question for question in later if question.kind == kind]):
        assert len(questions) > 60  # of two regions in a follow-up, one must be new
        assert np.mean([is_rare(question) for question in questions]) > 0.85 * share
