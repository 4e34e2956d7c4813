"""Scenes in symbols, multiple choice, and how the two halves are brought together."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.data.scenes.formats.claims import items
from gpt4roi_nb.data.scenes.formats.vcr import written
from gpt4roi_nb.data.scenes.questions import Question, ask
from gpt4roi_nb.data.scenes.scene import COLOURS, make_scene
from gpt4roi_nb.data.vcr import read_vcr
from gpt4roi_nb.demo.choices import choice_pair, is_letter
from gpt4roi_nb.demo.recipe.alignment import align, solve
from gpt4roi_nb.demo.recipe.curriculum import Conversation, draw_conversation
from gpt4roi_nb.demo.recipe.hidden import HiddenStates, encode
from gpt4roi_nb.demo.recipe.language import ProbeHeads, relations, rows_losses
from gpt4roi_nb.demo.recipe.muon import orthogonal
from gpt4roi_nb.demo.recipe.rows import RowBuilder
from gpt4roi_nb.demo.recipe.shared_prefix import SHARED_PREFIX
from gpt4roi_nb.demo.recipe.symbols import NUMBERS, PLACES, Code, attribute_indices, some_objects, symbols_of, tally
from gpt4roi_nb.demo.recipe.vision import CODE_CENTRE_WEIGHT, distance_from_code, draw_batch, see
from gpt4roi_nb.prompt import token_id_of
from gpt4roi_nb.tokenizer import IMAGE_TOKEN


@pytest.fixture(scope="module")
def code():
    return Code(64)


def test_symbols_can_be_read_back_from_the_vectors(code):
    scene = make_scene(3, size=56)
    regions, _ = code.tell([scene], 4, np.random.default_rng(0))
    lengths = code.regions.norm(dim=1)
    read = regions @ code.regions.T / lengths**2

    first = 0
    for k, number in enumerate(NUMBERS):
        best = read[:, first : first + number].argmax(1).tolist()
        assert best == [attribute_indices(thing)[k] for thing in scene.objects]
        first += number
    centres = [(thing.box[0] + thing.box[2]) / 2 for thing in scene.objects]
    assert np.corrcoef(read[:, first].numpy(), centres)[0, 1] > 0.95
    assert first + PLACES + 1 == len(lengths)


def test_one_patch_is_marked_for_an_object(code):
    scene = make_scene(3, size=56)
    attributes, placed, centres = symbols_of([scene.objects], 56, 14)

    assert attributes.shape == (len(scene.objects), len(NUMBERS)) and placed.shape == (len(scene.objects), PLACES)
    marked = centres[0][centres[0, :, 0] < NUMBERS[0]]
    assert sorted(marked.tolist()) == sorted(attributes.tolist())
    tokens = code.image_tokens(centres)[0]
    assert tokens.shape == (14 * 14, 64)
    assert (
        tokens[centres[0, :, 0] < NUMBERS[0]].norm(dim=1).min()
        > tokens[centres[0, :, 0] == NUMBERS[0]].norm(dim=1).max()
    )


def test_a_width_that_cannot_hold_the_code_is_an_error_in_words():
    with pytest.raises(ValueError, match="the width is 32"):
        Code(32)


def test_some_objects_are_those_of_the_scene_in_any_order():
    scene = make_scene(5, size=56, n_objects=6)
    fewer = some_objects(scene, (3, 4), np.random.default_rng(1))

    assert 3 <= len(fewer.objects) <= 4 and set(fewer.objects) < set(scene.objects)


def test_multiple_choice_reads_as_the_world_s_own_vcr_file_does(tmp_path):
    scene = make_scene(11)
    rng = np.random.default_rng(0)
    item = items(scene, rng, 1)[0]
    names = [thing.category for thing in scene.objects]
    entry = {
        "img_fn": "a.jpg",
        "metadata_fn": "a.json",
        "annot_id": "x",
        "objects": names,
        "question": written(item.question),
        "answer_choices": [written(choice.tokens) for choice in item.answers],
        "answer_label": 0,
        "rationale_choices": [written(choice.tokens) for choice in item.rationales],
        "rationale_label": 0,
    }
    (tmp_path / "val.jsonl").write_text(json.dumps(entry))
    boxes = [[*map(float, thing.box), 1.0] for thing in scene.objects]
    (tmp_path / "a.json").write_text(json.dumps({"boxes": boxes, "names": names, "width": 336, "height": 336}))
    answer, rationale = read_vcr(tmp_path / "val.jsonl", Problems(), tmp_path, rendering="choice")

    for question, annotation in zip(choice_pair(scene, item, rng), (answer, rationale), strict=True):
        lines = question.text.splitlines()
        asked, *texts = annotation.texts
        assert f"Question: {asked}" in lines
        options = texts[-4:]
        assert {line[4:] for line in lines[-4:]} == set(options)
        assert lines[-4:][ord(question.target[1]) - ord("A")] == f"{question.target} {options[0]}"
        assert question.objects == tuple(range(len(scene.objects)))
        assert is_letter(question, question.answer) and not is_letter(question, "none of them")
    assert f"Answer: {rationale.texts[1]}" in lines


def test_the_end_of_each_option_is_found_and_the_right_one_known(processor, model):
    scene = make_scene(11, size=56)
    item = items(scene, np.random.default_rng(0), 1)[0]
    pair = choice_pair(scene, item, np.random.default_rng(0))
    talks = [[Conversation((("user", q.text), ("assistant", q.answer)), q.objects, q) for q in pair]]
    rows = RowBuilder(processor).rows(talks, [scene])

    assert len(rows.option_at) == 8
    assert rows.option_right.tolist() == [q.target == letter for q in pair for letter in ("(A)", "(B)", "(C)", "(D)")]
    text = processor.tokenizer.decode
    before = [text(rows.input_ids[row, : place + 1].tolist()).rstrip("\n( ") for row, place in rows.option_at.tolist()]
    for k, question in enumerate(pair):
        for end, line in zip(before[4 * k :], question.text.splitlines()[-4:], strict=False):
            assert end.endswith(line[-12:].replace("<", "").replace(">", ""))

    model.language_model.set_attn_implementation(SHARED_PREFIX)
    vectors = torch.zeros(len(scene.objects), 64)
    features = torch.zeros(1, processor.num_image_tokens, 64)
    losses = rows_losses(model, rows, features, vectors, probe_heads=ProbeHeads(64))
    assert set(losses) == {"letters", "tallies", "names", "pairs", "claims", "so far", "options"}


def test_what_an_option_claims_is_true_up_to_its_first_false_word(processor):
    scene = make_scene(11, size=56)
    thing = scene.objects[0]
    wrong, other = [colour for colour in COLOURS if colour != thing.colour][:2]
    lines = [
        f"(A) <region1> is a {thing.size} {thing.colour} {thing.material} {thing.category}.",
        f"(B) <region1> is a {thing.size} {wrong} {thing.material} {thing.category}.",
        f"(C) <region1> is {other}.",
        f"(D) <region1> is {thing.colour}.",
    ]
    text = "What is <region1>? Reply with its letter.\n" + "\n".join(lines)
    talk = Conversation((("user", text), ("assistant", "(A)")), (0,), Question("qa", text, "(A)", (0,), "(A)"))
    rows = RowBuilder(processor).rows([[talk]], [scene])

    first, second = [True] * 4, [True] + [False] * 3
    assert rows.so_far_true.tolist() == [*first, *second, False, True]
    assert rows.option_right.tolist() == [True, False, False, False]


def test_of_two_things_that_are_both_something_both_are_judged(processor):
    scene = make_scene(11, size=56)
    first = scene.objects[0]
    second = next(k for k, thing in enumerate(scene.objects) if thing.colour != first.colour)
    value = scene.objects[second].colour
    text = f"Are <region1> and <region2> alike? Yes, <region1> and <region2> are both {value}."
    talk = Conversation((("user", text), ("assistant", "no")), (0, second), Question("same", text, "no", (0, 1), "no"))
    rows = RowBuilder(processor).rows([[talk]], [scene])

    assert rows.claim_true.tolist() == [False]


def test_objects_are_tallied_patch_by_patch():
    scene = make_scene(3, size=56)
    _, _, centres = symbols_of([scene.objects], 56, 14)
    tallies = tally(centres)[0]

    assert tallies.shape == (14 * 14, sum(NUMBERS))
    assert tallies[-1].sum() == len(NUMBERS) * len(scene.objects)
    for patch in range(14 * 14):
        added = tallies[patch] - (tallies[patch - 1] if patch else 0)
        here = centres[0, patch].tolist()
        expected = torch.zeros(sum(NUMBERS))
        if here[0] < NUMBERS[0]:
            first = 0
            for index, number in zip(here, NUMBERS, strict=True):
                expected[first + index] = 1
                first += number
        assert torch.equal(added, expected)


def test_tallies_stand_at_the_image_tokens(processor):
    scene = make_scene(11, size=56)
    talk = draw_conversation(scene, 1, np.random.default_rng(0), {"count": 1.0})
    rows = RowBuilder(processor).rows([[talk]], [scene])

    count, start = processor.num_image_tokens, rows.image_start
    assert rows.tallies.shape == (1, count, sum(NUMBERS))
    is_image = rows.input_ids[0] == token_id_of(IMAGE_TOKEN, processor.tokenizer)
    assert is_image.nonzero()[:, 0].tolist() == list(range(start, start + count))
    assert RowBuilder(processor, image_tokens=False).rows([[talk]], [scene]).tallies.shape == (1, 0, sum(NUMBERS))


def test_what_is_counted_is_found_in_every_question_that_asks_how_many(processor, model):
    scene = make_scene(11, size=56)
    colour = scene.objects[0].colour
    reds = sum(thing.colour == colour for thing in scene.objects)
    turns = (
        *(("user", f"Is <region1> {colour}?"), ("assistant", "yes")),
        *(("user", f"How many {colour} objects are there?"), ("assistant", str(reds))),
        *(("user", "Count the things."), ("assistant", str(len(scene.objects)))),
    )
    talk = Conversation(turns, (0,), Question("count", turns[-2][1], turns[-1][1], (0,), turns[-1][1]))
    rows = RowBuilder(processor).rows([[talk]], [scene])

    words = processor.tokenizer.convert_ids_to_tokens([rows.input_ids[0, k] for _, k in rows.count_at.tolist()])
    assert words == [f"▁{colour}", "▁things"]
    second = rows.input_ids[0, rows.prefix_length :].tolist().index(token_id_of("▁many", processor.tokenizer))
    assert rows.count_at[0, 1] > rows.prefix_length + second  # not the colour in the first question
    assert rows.counts.tolist() == [reds, len(scene.objects)]

    model.language_model.set_attn_implementation(SHARED_PREFIX)
    features = torch.zeros(1, processor.num_image_tokens, 64)
    vectors = torch.zeros(len(scene.objects), 64)
    losses = rows_losses(model, rows, features, vectors, probe_heads=ProbeHeads(64))
    assert {"totals", "counts"} < set(losses)
    regions_only = RowBuilder(processor, image_tokens=False).rows([[talk]], [scene])
    losses = rows_losses(model, regions_only, None, vectors, probe_heads=ProbeHeads(64))
    assert not {"totals", "counts"} & set(losses)  # without image tokens nobody could know


def test_where_no_word_says_what_is_counted_nothing_is_read(processor):
    scene = make_scene(11, size=56)
    turns = (("user", "How many ojects are there?"), ("assistant", "3"))  # a letter has slipped
    talk = Conversation(turns, (), Question("count", turns[0][1], "3", (), "3"))

    assert not len(RowBuilder(processor).rows([[talk]], [scene]).count_at)


def test_a_claim_is_a_word_that_names_a_value_after_a_region(processor):
    scene = make_scene(11, size=56)
    first, second = scene.objects[1], scene.objects[0]
    text = f"Is <region1> {first.colour}? <region2> is a {first.size} {second.material} {second.category}."
    talk = Conversation((("user", text), ("assistant", "yes")), (1, 0), Question("colour", text, "yes", (1, 0), "yes"))
    rows = RowBuilder(processor).rows([[talk]], [scene])

    words = processor.tokenizer.convert_ids_to_tokens([rows.input_ids[0, k] for _, k in rows.claim_at.tolist()])
    assert words == [f"▁{word}" for word in (first.colour, first.size, second.material, second.category)]
    assert rows.claim_true.tolist() == [True, first.size == second.size, True, True]


def test_regions_and_pairs_of_them_are_found_where_they_are_named(processor):
    scene = make_scene(11, size=56)
    turns = (("user", "Is <region2> behind <region1>?"), ("assistant", "yes"), ("user", "And region 1, or region2?"))
    last = Question("phrase", turns[-1][1], "region1", (1, 0), "region1")
    talk = Conversation((*turns, ("assistant", "region1")), (1, 0), last)
    rows = RowBuilder(processor).rows([[talk]], [scene])

    words = processor.tokenizer.convert_ids_to_tokens([rows.input_ids[0, k] for _, k in rows.name_at.tolist()])
    assert words == ["<bbox>", "<bbox>", "1", "2", "1"]
    assert rows.name_objects.tolist() == [0, 1, 1, 0, 1]
    # the second name of region 1 follows one of region 1, so it makes no pair
    assert rows.pair_at.tolist() == [rows.name_at[k].tolist() for k in (1, 3, 4)]
    assert rows.pair_objects.tolist() == [[0, 1], [1, 0], [0, 1]]
    assert rows.attributes.tolist() == [attribute_indices(thing) for thing in scene.objects]


@pytest.mark.parametrize(
    ("kind", "column", "targets"),
    [("left_right", 4, {"left": True, "right": False}), ("front_behind", 5, {"front": True, "behind": False})],
)
def test_what_is_true_of_a_pair_is_what_its_questions_are_answered_from(processor, kind, column, targets):
    scene = make_scene(11, size=56, n_objects=6)
    asked = set()
    for seed in range(60):
        question = ask(scene, kind, np.random.default_rng(seed))
        if question is None or question.target not in targets or not question.text.lower().startswith("is <region"):
            continue
        asked.add(question.target)
        talk = Conversation((("user", question.text), ("assistant", question.answer)), question.objects, question)
        rows = RowBuilder(processor).rows([[talk]], [scene])
        true, clear = relations(rows)
        first, second = (attribute_indices(scene.objects[k]) for k in rows.pair_objects[0].tolist())
        assert true[0, :4].tolist() == [a == b for a, b in zip(first, second, strict=True)]
        assert clear[0, :4].all() and clear[0, column]
        assert bool(true[0, column]) == targets[question.target]
    assert asked == set(targets)


def test_what_is_read_off_two_rows_is_what_is_read_off_each(processor):
    rng = np.random.default_rng(0)
    scenes = [make_scene(seed, size=56) for seed in (11, 12)]
    talks = [
        [draw_conversation(scene, turns, rng, {"same": 0.5, "qa": 0.5, "size": 0.5}) for turns in (1, 2, 3)]
        for scene in scenes
    ]
    builder = RowBuilder(processor)
    both = builder.rows(talks, scenes)
    alone = [builder.rows([talk], [scene]) for talk, scene in zip(talks, scenes, strict=True)]
    before = (0, len(scenes[0].objects))

    for name in ("name_objects", "pair_objects"):
        assert torch.equal(
            getattr(both, name), torch.cat([getattr(rows, name) + k for rows, k in zip(alone, before, strict=True)])
        )
    for name in ("claim_true", "so_far_true", "option_right", "attributes", "places", "tallies"):
        assert torch.equal(getattr(both, name), torch.cat([getattr(rows, name) for rows in alone]))
    for name in ("name_at", "pair_at", "claim_at", "so_far_at", "option_at"):
        tokens = [rows.input_ids[tuple(getattr(rows, name).T)] for rows in (both, *alone)]
        assert torch.equal(tokens[0], torch.cat(tokens[1:]))


def test_the_stages_see_what_the_whole_model_sees(bank, model):
    states = HiddenStates(model, bank)
    with torch.no_grad():
        patches, regions = encode(model, states, [0, 2], 0.0, np.random.default_rng(0))
        batch = draw_batch(bank, [0, 2], 0.0, np.random.default_rng(0))
        encoding, wanted = see(model, batch.pixel_values, batch.boxes)

    torch.testing.assert_close(patches, encoding.image_features, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(regions, wanted, atol=1e-2, rtol=1e-2)


def test_least_squares_find_a_code_that_is_there():
    inputs = torch.randn(400, 12, generator=torch.Generator().manual_seed(0))
    hidden = nn.Linear(12, 5)
    layer = nn.Linear(12, 5)

    assert solve(layer, inputs, hidden(inputs).detach()) > 0.999
    torch.testing.assert_close(layer.weight, hidden.weight, atol=1e-2, rtol=1e-2)


def test_alignment_writes_more_of_the_code_than_the_mean(bank, model, code):
    explained = align(model, HiddenStates(model, bank), code, 0.0, len(bank))

    assert 0 < explained["regions"] <= 1 and 0 < explained["patches"] <= 1


def test_a_step_of_muon_is_nearly_orthogonal():
    matrices = torch.randn(3, 8, 24, generator=torch.Generator().manual_seed(0))
    for one in (matrices, matrices.mT):
        values = torch.linalg.svdvals(orthogonal(one))
        assert values.min() > 0.5 and values.max() < 1.4


def test_follow_ups_name_regions_that_the_conversation_knows(bank):
    rng = np.random.default_rng(0)
    for _ in range(20):
        talk = draw_conversation(bank.scene(0), 3, rng, {"same": 1.0})
        assert len(talk.turns) in (2, 4, 6) and len(set(talk.objects)) == len(talk.objects)


def test_image_tokens_are_near_their_code_by_its_own_measure(code):
    scene = make_scene(3, size=56)
    _, _, centres = symbols_of([scene.objects], 56, 14)
    exact = code.image_tokens(centres)
    an_object = centres[0, :, 0] < NUMBERS[0]
    moved = []
    for patch in (an_object.nonzero()[0], (~an_object).nonzero()[0]):
        tokens = exact.clone()
        tokens[0, patch] += 1
        moved.append(distance_from_code(tokens, centres, code))

    assert distance_from_code(exact, centres, code) == 0
    assert (moved[0] / moved[1]).item() == pytest.approx(CODE_CENTRE_WEIGHT)
    weights = torch.where(an_object, CODE_CENTRE_WEIGHT, 1.0)[None, :, None]
    mean = (weights * exact).sum(1, keepdim=True) / weights.sum()
    assert distance_from_code(mean.expand_as(exact), centres, code).item() == pytest.approx(1)
