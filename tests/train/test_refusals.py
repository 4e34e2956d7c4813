"""Trainings that raise an error: wrong numbers, a second one at the same time, or one larger than the disk."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from learnable import BOX, OPTIONS, copy_of, losses, records, run
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb.files import alone_in
from gpt4roi_nb.inference.loaded_model import WeightsChangedError
from gpt4roi_nb.train import train
from gpt4roi_nb.train.disk import SPARE_BYTES, DiskUse
from gpt4roi_nb.train.trainer import RegionTrainer, checkpoints

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("option", "value", "error", "words"),
    [
        ("augment", "publish", ValueError, "augment must be one of published, mild, for all sources or per source"),
        ("augment", {"coco": True}, ValueError, "augment must be one of published, mild"),
        ("augment", 1, TypeError, "augment must be a name, or one per source"),
        ("batch_size", 0, ValueError, "batch_size must be at least 1, but is 0"),
        ("batch_size", 2.0, TypeError, "batch_size must be a whole number, but is 2.0"),
        ("batch_size", True, TypeError, "batch_size must be a whole number, but is True"),
        ("gradient_accumulation_steps", 0, ValueError, "gradient_accumulation_steps must be at least 1"),
        ("max_length", 0, ValueError, "max_length must be at least 1"),
        ("max_steps", 0, ValueError, "epochs and max_steps must not be 0"),
        ("max_steps", -2, ValueError, "max_steps must be at least -1"),
        ("epochs", 0, ValueError, "epochs and max_steps must not be 0"),
        ("epochs", NAN, ValueError, "epochs must be a finite number of at least 0, but is nan"),
        ("epochs", "2", TypeError, "epochs must be a number, but is '2'"),
        ("learning_rate", INFINITY, ValueError, "learning_rate must be a finite number of at least 0"),
        ("learning_rate", "1e-4", TypeError, "learning_rate must be a number, but is '1e-4'"),
        ("weight_decay", -0.1, ValueError, "weight_decay must be a finite number of at least 0"),
        ("warmup_steps", NAN, ValueError, "warmup_steps must be a finite number"),
        ("save_steps", 0, ValueError, "save_steps must be at least 1"),
        ("logging_steps", 0, ValueError, "logging_steps must be at least 1"),
        ("probe_steps", 0, ValueError, "probe_steps must be at least 1"),
        ("keep", 0, ValueError, "keep must be at least 1"),
        ("workers", -1, ValueError, "workers must be at least 0"),
        ("seed", True, TypeError, "seed must be a whole number, but is True"),
        ("seed", 2**70, ValueError, "seed must be at most 4294967295, but is 1180591620717411303424"),
        ("lora", {"r": 0}, ValueError, r"lora\['r'\] must be at least 1, but is 0"),
        ("lora", {"r": 1.5}, TypeError, r"lora\['r'\] must be a whole number, but is 1.5"),
    ],
)
def test_numbers_that_are_none_are_named_before_anything_is_changed(tmp_path, option, value, error, words):
    gpt4roi = tiny_gpt4roi(seed=1)
    with pytest.raises(error, match=words):
        train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", **{**OPTIONS, option: value})
    assert not (tmp_path / "out").exists()
    assert all(weight.requires_grad for weight in gpt4roi.model.parameters())


def test_numbers_of_numpy_are_numbers(tmp_path):
    plain = run(tmp_path, tmp_path / "plain", max_steps=2, save_steps=1)
    numpy = {"max_steps": np.int64(2), "save_steps": np.int32(1), "batch_size": np.uint8(2), "epochs": np.float32(2)}
    assert losses(run(tmp_path, tmp_path / "numpy", **numpy)) == losses(plain)


# ------------------------------------------------------------------------------------------- two at once


@contextmanager
def running(gpt4roi, folder: Path, output: Path):
    """A training in a thread that is within its first steps while the block runs."""
    begun = train(gpt4roi, records(folder), folder, output, **{**OPTIONS, "epochs": 500, "block": False})
    try:
        yield begun
    finally:
        begun.stop()
        begun.wait()


@pytest.mark.slow
@pytest.mark.parametrize("same", [True, False])
def test_a_second_training_in_one_process_is_refused(tmp_path, same):
    """With one model, both would change the weights; with two, accelerate's state would make the first one fail."""
    gpt4roi = tiny_gpt4roi(seed=1)
    other = gpt4roi if same else tiny_gpt4roi(seed=2)
    with running(gpt4roi, tmp_path, tmp_path / "out") as first:
        with pytest.raises(RuntimeError, match=r"another training runs in this process.*run\.stop\(\) ends it"):
            train(other, records(tmp_path), tmp_path, tmp_path / "other", **{**OPTIONS, "lora": {}})
        assert first.running and not (tmp_path / "other").exists()
        assert not any("lora" in name for name, _ in other.model.named_parameters())
    assert first.state == "stopped"
    assert train(other, records(tmp_path), tmp_path, tmp_path / "other", **OPTIONS).state == "done"


def test_a_second_training_into_one_folder_is_refused(tmp_path):
    gpt4roi = tiny_gpt4roi(seed=2)
    before = copy_of(gpt4roi)
    script = (
        "import sys; from pathlib import Path; from gpt4roi_nb.files import alone_in\n"
        "with alone_in(Path(sys.argv[1]), 'training'): print('begun', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as outside:
        assert outside.stdout.readline() == "begun\n"
        with pytest.raises(
            FileExistsError, match=r"another training is writing to .*out'; wait for it to end, or name"
        ):
            train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", **OPTIONS)
        outside.kill()  # the system gives the folder back
    assert all(value.equal(before[name]) for name, value in gpt4roi.model.state_dict().items())
    assert not any((tmp_path / "out").iterdir())
    assert train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", **OPTIONS).state == "done"


def test_a_training_holds_its_folder(tmp_path):
    out = tmp_path / "out"
    with (
        running(tiny_gpt4roi(seed=1), tmp_path, out),
        pytest.raises(FileExistsError, match="another training is writing to"),
        alone_in(out, "training"),
    ):
        pass
    with alone_in(out, "training"):
        pass


def test_what_could_not_begin_leaves_model_and_folder_free(tmp_path):
    gpt4roi = tiny_gpt4roi(seed=1)

    def fail(_):
        raise KeyError("on_start")

    with pytest.raises(KeyError):
        train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", on_start=fail, **OPTIONS)
    assert train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", **OPTIONS).state == "done"


def test_a_training_that_failed_leaves_model_and_folder_free(tmp_path):
    gpt4roi = tiny_gpt4roi(seed=1)
    bias = gpt4roi.model.multi_modal_projector.bias
    kept = bias.detach().clone()
    bias.data[0] = NAN
    with pytest.raises(FloatingPointError):
        train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", **OPTIONS)
    bias.data.copy_(kept)
    assert train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", **OPTIONS).state == "done"


def test_what_was_opened_before_a_training_in_place_sees_the_trained_model(tmp_path):
    gpt4roi = tiny_gpt4roi(seed=1)
    session = gpt4roi.session(tiny_image())
    answer = session.ask("What is <region1>?", BOX, max_new_tokens=4)
    attention, features = answer.attention().logprobs, session.roi_features(BOX)
    train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", **{**OPTIONS, "learning_rate": 1e-2})
    fresh = gpt4roi.session(tiny_image())
    assert not torch.allclose(answer.attention().logprobs, attention)
    torch.testing.assert_close(session.roi_features(BOX).tokens, fresh.roi_features(BOX).tokens)
    assert not torch.allclose(features.tokens, fresh.roi_features(BOX).tokens)
    session.reset()
    with pytest.raises(WeightsChangedError, match="record the features again"):
        features.contribution()
    assert session.roi_features(BOX).contribution()
    again, new = (each.ask("What is <region1>?", BOX, max_new_tokens=4) for each in (session, fresh))
    assert again.token_ids == new.token_ids and again.logprobs == pytest.approx(new.logprobs, abs=1e-4)


# ------------------------------------------------------------------------------------------- a full disk


@pytest.mark.parametrize(
    ("use", "most", "needed"),
    [
        # In GB: the second stage of GPT4RoI-7B. Two at a time, three, and one with the model beside it.
        (DiskUse(84, 29, keep=1, writes=10), 2, 2 * 84),
        (DiskUse(84, 29, keep=2, writes=10), 3, 3 * 84),
        (DiskUse(84, 29, keep=2, writes=1), 1, 84 + 29),
        # What is there already needs no more room, and goes once it is one too many.
        (DiskUse(84, 29, keep=1, writes=5, present=1, continued=True), 2, 84),
        (DiskUse(84, 29, keep=1, writes=5, present=3, continued=True), 4, 84),
        (DiskUse(84, 29, keep=2, writes=5, present=2), 3, 84),
        (DiskUse(84, 29, keep=1, writes=0, present=1, continued=True), 1, 29),
    ],
)
def test_what_a_training_writes_is_what_it_keeps_and_one_more(use, most, needed):
    assert (use.most, use.needed) == (most, needed)


def test_a_disk_that_is_too_small_is_told_before_the_first_step(tmp_path, monkeypatch):
    usage, done = shutil.disk_usage(tmp_path), []
    model = tiny_gpt4roi().model
    trained = sum(weight.numel() for name, weight in model.named_parameters() if not name.startswith("vision_tower"))
    needed = 3 * 12 * trained + SPARE_BYTES  # two that are kept, and one that is being written

    def with_free(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))

    with_free(needed - 1)
    with pytest.raises(OSError, match=r"does not fit into .*out': .* up to 3 at a time \(keep=2, and the one"):
        run(tmp_path, tmp_path / "out", report=done.append)
    assert not done and not list((tmp_path / "out").glob("checkpoint-*"))
    with_free(needed)
    assert run(tmp_path, tmp_path / "out").state == "done"
    kept = checkpoints(tmp_path / "out")[-1]
    assert sum(file.stat().st_size for file in kept.iterdir()) == pytest.approx(12 * trained, rel=0.1)


def test_a_disk_that_has_become_too_small_is_told_before_a_checkpoint_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)

    def fill(_) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_200_000))

    with pytest.raises(
        OSError, match=r"checkpoint of step 3 does not fit into .*out': it needs 2\.\d+ MB, but only 1\.20 MB"
    ):
        run(tmp_path, tmp_path / "out", report=fill)
    assert not list((tmp_path / "out").glob("checkpoint-*")) and not (tmp_path / "out" / ".unfinished").exists()
    monkeypatch.undo()
    assert run(tmp_path, tmp_path / "out").state == "done"


@pytest.mark.slow
@pytest.mark.parametrize("what", ["the checkpoint of step 3", "the trained model"])
def test_a_disk_that_fills_meanwhile_is_told_in_words(tmp_path, monkeypatch, what):
    """No file may grow beyond 50 kB in this process, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    finish = RegionTrainer.full_state_dict

    def fill(*_):
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))

    def fill_at_the_end(trainer):
        fill()
        return finish(trainer)

    if what == "the trained model":
        monkeypatch.setattr(RegionTrainer, "full_state_dict", fill_at_the_end)
    report = fill if what != "the trained model" else None
    try:
        with pytest.raises(OSError, match=rf"{what} could not be written to .*out': it needs .* were free"):
            run(tmp_path, tmp_path / "out", report=report)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    monkeypatch.undo()
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert not {"model", "model.partial", ".unfinished"} & left
    assert run(tmp_path, tmp_path / "out").state == "done"
