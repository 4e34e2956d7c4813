"""Packed rows are the same arithmetic as one conversation a row."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gpt4roi_nb.data.protocol_texts import LETTERS, choice_question
from gpt4roi_nb.data.scenes.question_kinds import left_to_right
from gpt4roi_nb.data.scenes.questions import Question
from gpt4roi_nb.demo.recipe.curriculum import RARE_FORMS, SHORT, Conversation, draw_conversation, draw_question
from gpt4roi_nb.demo.recipe.language import rows_losses
from gpt4roi_nb.demo.recipe.protocols import PROTOCOL_POINTING
from gpt4roi_nb.demo.recipe.rows import EMPTY, PART, SHOWN, WHOLE, RowBuilder
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


def one_row(processor, scene, talks):
    return RowBuilder(processor).rows([talks], [scene])


def before(rows, at, processor):
    """The text of a row up to a place."""
    row, column = at
    start = rows.prefix_length + (column - rows.prefix_length) // rows.slot_length * rows.slot_length
    return processor.tokenizer.decode(rows.input_ids[row, start : column + 1])


def test_each_thing_that_a_list_names_is_an_object_in_its_order(bank, processor):
    scene = bank.scene(0)
    rng = np.random.default_rng(0)
    rows = one_row(processor, scene, [draw_conversation(scene, 1, rng, {"describe": 1.0})])

    assert rows.item_objects.tolist() == left_to_right(scene.objects)
    said = [before(rows, at, processor) for at in rows.item_at.tolist()]
    assert all(text.endswith((" a", " an")) for text in said)
    assert said[0].endswith(("Assistant: a", "Assistant: an"))


def test_a_thing_that_two_objects_could_be_is_no_item_outside_a_list(bank, processor):
    scene = bank.scene(0)
    twins = replace(scene, objects=(*scene.objects, scene.objects[0]))
    name = f"{scene.objects[0].colour} {scene.objects[0].category}"
    question = Question("extreme", "What is the largest object?", f"a {name}", (), "")
    talk = Conversation((("user", question.text), ("assistant", question.answer)), (), question)

    assert one_row(processor, scene, [talk]).item_objects.tolist() == [0]
    assert not len(one_row(processor, twins, [talk]).item_at)


def test_lettered_options_are_told_right_from_wrong_also_where_they_are_regions(bank, processor):
    scene = bank.scene(int(np.argmax([len(things) for things in bank.objects])))
    options = [f"<region{k}>" for k in range(1, 5)]
    asked = choice_question(4, f"Which is the {scene.objects[0].colour} thing?", options)
    question = Question(PROTOCOL_POINTING, asked, "(C)", (3, 1, 0, 2), "(C)")
    rows = one_row(processor, scene, [Conversation((("user", asked), ("assistant", "(C)")), (3, 1, 0, 2), question)])

    assert rows.option_right.tolist() == [False, False, True, False]
    for count, at in enumerate(rows.option_at.tolist(), start=1):  # a line break may be one token with the next "("
        text = before(rows, at, processor)
        assert [letter for letter in LETTERS if letter in text] == list(LETTERS[:count])
        assert f"region{count}" in text.replace(" ", "").rpartition("(" + "ABCD"[count - 1])[2]
    assert rows.fits_at.tolist() == rows.option_at.tolist()
    assert rows.fits.tolist() == [scene.objects[k].colour == scene.objects[0].colour for k in (3, 1, 0, 2)]
    assert rows.item_objects.tolist() == [0]  # region 3
    assert before(rows, rows.item_at[0].tolist(), processor).rstrip("( \n").endswith("letter.")


def test_what_a_box_shows_is_told_where_it_is_named(bank, processor):
    scene = bank.scene(0)
    rng = np.random.default_rng(0)
    talks = [draw_conversation(scene, 1, rng, {"nothing": 1.0}) for _ in range(30)]
    rows = one_row(processor, scene, [*talks, draw_conversation(scene, 1, rng, {"phrase": 1.0})])

    firsts = [talk.last.target.split()[0] for talk in talks]
    expected = [SHOWN.get(word, SHOWN[EMPTY]) for word in firsts]
    assert rows.shown.tolist() == [*expected, SHOWN[WHOLE]]
    assert {SHOWN[PART], SHOWN[EMPTY]} <= set(expected)
