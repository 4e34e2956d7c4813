"""Compiled steps write what plain ones do, and a conversation's cache is the same afterwards."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
import torch
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb import GPT4RoI, memory
from gpt4roi_nb.inference.compiled import CompiledSteps, check_mode
from gpt4roi_nb.memory import LEAST_LENGTH

BOX, OTHER_BOX, THIRD = (3, 4, 30, 40), (20, 8, 60, 44), (1, 1, 20, 20)
FEW = {"max_new_tokens": 8}
CLOSE = 1e-4


@pytest.fixture(scope="module")
def plain() -> GPT4RoI:
    return tiny_gpt4roi(seed=1)


@pytest.fixture
def traced(monkeypatch) -> GPT4RoI:
    """The same model with steps that are traced for a fixed length but not compiled, which needs no C++ compiler."""
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda step, mode, dynamic: compile(step, backend="eager", dynamic=dynamic))
    gpt4roi = tiny_gpt4roi(seed=1)
    gpt4roi.compiled = CompiledSteps(gpt4roi.model)
    torch._dynamo.reset()  # it traces one function again for eight models at most
    return gpt4roi


def conversation(gpt4roi: GPT4RoI) -> list:
    """Answers with follow-ups, an undone turn, a question that shares only the opening, and a batch."""
    session = gpt4roi.session(tiny_image())
    answers = [
        session.ask("What is <region1>?", [BOX], **FEW),
        session.ask("And <region2>?", [OTHER_BOX], **FEW),
        session.ask("Is region 1 larger than region 2?", max_new_tokens=3),
    ]
    session.undo()
    answers.append(session.ask("Why?", **FEW))
    answers.append(session.ask("What is at <region3>, seen by chance?", [THIRD], temperature=1.5, seed=3, **FEW))
    answers += session.describe([BOX, OTHER_BOX, THIRD], **FEW)
    session.reset()
    answers.append(session.ask("What is <region1>?", [THIRD], **FEW))
    return answers


def assert_same(ours: list, expected: list) -> None:
    for one, other in zip(ours, expected, strict=True):
        assert (one.token_ids, one.reused_tokens, one.text) == (other.token_ids, other.reused_tokens, other.text)
        assert one.logprobs == pytest.approx(other.logprobs, abs=CLOSE)


@pytest.mark.slow  # a C++ compiler runs
def test_a_compiled_conversation_is_the_plain_one(plain, tmp_path):
    plain.save_pretrained(tmp_path / "tiny")
    gpt4roi = GPT4RoI.from_pretrained(tmp_path / "tiny", device="cpu", compile=True)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert_same(conversation(gpt4roi), conversation(plain))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before + 1  # for all answers


def test_a_traced_conversation_is_the_plain_one(traced, plain, monkeypatch):
    steps = []
    run = CompiledSteps.run
    monkeypatch.setattr(CompiledSteps, "run", lambda self, *given: steps.append(given[2]) or run(self, *given))
    answers = conversation(traced)
    assert_same(answers, conversation(plain))
    alone = [answer for answer in answers if answer not in answers[5:8]]  # the batch is written by plain steps
    assert len(steps) >= sum(len(answer.token_ids) - 1 for answer in alone) > 0


def test_an_answers_positions_are_one_tensor_that_is_advanced(traced, monkeypatch):
    """A number from the host would have to be copied to a GPU, and waited for, in each step."""
    seen, values = [], []

    def run(self, inputs_embeds, cache, positions):
        seen.append(positions)
        values.append(positions.tolist())
        return plain_run(self, inputs_embeds, cache, positions)

    plain_run = CompiledSteps.run
    monkeypatch.setattr(CompiledSteps, "run", run)
    answer = traced.session(tiny_image()).ask("What is <region1>?", [BOX], **FEW)
    assert len(seen) == len(answer.token_ids) - 1 > 1
    assert all(each is seen[0] for each in seen)
    assert (seen[0].dtype, seen[0].device) == (torch.int64, traced.device)
    assert values == [[[answer.prompt_tokens + step]] for step in range(len(seen))]


def test_answers_side_by_side_have_keys_and_values_of_their_own(traced, plain):
    alone = [plain.session(tiny_image(seed)).ask("What is <region1>?", [BOX], **FEW) for seed in (0, 1)]
    sessions = [traced.session(tiny_image(seed)) for seed in (0, 1)]
    streams = [session.stream("What is <region1>?", [BOX], **FEW) for session in sessions]
    while streams:
        streams = [stream for stream in streams if next(stream, None) is not None]
    assert_same([session.history[-1].answer for session in sessions], alone)


def test_a_stop_and_a_reader_who_leaves_keep_the_cache_whole(traced, plain):
    session, expected = traced.session(tiny_image()), plain.session(tiny_image())
    stop = threading.Event()
    for one in (session, expected):
        stream = one.stream("What is <region1>?", [BOX], stop=stop, **FEW)
        for _ in range(4):
            next(stream)
        stream.close()
    assert_same([session.ask("And now?", **FEW)], [expected.ask("And now?", **FEW)])


def test_a_conversation_that_outgrows_the_fixed_length_goes_on(traced, plain, monkeypatch):
    monkeypatch.setattr(memory, "LEAST_LENGTH", 64)
    assert_same(conversation(traced), conversation(plain))
    assert traced.compiled._spare.layers[0].max_cache_len > 64


def test_weights_that_are_trained_are_used(traced, plain):
    traced.session(tiny_image()).ask("What is <region1>?", [BOX], **FEW)
    changed = tiny_gpt4roi(seed=1)
    for gpt4roi in (traced, changed):
        with gpt4roi.training_step(), torch.no_grad():
            for weight in gpt4roi.model.parameters():
                weight.mul_(1.5)
    assert_same(conversation(traced), conversation(changed))


def test_unloading_gives_the_memory_back(traced):
    traced.session(tiny_image()).ask("What is <region1>?", [BOX], **FEW)
    model, keys = (weakref.ref(each) for each in (traced.model, traced.compiled._spare.layers[0].keys))
    assert traced.compiled._spare.layers[0].max_cache_len == LEAST_LENGTH
    traced.unload()
    gc.collect()
    assert model() is None and keys() is None


@pytest.mark.parametrize("mode", ["fast", 1, None])
def test_other_modes_are_named(mode):
    with pytest.raises(ValueError, match=r"compile must be True, False or one of default, reduce-overhead"):
        check_mode(mode)
    with pytest.raises(ValueError, match="compile must be"):
        GPT4RoI.from_pretrained(compile=mode)


def test_without_a_compiler_it_says_so_before_the_first_answer(plain, monkeypatch):
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(RuntimeError, match=r"compile finds no C\+\+ compiler; load the model without compile"):
        CompiledSteps(plain.model)


@pytest.mark.parametrize(
    ("attribute", "value", "said"),
    [
        ("is_quantized", True, "this one is quantised"),
        ("hf_device_map", {"vision_tower": 0, "language_model": 1}, "this one is spread over 0, 1"),
    ],
)
def test_what_cannot_be_compiled_is_said(plain, monkeypatch, attribute, value, said):
    monkeypatch.setattr(plain.model, attribute, value, raising=False)
    with pytest.raises(ValueError, match=said):
        CompiledSteps(plain.model)


def test_a_step_that_does_not_compile_is_explained(plain, monkeypatch):
    def broken(graph, inputs):
        raise ValueError("no such machine")

    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda step, mode, dynamic: compile(step, backend=broken, dynamic=dynamic))
    gpt4roi = tiny_gpt4roi(seed=1)
    gpt4roi.compiled = CompiledSteps(gpt4roi.model)
    with pytest.raises(RuntimeError, match=r"could not be compiled \(.*no such machine.*load the model without"):
        gpt4roi.session(tiny_image()).ask("What is <region1>?", [BOX], **FEW)
