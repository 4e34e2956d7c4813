"""The monitor shows a training's state, and its button stops it with a checkpoint."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from learnable import BOX, OPTIONS, losses, records, run
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb.draw import REGION_COLORS
from gpt4roi_nb.train import Probes, TrainingRun, train
from gpt4roi_nb.train.trainer import checkpoints
from gpt4roi_nb.widgets import TrainingMonitor
from gpt4roi_nb.widgets.training_monitor import MAX_POINTS


def probes() -> Probes:
    return Probes(tiny_image(0), [*BOX, [20, 10, 60, 44]], ["blue cup", "red cone"], max_new_tokens=4)


def test_it_shows_what_the_run_says(tmp_path: Path) -> None:
    shown: list[TrainingMonitor] = []
    done = run(
        tmp_path, tmp_path / "out", epochs=3, probes=probes(), on_start=lambda r: shown.append(TrainingMonitor(r))
    )
    (monitor,) = shown
    assert monitor.state == "done" and monitor.step == monitor.max_steps == 18
    assert [line["loss"] for line in monitor.lines] == list(losses(done).values())
    assert [source["name"] for source in monitor.sources] == ["coco", "vg"]
    assert not {source["color"] for source in monitor.sources} & set(REGION_COLORS[:2])
    assert {"loss", "learning rate", "tokens per second", "images per second", "memory"} <= set(monitor.facts)
    assert monitor.probe_image.startswith("data:image/png") and "region N" in monitor.question
    assert [probe["color"] for probe in monitor.probes] == list(REGION_COLORS[:2])
    for probe, truth, index in zip(monitor.probes, ("blue cup", "red cone"), (0, 1), strict=True):
        assert probe["truth"] == truth and probe["answers"][0]["step"] == 0
        texts = [answer["text"] for answer in probe["answers"]]
        assert all(one != two for one, two in itertools.pairwise(texts))
        assert texts[-1] == done.answers[-1][1][index]
        assert all(answer["right"] == (truth in answer["text"]) for answer in probe["answers"])
    assert str(tmp_path / "out" / "model") in monitor.notice and not monitor.problem
    page, text = monitor._to_read()  # what a saved notebook shows
    assert page.count("<img") == 2 and f"loss  {monitor.facts['loss']}" in text
    assert text.startswith("Training, done: step 18 of 18") and "region 1  blue cup  " in text


def test_its_button_keeps_a_checkpoint_and_the_rest_follows(tmp_path: Path) -> None:
    whole = losses(run(tmp_path, tmp_path / "whole"))
    two = threading.Event()
    pressed = threading.Event()

    def report(line: dict[str, float]) -> None:
        if line["step"] == 2:
            two.set()
            assert pressed.wait(60)

    going = run(tmp_path, tmp_path / "out", block=False, report=report)
    monitor = TrainingMonitor(going)
    assert two.wait(120) and monitor.state == "running"
    monitor._handle_custom_msg({"type": "stop"}, [])
    assert monitor.stopping and "with a checkpoint" in monitor.notice
    pressed.set()
    going.wait(120)
    wait_for(lambda: monitor.state == "stopped")
    assert "Stopped, with a checkpoint in" in monitor.notice and len(checkpoints(tmp_path / "out")) == 1
    assert losses(run(tmp_path, tmp_path / "out")) == whole


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def test_a_failure_is_said_in_words(tmp_path: Path) -> None:
    shown: list[TrainingMonitor] = []
    gpt4roi = tiny_gpt4roi(seed=1)
    gpt4roi.model.multi_modal_projector.bias.data[0] = float("nan")
    with pytest.raises(FloatingPointError):
        train(
            gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", on_start=lambda r: shown.append(TrainingMonitor(r)),
            **OPTIONS,
        )  # fmt: skip
    assert shown[0].state == "failed" and shown[0].problem.startswith("The loss of step 0 is nan; the records")


def test_a_long_curve_is_thinned_out_and_updates_are_few(tmp_path: Path) -> None:
    going = TrainingRun(tmp_path, [])
    monitor = TrainingMonitor(going)
    updates: list[object] = []
    monitor.observe(lambda change: updates.append(change), "step")
    for step in range(1, 1001):
        going.history.append({"step": step, "loss": 1 / step})
        going.step = step
        going.changed()
    assert len(updates) < 20
    going.ended()
    assert len(monitor.lines) <= MAX_POINTS and monitor.lines[-1]["step"] == 1000 and monitor.step == 1000
