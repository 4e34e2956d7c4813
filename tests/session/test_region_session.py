"""A session encodes its image once, reuses keys and values, and survives whatever interrupts it."""

from __future__ import annotations

import gc
import threading
import warnings
import weakref
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from tiny import tiny_config, tiny_gpt4roi, tiny_image, tiny_model, tiny_processor

from gpt4roi_nb import GPT4RoI, RegionSession
from gpt4roi_nb.inference.detokenizer import StreamingDetokenizer
from gpt4roi_nb.tokenizer import ADDED_TOKENS

BOX, OTHER_BOX = (3, 4, 30, 40), (20, 8, 60, 44)
QUESTION = "What is <region1>?"
FEW = {"max_new_tokens": 10}
EXACT = 1e-4  # float32, another order of the same sums


@pytest.fixture(scope="module")
def gpt4roi() -> GPT4RoI:
    return tiny_gpt4roi(seed=1)


@pytest.fixture
def session(gpt4roi):
    return gpt4roi.session(tiny_image())


@contextmanager
def failing(model, step: int, error: BaseException):
    """Make the language model raise in forward pass number `step`, when half of its layers' caches have grown."""
    passes = 0

    def fail(module, args):
        nonlocal passes
        passes += 1
        if passes == step:
            raise error

    handle = model.language_model.model.layers[1].register_forward_pre_hook(fail)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def counted(module):
    """A list that grows by the given shape at each pass through a module."""
    passes = []
    handle = module.register_forward_pre_hook(lambda _, args, kwargs: passes.append(kwargs), with_kwargs=True)
    try:
        yield passes
    finally:
        handle.remove()


def words(answer):
    """The fields that must not depend on how they were computed."""
    return answer.text, answer.token_ids, answer.tokens


def test_an_answer_tells_its_text_tokens_and_cost(session):
    answer = session.ask(QUESTION, [BOX], **FEW)
    assert str(answer) == answer.text != ""
    assert "".join(answer.tokens) == answer.text
    assert len(answer.tokens) == len(answer.token_ids) == len(answer.logprobs) <= 10
    assert all(logprob < 0 for logprob in answer.logprobs)
    assert answer.prompt_tokens == len(session._loaded.processor.prompt([("user", QUESTION)]).input_ids)
    assert answer.reused_tokens == 0 and not answer.stopped and answer.seconds > 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_greedy_answers_are_those_of_generate(seed):
    gpt4roi = tiny_gpt4roi(seed)
    model, processor = gpt4roi.model, gpt4roi.processor
    answer = gpt4roi.session(tiny_image()).ask(QUESTION, [BOX], **FEW)
    inputs = processor(tiny_image(), QUESTION, [BOX])
    inputs.pop("labels")
    added = processor.tokenizer.convert_tokens_to_ids(list(ADDED_TOKENS))
    generated = model.generate(
        **inputs,
        max_new_tokens=10,
        do_sample=False,
        suppress_tokens=added,
        output_logits=True,
        return_dict_in_generate=True,
    )
    ids = generated.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    first = next(start for start in range(len(ids)) if ids[start : start + len(answer.token_ids)] == answer.token_ids)
    logprobs = [
        logits[0].float().log_softmax(-1)[token].item() for logits, token in zip(generated.logits, ids, strict=True)
    ]
    assert answer.logprobs == pytest.approx(logprobs[first : first + len(answer.token_ids)], abs=EXACT)


def conversation(session, reuse: bool):
    answers = []
    questions = [
        (QUESTION, [BOX]),
        ("Is it like <region2>, which is next to region 1?", [OTHER_BOX]),
        ("Why?", []),
        ("And <region1> against <region3>?", [(0, 0, 64, 48)]),
    ]
    for text, boxes in questions:
        if not reuse:
            session._forget()
        answers.append(session.ask(text, boxes, **FEW))
    return answers


def test_reused_and_recomputed_answers_agree(gpt4roi):
    reused = conversation(gpt4roi.session(tiny_image()), reuse=True)
    recomputed = conversation(gpt4roi.session(tiny_image()), reuse=False)
    assert [answer.reused_tokens for answer in recomputed] == [0] * 4
    assert [words(answer) for answer in reused] == [words(answer) for answer in recomputed]
    for one, other in zip(reused, recomputed, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=EXACT)


def test_reused_and_recomputed_logits_agree(gpt4roi):
    def logits_of_last_step(reuse):
        session = gpt4roi.session(tiny_image())
        seen = []
        handle = gpt4roi.model.language_model.register_forward_hook(lambda *args: seen.append(args[-1].logits[0, -1]))
        try:
            conversation(session, reuse)
        finally:
            handle.remove()
        return torch.stack(seen)

    torch.testing.assert_close(logits_of_last_step(True), logits_of_last_step(False), atol=EXACT, rtol=0)


def test_reused_tokens_are_the_longest_common_prefix(gpt4roi, monkeypatch):
    raw = []
    push = StreamingDetokenizer.push

    def recording(row, token_id, logprob):
        raw.append(token_id)
        return push(row, token_id, logprob)

    monkeypatch.setattr(StreamingDetokenizer, "push", recording)
    session = gpt4roi.session(tiny_image())
    cached, last = [], -1
    turns = []
    for text, boxes in [(QUESTION, [BOX]), ("And <region2>?", [OTHER_BOX]), ("Why?", []), ("Sure?", [])]:
        turns.append(("user", text))
        ids = gpt4roi.processor.prompt(turns).input_ids
        common = 0
        while common < min(len(cached), len(ids) - 1) and cached[common] == ids[common]:
            common += 1
        raw.clear()
        answer = session.ask(text, boxes, **FEW)
        assert answer.reused_tokens == common > last
        assert answer.prompt_tokens == len(ids)
        cached, last = ids + raw[:-1], common
        turns.append(("assistant", answer.text))
    assert last > 50


def test_a_follow_up_computes_only_new_tokens_and_no_vision(session, gpt4roi):
    model = gpt4roi.model
    session.ask(QUESTION, [BOX], **FEW)
    with (
        counted(model.vision_tower) as tower,
        counted(model.region_encoder.fusion) as fusion,
        counted(model.region_encoder.head) as head,
        counted(model.language_model) as passes,
    ):
        answer = session.ask("And <region2>?", [OTHER_BOX], **FEW)
        assert (len(tower), len(fusion), len(head)) == (0, 0, 1)
        lengths = [kwargs["inputs_embeds"].shape[1] for kwargs in passes]
        assert lengths[0] == answer.prompt_tokens - answer.reused_tokens
        assert set(lengths[1:]) <= {1}
        session.ask("Why?", **FEW)
        assert len(head) == 1  # known boxes are not encoded again


def test_asking_the_same_again_computes_one_token(session):
    first = session.ask(QUESTION, [BOX], **FEW)
    session.undo()
    second = session.ask(QUESTION, [BOX], **FEW)
    assert second.reused_tokens == second.prompt_tokens - 1
    assert words(second) == words(first)


def test_a_moved_box_is_not_served_from_the_cache(gpt4roi):
    session = gpt4roi.session(tiny_image())
    first = session.ask(QUESTION, [BOX], **FEW)
    session.undo()
    moved = session.ask(QUESTION, [OTHER_BOX], **FEW)
    fresh = gpt4roi.session(tiny_image()).ask(QUESTION, [OTHER_BOX], **FEW)
    region = gpt4roi.processor.prompt([("user", QUESTION)]).spans["region1"][0]
    assert moved.reused_tokens == region  # all before the region's token
    assert words(moved) == words(fresh)
    assert moved.logprobs == pytest.approx(fresh.logprobs, abs=EXACT)
    assert moved.logprobs != pytest.approx(first.logprobs, abs=EXACT)


def test_a_moved_first_box_is_computed_again_in_a_longer_talk(gpt4roi):
    def talk(first_box):
        session = gpt4roi.session(tiny_image())
        session.ask(QUESTION, [BOX], **FEW)
        session.reset()
        session.ask(QUESTION, [first_box], **FEW)
        return session.ask("And <region2>?", [OTHER_BOX], **FEW)

    fresh = gpt4roi.session(tiny_image())
    fresh.ask(QUESTION, [(1, 1, 9, 9)], **FEW)
    expected = fresh.ask("And <region2>?", [OTHER_BOX], **FEW)
    moved = talk((1, 1, 9, 9))
    assert words(moved) == words(expected)
    assert moved.logprobs == pytest.approx(expected.logprobs, abs=EXACT)


def test_two_sessions_do_not_disturb_each_other(gpt4roi):
    alone = [conversation(gpt4roi.session(tiny_image(seed)), reuse=True) for seed in (0, 1)]
    sessions = [gpt4roi.session(tiny_image(seed)) for seed in (0, 1)]
    streams = [session.stream(QUESTION, [BOX], **FEW) for session in sessions]
    while streams:  # token by token in turn
        streams = [stream for stream in streams if next(stream, None) is not None]
    for session, expected in zip(sessions, alone, strict=True):
        assert words(session.history[0].answer) == words(expected[0])
    for session, expected in zip(sessions, alone, strict=True):
        second = session.ask("Is it like <region2>, which is next to region 1?", [OTHER_BOX], **FEW)
        assert words(second) == words(expected[1])
        assert second.reused_tokens == expected[1].reused_tokens
    assert alone[0][0].logprobs != pytest.approx(alone[1][0].logprobs, abs=EXACT)


def test_streamed_pieces_are_the_answer(gpt4roi):
    for seed in range(8):
        session = gpt4roi.session(tiny_image())
        streamed = list(session.stream(QUESTION, [BOX], max_new_tokens=24, temperature=1.0, seed=seed))
        answer = session.history[-1].answer
        assert "".join(streamed) == answer.text
        assert "".join(answer.tokens) == answer.text
        session.undo()
        assert session.ask(QUESTION, [BOX], max_new_tokens=24, temperature=1.0, seed=seed).text == answer.text


def test_numbers_go_on_over_the_turns(session):
    session.ask("Compare <region2> and <region1>.", [BOX, OTHER_BOX], **FEW)
    session.ask("And <region3> to <region1> or region 2?", [(0, 0, 9, 9)], **FEW)
    assert [region.number for region in session.regions] == [1, 2, 3]
    assert [region.box for region in session.regions] == [BOX, OTHER_BOX, (0, 0, 9, 9)]
    assert [turn.regions for turn in session.history] == [(1, 2), (3,)]
    assert session.history[0].question == "Compare <region2> and <region1>."


def test_the_order_in_the_text_decides_which_vector_goes_where(gpt4roi):
    named = gpt4roi.session(tiny_image()).ask("<region2> and <region1>", [BOX, OTHER_BOX], **FEW)
    swapped = gpt4roi.session(tiny_image()).ask("<region2> and <region1>", [OTHER_BOX, BOX], **FEW)
    assert named.logprobs != pytest.approx(swapped.logprobs, abs=EXACT)


def test_undo_takes_the_last_turn_and_its_regions_back(session):
    session.ask(QUESTION, [BOX], **FEW)
    session.ask("And <region2>?", [OTHER_BOX], **FEW)
    turn = session.undo()
    assert turn.question == "And <region2>?" and turn.regions == (2,)
    assert len(session.history) == len(session.regions) == 1
    session.ask("And <region2>?", [(0, 0, 9, 9)], **FEW)
    assert session.regions[1].box == (0, 0, 9, 9)
    session.undo()
    session.undo()
    assert session.history == session.regions == ()
    with pytest.raises(ValueError, match="no turn to undo"):
        session.undo()


def test_reset_begins_anew_on_the_same_encoding(session, gpt4roi):
    first = session.ask(QUESTION, [BOX], **FEW)
    session.ask("And <region2>?", [OTHER_BOX], **FEW)
    with counted(gpt4roi.model.vision_tower) as tower:
        session.reset()
        assert session.history == session.regions == ()
        again = session.ask(QUESTION, [BOX], **FEW)
    assert tower == [] and words(again) == words(first)
    assert again.logprobs == pytest.approx(first.logprobs, abs=EXACT)


def test_an_image_can_be_talked_about_without_regions(session):
    assert session.ask("How many are there?", **FEW).text
    assert session.regions == () and session.history[0].regions == ()


def test_sampling_is_repeatable_by_seed(session):
    def sampled(**options):
        answer = session.ask(QUESTION, [BOX], **FEW, **options)
        session.undo()
        return answer.token_ids

    assert sampled(temperature=1.5, seed=3) == sampled(temperature=1.5, seed=3)
    assert len({tuple(sampled(temperature=1.5, seed=seed)) for seed in range(6)}) > 1
    greedy = sampled()
    assert sampled(temperature=1.5, top_p=1e-6, seed=5) == greedy  # only the likeliest is left
    assert sampled(temperature=1e-4, seed=5) == greedy


def test_max_new_tokens_ends_an_answer(session):
    assert len(session.ask(QUESTION, [BOX], max_new_tokens=3).token_ids) <= 3


def test_the_answer_ends_where_the_context_does(gpt4roi):
    session = gpt4roi.session(tiny_image())
    context = gpt4roi.model.config.text_config.max_position_embeddings
    question = "a " * (context // 2)
    while True:  # as long as fits, with room for a few tokens
        length = len(gpt4roi.processor.prompt([("user", question)]).input_ids)
        if length <= context - 4:
            break
        question = question[: -2 * max(1, (length - context) // 4)]
    answer = session.ask(question)
    assert answer.prompt_tokens + len(answer.token_ids) <= context


def test_a_stop_before_the_first_token_leaves_no_turn(session):
    stop = threading.Event()
    stop.set()
    answer = session.ask(QUESTION, [BOX], stop=stop)
    assert answer.stopped and answer.text == "" and answer.token_ids == []
    assert session.history == session.regions == ()
    assert words(session.ask(QUESTION, [BOX], **FEW)) == words(
        session._loaded.session(tiny_image()).ask(QUESTION, [BOX], **FEW)
    )


def test_a_stop_keeps_the_answer_so_far(session, gpt4roi):
    stop = threading.Event()
    streamed = []
    for piece in session.stream(QUESTION, [BOX], max_new_tokens=40, stop=stop):
        streamed.append(piece)
        if len(streamed) == 3:
            stop.set()
    answer = session.history[-1].answer
    assert answer.stopped and "".join(streamed) == answer.text
    whole = gpt4roi.session(tiny_image()).ask(QUESTION, [BOX], max_new_tokens=40)
    assert len(answer.text) < len(whole.text)
    assert whole.token_ids[: len(answer.token_ids)] == answer.token_ids
    assert [region.number for region in session.regions] == [1]
    assert_as_fresh(session, gpt4roi)


def test_leaving_a_stream_early_keeps_the_answer_so_far(session, gpt4roi):
    stream = session.stream(QUESTION, [BOX], max_new_tokens=40)
    pieces = [next(stream), next(stream)]
    stream.close()
    answer = session.history[-1].answer
    assert answer.stopped and answer.text.startswith("".join(pieces).rstrip())
    assert_as_fresh(session, gpt4roi)


def assert_as_fresh(session, gpt4roi):
    """The next answer is that of a new session with the same history: the failure leaves no trace."""
    fresh = gpt4roi.session(tiny_image())
    fresh.restore(session.regions, session.history)
    number = len(session.regions) + 1
    text = f"And <region{number}>?"
    after, expected = (each.ask(text, [OTHER_BOX], **FEW) for each in (session, fresh))
    assert words(after) == words(expected)
    assert after.logprobs == pytest.approx(expected.logprobs, abs=EXACT)


@pytest.mark.parametrize("step", [1, 2, 5])
def test_an_interrupt_keeps_the_answer_so_far_and_a_sound_session(session, gpt4roi, step):
    with failing(gpt4roi.model, step, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        session.ask(QUESTION, [BOX], max_new_tokens=40)
    if step == 1:
        assert session.history == session.regions == ()
    else:
        assert session.history[0].answer.stopped
        assert len(session.history[0].answer.token_ids) == step - 1
    assert_as_fresh(session, gpt4roi)


@pytest.mark.parametrize("step", [1, 2, 5])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("broken")])
def test_an_error_leaves_the_conversation_as_it_was(session, gpt4roi, step, error):
    session.ask(QUESTION, [BOX], **FEW)
    history, regions = session.history, session.regions
    with failing(gpt4roi.model, step, error), pytest.raises(type(error)):
        session.ask("And <region2>?", [OTHER_BOX], max_new_tokens=40)
    assert session.history == history and session.regions == regions
    assert_as_fresh(session, gpt4roi)


def test_only_one_answer_at_a_time(session, gpt4roi):
    stream = session.stream(QUESTION, [BOX], max_new_tokens=40)
    next(stream)
    for meddle in (lambda: session.ask("Why?"), session.undo, session.reset):
        with pytest.raises(RuntimeError, match="another answer is being written"):
            meddle()
    stream.close()
    assert len(session.history) == 1
    assert_as_fresh(session, gpt4roi)


def test_bad_questions_do_not_leave_the_session_busy(session):
    for _ in range(2):
        with pytest.raises(ValueError, match="empty"):
            session.ask("  ")
    assert session.ask(QUESTION, [BOX], **FEW).text


def test_an_answer_in_another_thread(session):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(session.ask(QUESTION, [BOX], **FEW)))
    thread.start()
    thread.join(60)
    session.undo()
    assert words(session.ask(QUESTION, [BOX], **FEW)) == words(answers[0])


def test_inputs_are_not_changed(gpt4roi):
    image, boxes = tiny_image(), np.array([BOX], dtype=np.float64)
    session = gpt4roi.session(image)
    session.ask(QUESTION, boxes, **FEW)
    session.image.putpixel((0, 0), (1, 2, 3))
    assert (image == tiny_image()).all() and boxes.tolist() == [list(BOX)]


def loaded_and_talked():
    gpt4roi = GPT4RoI(tiny_model(), tiny_processor(tiny_config()), "tiny")
    session = gpt4roi.session(tiny_image())
    session.ask(QUESTION, [BOX], **FEW)
    session.describe([BOX, OTHER_BOX], **FEW)
    list(session.stream("Why?", **FEW))
    references = [weakref.ref(parameter) for parameter in gpt4roi.model.parameters()]
    references += [weakref.ref(level) for level in session._encoded.encoding.fused_maps]
    references += [weakref.ref(layer.keys) for layer in session._cache.layers]
    return gpt4roi, session, references


def test_a_box_outside_is_told_once(gpt4roi):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        gpt4roi.session(tiny_image()).ask(QUESTION, [(-5, 4, 30, 40)], **FEW)
    assert [(warning.category.__name__, warning.filename) for warning in told] == [("BoxClippedWarning", __file__)]


def test_a_question_that_waited_is_asked_of_the_conversation_as_it_is_then(gpt4roi):
    session, other = gpt4roi.session(tiny_image()), gpt4roi.session(tiny_image())
    waiting = session.stream("Why?", **FEW)
    for one in (session, other):
        one.ask(QUESTION, [BOX], **FEW)
    list(waiting)
    assert session.history[-1].answer.token_ids == other.ask("Why?", **FEW).token_ids


def test_unload_gives_the_memory_back():
    gpt4roi, session, references = loaded_and_talked()
    assert all(reference() is not None for reference in references)
    gpt4roi.unload()
    gc.collect()
    assert not any(reference() is not None for reference in references)
    assert len(session.history) == 2  # what was said can still be read


def test_unload_reaches_a_loaded_conversation(tmp_path):
    gpt4roi, session, _ = loaded_and_talked()
    session.save(tmp_path / "talk.json")
    loaded = RegionSession.load(tmp_path / "talk.json", gpt4roi)
    maps = weakref.ref(loaded._encoded.encoding.fused_maps[0])
    gpt4roi.unload()
    gc.collect()
    assert maps() is None
    with pytest.raises(RuntimeError, match="unloaded"):
        loaded.ask("Why?")


def test_after_unload_everything_says_so():
    gpt4roi, session, _ = loaded_and_talked()
    answer = session.history[0].answer
    gpt4roi.unload()
    gpt4roi.unload()
    asks = [
        lambda: session.ask("Why?"),
        lambda: list(session.stream("Why?")),
        lambda: session.describe([BOX]),
        lambda: session.roi_features([BOX]),
        lambda: gpt4roi.session(tiny_image()),
        answer.attention,
        lambda: gpt4roi.model,
        lambda: gpt4roi.device,
    ]
    for ask in asks:
        with pytest.raises(RuntimeError, match="unloaded; load it again"):
            ask()
    assert "unloaded" in repr(gpt4roi)


def test_the_context_manager_unloads_after_an_error():
    with pytest.raises(ZeroDivisionError), GPT4RoI(tiny_model(), tiny_processor(tiny_config())) as gpt4roi:
        gpt4roi.session(tiny_image()).ask(QUESTION, [BOX], **FEW)
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="unloaded"):
        gpt4roi.session(tiny_image())


def test_a_dropped_session_gives_its_memory_back(gpt4roi):
    session = gpt4roi.session(tiny_image())
    session.ask(QUESTION, [BOX], **FEW)
    maps = weakref.ref(session._encoded.encoding.fused_maps[0])
    del session
    gc.collect()
    assert maps() is None


def test_the_bundle_says_what_it_is(gpt4roi):
    assert "parameters" in repr(gpt4roi) and not gpt4roi.is_demo
    assert isinstance(gpt4roi.about, str)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"temperature": "hot"}, TypeError, "temperature must be a number, but is 'hot'"),
        ({"temperature": True}, TypeError, "temperature must be a number, but is True"),
        ({"temperature": 1e-320}, ValueError, r"must be 0 \(greedy\), or from 1e-06 to 1e\+06, but is 1e-320"),
        ({"temperature": 1e308}, ValueError, r"must be 0 \(greedy\), or from 1e-06 to 1e\+06, but is 1e\+308"),
        ({"temperature": 10**400}, ValueError, "temperature must be a number that a float can hold"),
        ({"top_p": None}, TypeError, "top_p must be a number, but is None"),
        ({"top_p": np.bool_(True)}, TypeError, "top_p must be a number"),
        ({"seed": 1.5}, TypeError, "seed must be a whole number, but is 1.5"),
        ({"seed": True}, TypeError, "seed must be a whole number, but is True"),
        ({"seed": 10**30}, ValueError, "seed must be a whole number"),
        ({"max_new_tokens": None}, TypeError, "max_new_tokens must be a whole number, but is None"),
        ({"max_new_tokens": 2.5}, TypeError, "max_new_tokens must be a whole number, but is 2.5"),
        ({"max_new_tokens": True}, TypeError, "max_new_tokens must be a whole number, but is True"),
        ({"max_new_tokens": np.float64(5)}, TypeError, "max_new_tokens must be a whole number"),
        ({"stop": True}, TypeError, r"stop must be a threading\.Event, .* or None, but is True"),
    ],
)
def test_bad_options_are_explained(session, options, error, words):
    for ask in (session.ask, session.stream, session.describe):
        text, boxes = (QUESTION, [BOX]) if ask != session.describe else ([BOX], QUESTION)
        with pytest.raises(error, match=words):
            ask(text, boxes, **options)
    assert session.history == ()


def test_numbers_of_numpy_are_numbers(session):
    options = {"max_new_tokens": 5, "temperature": 0.5, "top_p": 0.75, "seed": 3}
    kinds = {"max_new_tokens": np.int64, "temperature": np.float32, "top_p": np.float16, "seed": np.uint8}
    plain = session.describe([BOX], QUESTION, batch_size=2, **options)
    numpy = session.describe(
        [BOX], QUESTION, batch_size=np.int32(2), **{name: kinds[name](value) for name, value in options.items()}
    )
    assert [(answer.token_ids, answer.logprobs) for answer in numpy] == [
        (answer.token_ids, answer.logprobs) for answer in plain
    ]


def test_a_session_says_what_it_is(session):
    session.ask(QUESTION, [BOX], **FEW)
    assert repr(session) == "RegionSession(64 × 48, 1 regions, 1 turns)"
