"""Who may use a model, and when: passes alone, answers from one state of the weights, training steps in between."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import tiny_config, tiny_gpt4roi, tiny_image, tiny_model, tiny_processor

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.capture import attention as attention_module
from gpt4roi_nb.capture import faithfulness
from gpt4roi_nb.inference.loaded_model import ForwardLock, LoadedModel, WeightsChangedError
from gpt4roi_nb.inference.shared_opening import SharedOpening
from gpt4roi_nb.session import Answer

BOX, OTHER_BOX = (3, 4, 30, 40), (20, 8, 60, 44)
QUESTION = "What is <region1>?"
FEW = {"max_new_tokens": 8}
SOON = 5.0  # seconds that a thread may take to do what nothing hinders
A_WHILE = 0.1  # seconds in which a thread that must wait would have gone on


@pytest.fixture
def gpt4roi() -> GPT4RoI:
    return tiny_gpt4roi(seed=1)


def changed(gpt4roi: GPT4RoI, scale: float = 1.5) -> None:
    """A training step, of a kind that changes answers."""
    with gpt4roi.training_step(), torch.no_grad():
        for weight in gpt4roi.model.parameters():
            weight.mul_(scale)


def asked(gpt4roi: GPT4RoI) -> Answer:
    return gpt4roi.session(tiny_image()).ask(QUESTION, [BOX], **FEW)


def started(work) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_training_step_waits_for_the_answer_that_is_being_written() -> None:
    lock, done = ForwardLock(), threading.Event()

    def step() -> None:
        with lock.training_step():
            done.set()

    with lock.hold_weights():
        training = started(step)
        assert not done.wait(A_WHILE)
    assert done.wait(SOON)
    training.join(SOON)


def test_an_answer_waits_for_the_step_and_goes_before_the_next() -> None:
    lock, inside, leave = ForwardLock(), threading.Event(), threading.Event()
    order: list[str] = []

    def train() -> None:
        for number in range(2):
            with lock.training_step():
                order.append(f"step {number}")
                inside.set()
                assert leave.wait(SOON)

    def ask() -> None:
        with lock.hold_weights():
            order.append("answer")

    training = started(train)
    assert inside.wait(SOON)
    asking = started(ask)
    while not lock._holding:  # until it waits
        time.sleep(0.001)
    leave.set()
    asking.join(SOON)
    training.join(SOON)
    assert order == ["step 0", "answer", "step 1"]


def test_answers_are_written_side_by_side_but_passes_alone() -> None:
    lock = ForwardLock()
    both = threading.Barrier(2, timeout=SOON)
    passes: list[str] = []

    def ask(name: str) -> None:
        with lock.hold_weights():
            both.wait()  # the other one holds them as well
            with lock.one_pass():
                passes.append(f"{name} begins")
                time.sleep(0.01)
                passes.append(f"{name} ends")

    threads = [started(lambda name=name: ask(name)) for name in "ab"]
    for thread in threads:
        thread.join(SOON)
    assert passes[0][0] == passes[1][0] and passes[2][0] == passes[3][0] and len(passes) == 4


def test_a_thread_that_holds_the_weights_may_ask_and_train_again() -> None:
    """As for probes, which the training thread itself asks; nothing waits for itself."""
    lock = ForwardLock()
    with lock.training_step(), lock.hold_weights(), lock.one_pass(), lock.hold_weights(), lock.training_step():
        pass
    assert not lock._holding and lock._training is None


def test_the_end_of_one_answer_leaves_the_pause_of_another() -> None:
    lock = ForwardLock()
    first, second = object(), object()
    lock.reserve(first, seconds=600)
    lock.reserve(second, seconds=600)
    lock.end_reservation(first)
    finished = started(lambda: lock.training_step().__enter__())
    finished.join(0.2)
    assert finished.is_alive()
    lock.end_reservation(second)
    finished.join(SOON)
    assert not finished.is_alive()


def test_an_error_gives_the_lock_back() -> None:
    lock = ForwardLock()
    for block in (lock.hold_weights, lock.one_pass, lock.training_step):
        with pytest.raises(ZeroDivisionError), block():
            raise ZeroDivisionError
    finished = started(lambda: lock.training_step().__enter__())
    finished.join(SOON)
    assert not finished.is_alive()


def test_a_pass_runs_in_evaluation_mode_and_leaves_the_mode_as_it_was(gpt4roi: GPT4RoI) -> None:
    gpt4roi.model.train()
    gpt4roi.model.vision_tower.eval()
    before = [module.training for module in gpt4roi.model.modules()]
    with pytest.raises(ZeroDivisionError), gpt4roi.inference() as model:
        with gpt4roi.inference():
            assert not any(module.training for module in model.modules())
        assert not any(module.training for module in model.modules())
        raise ZeroDivisionError
    assert [module.training for module in gpt4roi.model.modules()] == before


def test_the_version_changes_with_the_weights_and_with_nothing_else(gpt4roi: GPT4RoI) -> None:
    version = gpt4roi.weights_version
    gpt4roi.session(tiny_image()).ask(QUESTION, [BOX], **FEW)
    gpt4roi.model.train().eval()
    assert gpt4roi.weights_version == version
    seen = {version}
    for change in (
        lambda: changed(gpt4roi, 1.0),
        lambda: gpt4roi.model.load_state_dict(tiny_model(tiny_config(), seed=2).state_dict()),
        lambda: gpt4roi.model.half().float(),
    ):
        change()
        seen.add(gpt4roi.weights_version)
    assert len(seen) == 4
    optimizer = torch.optim.SGD(gpt4roi.model.parameters(), lr=0.1)
    for weight in gpt4roi.model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()  # of somebody's own loop, who knows nothing of training_step
    assert gpt4roi.weights_version not in seen


def test_what_was_opened_before_a_training_encodes_again(gpt4roi: GPT4RoI) -> None:
    session = gpt4roi.session(tiny_image())
    first = session.ask(QUESTION, [BOX], **FEW)
    changed(gpt4roi)
    second = session.ask("Is <region2> like region 1?", [OTHER_BOX], **FEW)

    fresh = gpt4roi.session(tiny_image())
    fresh.restore(session.regions[:1], session.history[:1])
    expected = fresh.ask("Is <region2> like region 1?", [OTHER_BOX], **FEW)
    assert second.token_ids == expected.token_ids and second.logprobs == expected.logprobs
    assert second.reused_tokens == 0 and first.token_ids == session.history[0].answer.token_ids
    torch.testing.assert_close(session.roi_features([BOX]).tokens, fresh.roi_features([BOX]).tokens, atol=0, rtol=0)
    for ours, theirs in zip(
        session.describe([BOX, OTHER_BOX], **FEW), fresh.describe([BOX, OTHER_BOX], **FEW), strict=True
    ):
        assert ours.logprobs == theirs.logprobs


def test_features_in_between_do_not_hide_that_the_cache_is_old(gpt4roi: GPT4RoI) -> None:
    session = gpt4roi.session(tiny_image())
    session.ask(QUESTION, [BOX], **FEW)
    changed(gpt4roi)
    session.roi_features([BOX])  # encodes the image again
    assert session.ask("Why?", **FEW).reused_tokens == 0


def test_an_answer_is_of_one_state_of_the_weights_while_a_thread_trains(gpt4roi: GPT4RoI) -> None:
    expected = {}
    for scale in (1.0, 1.5):
        own = tiny_gpt4roi(seed=1)
        changed(own, scale)
        expected[scale] = own.session(tiny_image()).ask(QUESTION, [BOX], **FEW).logprobs
    session, ended = gpt4roi.session(tiny_image()), threading.Event()

    def train() -> None:
        scale = 1.5
        while not ended.is_set():
            changed(gpt4roi, scale)
            scale = 1 / scale

    training = started(train)
    try:
        for _ in range(5):
            session.reset()
            said = session.ask(QUESTION, [BOX], **FEW).logprobs
            assert any(said == pytest.approx(known, abs=1e-4) for known in expected.values())
    finally:
        ended.set()
        training.join(SOON)


@pytest.mark.parametrize(
    ("owner", "between", "use"),
    [
        (SharedOpening, "read", lambda model: model.likelihoods(tiny_image(), QUESTION, [BOX], ["red", "blue"])),
        (attention_module, "find_sinks", lambda model: asked(model).attention().sinks()),
        (attention_module, "rollout", lambda model: asked(model).attention().rollout()),
        (attention_module, "relevancies", lambda model: asked(model).attention().relevancy(0)),
        (
            sys.modules[faithfulness.__module__],
            "_curves",
            lambda model: faithfulness(["rollout"], [asked(model)], steps=1),
        ),
    ],
    ids=["likelihoods", "sinks", "rollout", "relevancy", "faithfulness"],
)
def test_what_takes_several_passes_is_of_one_state_of_the_weights(
    gpt4roi: GPT4RoI, monkeypatch: pytest.MonkeyPatch, owner: Any, between: str, use: Callable[[GPT4RoI], Any]
) -> None:
    trainings, function = [], getattr(owner, between)

    def tried(*args: Any, **kwargs: Any) -> Any:
        trainings.append(started(lambda: changed(gpt4roi)))
        trainings[-1].join(A_WHILE)
        assert trainings[-1].is_alive()
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, between, tried)
    use(gpt4roi)
    for training in trainings:
        training.join(SOON)
        assert not training.is_alive()
    assert gpt4roi.training_steps == len(trainings) > 0


def test_a_reader_that_takes_the_next_piece_at_once_keeps_training_waiting(gpt4roi: GPT4RoI) -> None:
    session = gpt4roi.session(tiny_image())
    pieces = session.stream(QUESTION, [BOX], max_new_tokens=20)
    next(pieces)
    training = started(lambda: changed(gpt4roi))
    list(pieces)
    assert session.history[-1].answer.logprobs == pytest.approx(
        tiny_gpt4roi(seed=1).session(tiny_image()).ask(QUESTION, [BOX], max_new_tokens=20).logprobs, abs=1e-4
    )
    training.join(SOON)
    assert not training.is_alive()


def test_a_stream_whose_weights_changed_while_its_reader_paused_ends_with_words(gpt4roi: GPT4RoI) -> None:
    session = gpt4roi.session(tiny_image())
    pieces = session.stream(QUESTION, [BOX], max_new_tokens=20)
    shown = next(pieces)
    training = started(lambda: changed(gpt4roi))
    training.join(SOON)
    assert not training.is_alive()  # it waits for a reader no longer than PAUSE
    with pytest.raises(WeightsChangedError, match="was trained while this answer was being written"):
        list(pieces)
    (turn,) = session.history  # as with a Stop, what was written is kept
    assert turn.answer.stopped and turn.answer.text.startswith(shown.strip())
    assert session.ask("Why?", **FEW).reused_tokens == 0


def test_a_loaded_model_is_all_that_a_session_needs() -> None:
    from gpt4roi_nb import RegionSession

    config = tiny_config()
    loaded = LoadedModel(tiny_model(config, seed=1), tiny_processor(config))
    session = RegionSession(loaded, tiny_image())
    assert session.ask(QUESTION, [BOX], **FEW).tokens
    loaded.unload()
    with pytest.raises(RuntimeError, match="has been unloaded"):
        session.ask("Why?")
