"""`describe` answers one question about many boxes as single asks would, in fewer passes."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest
from tiny import tiny_gpt4roi, tiny_image

import gpt4roi_nb.session.describe

FEW = {"max_new_tokens": 8}
EXACT = 1e-4  # float32, another order of the same sums
RNG = np.random.default_rng(5)
CORNERS = RNG.uniform((0, 0), (40, 30), (7, 2))
BOXES = np.concatenate([CORNERS, CORNERS + RNG.uniform(3, 18, (7, 2))], axis=1)


@pytest.fixture(scope="module")
def gpt4roi():
    return tiny_gpt4roi(seed=1)


@pytest.fixture(scope="module")
def singly(gpt4roi):
    """The answers about each box in its own session."""
    return [gpt4roi.session(tiny_image()).ask("What is <region1>?", [box], **FEW) for box in BOXES]


@pytest.fixture
def session(gpt4roi):
    return gpt4roi.session(tiny_image())


def assert_same(answers, expected):
    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in expected]
    for one, other in zip(answers, expected, strict=True):
        assert one.text == other.text and one.tokens == other.tokens
        assert one.logprobs == pytest.approx(other.logprobs, abs=EXACT)
        assert one.prompt_tokens == other.prompt_tokens


@pytest.mark.parametrize("batch_size", [1, 2, 7, 16])
def test_batches_answer_as_single_asks_in_the_order_of_the_boxes(session, singly, batch_size):
    assert len({tuple(answer.logprobs) for answer in singly}) == len(BOXES)  # or the order would not show
    assert_same(session.describe(BOXES, batch_size=batch_size, **FEW), singly)


def test_the_same_box_twice_is_answered_twice(session, singly):
    assert_same(session.describe([BOXES[0], BOXES[1], BOXES[0]], **FEW), [singly[0], singly[1], singly[0]])


def test_every_module_runs_in_evaluation_mode_also_while_the_model_trains(session, gpt4roi):
    modes = []
    modules = (gpt4roi.model.get_input_embeddings(), gpt4roi.model.region_encoder.head, gpt4roi.model.language_model)
    handles = [
        module.register_forward_pre_hook(lambda module, args: modes.append(module.training)) for module in modules
    ]
    gpt4roi.model.train()
    try:
        session.describe(BOXES[:2], **FEW)
        session.roi_features(BOXES[:2]).logit_lens(of="image")
    finally:
        gpt4roi.model.eval()
        for handle in handles:
            handle.remove()
    assert modes and not any(modes)


def test_the_prompt_before_the_region_is_computed_once(session, gpt4roi):
    passes = []
    handle = gpt4roi.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: passes.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    try:
        answers = session.describe(BOXES, batch_size=4, **FEW)
    finally:
        handle.remove()
    prompt = gpt4roi.processor.prompt([("user", "What is <region1>?")])
    shared = prompt.spans["region1"][0]
    rest = len(prompt.input_ids) - shared
    assert [shape for shape in passes if shape[1] > 1] == [(1, shared), (4, rest), (3, rest)]
    assert {answer.reused_tokens for answer in answers} == {shared}


def test_what_the_conversation_has_read_is_not_read_again(session, singly, gpt4roi):
    question, follow_up = "What is <region1>?", "Is <region2> like it?"
    prompt = gpt4roi.processor.prompt([("user", question)])
    session.ask(question, BOXES[:1], **FEW)
    session.ask(follow_up, BOXES[1:2], **FEW)
    read = []
    handle = gpt4roi.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    try:
        answers = session.describe(BOXES, question, **FEW)
    finally:
        handle.remove()
    assert_same(answers, singly)
    assert max(read) == len(prompt.input_ids) - prompt.spans["region1"][0]
    other = gpt4roi.session(tiny_image())
    other.ask(question, BOXES[:1], **FEW)
    other.ask(follow_up, BOXES[1:2], **FEW)
    assert_same([session.ask("Why?", **FEW)], [other.ask("Why?", **FEW)])


def test_it_waits_for_no_answer_that_is_being_written(session, singly):
    pieces = session.stream("What is <region1>?", BOXES[:1], **FEW)
    next(pieces)
    with pytest.raises(RuntimeError, match="another answer is being written"):
        session.describe(BOXES, **FEW)
    list(pieces)
    assert_same(session.describe(BOXES, **FEW), singly)


def test_the_conversation_stays_as_it_is(session):
    first = session.ask("What is <region1>?", [BOXES[0]], **FEW)
    before = session.history, session.regions
    session.describe(BOXES, "Which colour has <region1>?", **FEW)
    assert (session.history, session.regions) == before
    session.undo()
    assert_same([session.ask("What is <region1>?", [BOXES[0]], **FEW)], [first])


def test_no_boxes_give_no_answers(session):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert session.describe([]) == []
        assert session.describe(np.zeros((0, 4))) == []


def test_answers_of_differing_length_end_each_by_itself(session, gpt4roi):
    options = {"max_new_tokens": 40, "temperature": 1.2, "seed": 0}
    end = gpt4roi.processor.tokenizer.eos_token_id
    answers = session.describe(np.repeat(BOXES, 6, axis=0), batch_size=42, **options)
    assert len({len(answer.token_ids) for answer in answers}) > 1
    for answer in answers:
        assert end not in answer.token_ids and "".join(answer.tokens) == answer.text


def test_sampling_is_repeatable_by_seed(session):
    def sampled(seed):
        return [answer.text for answer in session.describe(BOXES, temperature=1.5, seed=seed, **FEW)]

    assert sampled(1) == sampled(1) != sampled(2)


def test_a_stop_keeps_the_finished_batches(session, singly, monkeypatch):
    stop = threading.Event()
    after_batches(monkeypatch, 2, stop.set)
    with pytest.warns(UserWarning, match="stopped after 4 of 7 regions"):
        answers = session.describe(BOXES, batch_size=2, stop=stop, **FEW)
    assert_same(answers, singly[:4])


@pytest.mark.parametrize("how", ["stop", "interrupt"])
def test_within_a_batch_what_is_written_is_kept(session, singly, gpt4roi, how):
    stop, steps = threading.Event(), []

    def after_three_steps(*_):
        steps.append(None)
        if len(steps) == 5:  # the prompt's beginning is the first, then a step a token
            if how == "interrupt":
                raise KeyboardInterrupt
            stop.set()

    hook = gpt4roi.model.language_model.register_forward_hook(after_three_steps)
    try:
        with pytest.warns(UserWarning, match="stopped after 0 of 7 regions; 4 more were begun"):
            answers = session.describe(BOXES, batch_size=4, stop=stop, **FEW)
    finally:
        hook.remove()
    assert len(steps) == 5
    assert all(answer.stopped for answer in answers) and len(answers) == 4
    for answer, whole in zip(answers, singly[:4], strict=True):
        assert 0 < len(answer.token_ids) < 5
        assert answer.token_ids == whole.token_ids[: len(answer.token_ids)]
    assert_same(session.describe(BOXES, **FEW), singly)


def test_sampled_answers_differ_from_batch_to_batch(session):
    box = BOXES[:1].repeat(8, axis=0)
    texts = [answer.text for answer in session.describe(box, batch_size=4, temperature=2.0, seed=3, **FEW)]
    assert texts[:4] != texts[4:]


def test_an_interrupt_keeps_the_finished_batches(session, singly, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    after_batches(monkeypatch, 2, interrupt, before=True)
    with pytest.warns(UserWarning, match="stopped after 2 of 7 regions"):
        answers = session.describe(BOXES, batch_size=2, **FEW)
    assert_same(answers, singly[:2])
    monkeypatch.undo()
    assert_same(session.describe(BOXES, **FEW), singly)


def after_batches(monkeypatch, count, act, before=False):
    """Call `act` in batch number `count`, at its beginning or its end."""
    real, batches = gpt4roi_nb.session.describe._describe, []

    def counting(*args):
        batches.append(args)
        if before and len(batches) == count:
            act()
        answers = real(*args)
        if not before and len(batches) == count:
            act()
        return answers

    monkeypatch.setattr(gpt4roi_nb.session.describe, "_describe", counting)


def test_an_error_is_not_swallowed(session, monkeypatch):
    def fail():
        raise RuntimeError("CUDA out of memory")

    after_batches(monkeypatch, 2, fail, before=True)
    with pytest.raises(RuntimeError, match="out of memory"):
        session.describe(BOXES, batch_size=2, **FEW)


def test_progress_is_shown_for_long_runs(session, capsys):
    session.describe(BOXES, **FEW)  # one batch
    session.describe(BOXES, batch_size=4, progress=False, **FEW)
    assert capsys.readouterr().err == ""
    session.describe(BOXES, batch_size=4, **FEW)
    assert "7/7" in capsys.readouterr().err


def test_an_answer_of_a_batch_can_be_looked_into(session):
    answer = session.describe(BOXES, **FEW)[3]
    assert answer.attention().logprobs.tolist() == pytest.approx(answer.logprobs, abs=EXACT)


@pytest.mark.parametrize("text", ["What is it?", "", "What is <region2>?", "Is <region1> like <region2>?"])
def test_the_question_names_one_region(session, text):
    with pytest.raises(ValueError, match="must name <region1>, and no other region"):
        session.describe(BOXES, text)


def test_bad_numbers_are_explained(session):
    with pytest.raises(ValueError, match="batch_size must be at least 1, but is 0"):
        session.describe(BOXES, batch_size=0)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1, but is 0"):
        session.describe(BOXES, max_new_tokens=0)
    with pytest.raises(ValueError, match="temperature"):
        session.describe(BOXES, temperature=-1)
