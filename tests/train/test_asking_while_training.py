"""A model answers while it trains, each time from one state of its weights and in evaluation mode."""

from __future__ import annotations

import threading

import pytest
import torch
from learnable import BOX, OPTIONS, copy_of, records
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.train import begin_anew, train
from gpt4roi_nb.train.parts import STAGES, choose_parts

QUESTION = "What is <region1>?"
LORA = {"r": 4, "lora_dropout": 0.3}
BOXES = [*BOX.tolist(), [20, 10, 60, 44]]
TOKENS = 6


def learning(tmp_path, gpt4roi, **options):
    """A training in a thread, of adapters with dropout and with gradient checkpointing."""
    changes = {"lora": LORA, "gradient_checkpointing": True, "block": False, "save_steps": 1000}
    return train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", **{**OPTIONS, **changes, **options})


def said(session) -> tuple[list[str], torch.Tensor]:
    """The answers in a conversation, and the log-probabilities of their tokens."""
    session.reset()
    asked = session.ask(QUESTION, boxes=BOX, max_new_tokens=TOKENS)
    return [asked.text], torch.tensor(asked.logprobs)


def described(session) -> tuple[list[str], torch.Tensor]:
    answers = session.describe(BOXES, QUESTION, max_new_tokens=TOKENS, progress=False)
    return [answer.text for answer in answers], torch.tensor([value for answer in answers for value in answer.logprobs])


def alike(one: tuple[list[str], torch.Tensor], two: tuple[list[str], torch.Tensor]) -> bool:
    return one[0] == two[0] and torch.allclose(one[1], two[1], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("accumulated", [1, 2])
def test_what_is_asked_meanwhile_is_what_the_same_weights_answer_at_rest(tmp_path, accumulated):
    gpt4roi, modes = tiny_gpt4roi(seed=1), set()
    session = gpt4roi.session(tiny_image(0))
    main = threading.get_ident()

    def watch(module, args, output):
        dropped = bool((output != args[0]).any())
        modes.add((threading.get_ident() == main, module.training, dropped))

    def watched(run):
        for name, module in gpt4roi.model.named_modules():
            if "lora_dropout.default" in name:
                module.register_forward_hook(watch)

    states = [copy_of(gpt4roi)]  # the adapters' first weights change nothing, so these answers are those of step 0
    # In the training's thread, after each step.
    run = learning(
        tmp_path,
        gpt4roi,
        max_steps=8,
        batch_size=1,
        gradient_accumulation_steps=accumulated,
        on_start=watched,
        report=lambda line: states.append(copy_of(gpt4roi)),
    )
    heard = []
    while run.running:
        heard += [(said, said(session)), (described, described(session))]
    run.wait()
    assert modes == {(True, False, False), (False, True, True)}
    assert not gpt4roi.model.training

    resting = tiny_gpt4roi(seed=1)
    at_rest = {said: [], described: []}
    for number, state in enumerate(states):
        if number == 1:
            choose_parts(resting.model, STAGES[2], dict(LORA))
        resting.model.load_state_dict(state)
        resting.model.eval()
        for ask, found in at_rest.items():
            found.append(ask(resting.session(tiny_image(0))))
    merged = {
        ask: ask(GPT4RoI.from_pretrained(tmp_path / "out" / "model", device="cpu").session(tiny_image(0)))
        for ask in at_rest
    }
    steps = [
        [step for step, rest in enumerate([*at_rest[ask], merged[ask]]) if alike(answers, rest)]
        for ask, answers in heard
    ]
    assert all(steps), "an answer comes from no state of the weights that there was"
    assert len({tuple(each) for each in steps}) > 2  # while it trained, and not before or afterwards
    # The session was opened before: it knows the image as the trained model does.
    assert all(alike(ask(session), merged[ask]) for ask in at_rest)


def test_a_step_that_fails_gives_the_model_back(tmp_path, monkeypatch):
    gpt4roi = tiny_gpt4roi(seed=1)
    session = gpt4roi.session(tiny_image(0))

    def fail(*args, **kwargs):
        raise ArithmeticError("no step")

    monkeypatch.setattr(torch.optim.AdamW, "step", fail)
    run = learning(tmp_path, gpt4roi)
    with pytest.raises(ArithmeticError, match="no step"):
        run.wait()
    answers = []
    asking = threading.Thread(target=lambda: answers.append(said(session)), daemon=True)
    asking.start()
    asking.join(60)
    assert len(answers) == 1 and not gpt4roi.model.training


def test_what_changes_weights_waits_for_an_answer(tmp_path):
    gpt4roi = tiny_gpt4roi(seed=1)
    before = copy_of(gpt4roi)
    session = gpt4roi.session(tiny_image(0))
    first = said(session)
    changing = threading.Thread(target=begin_anew, args=(gpt4roi, ["region_encoder"]), daemon=True)
    with gpt4roi.hold_weights():
        changing.start()
        changing.join(0.2)
        assert changing.is_alive() and alike(said(session), first)
        assert all(value.equal(before[name]) for name, value in gpt4roi.model.state_dict().items())
    changing.join(60)
    assert not changing.is_alive() and not alike(said(session), first)
