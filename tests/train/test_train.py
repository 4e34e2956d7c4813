"""Training trains what it says, and continues where it was, whatever ended it."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from learnable import BOX, OPTIONS, changed_parts, copy_of, losses, mixture, records, run
from mutations import cases, ends_well, garbled, mutated, written
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import tiny_gpt4roi, tiny_image
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import fully_shard
from transformers import TrainerState

from gpt4roi_nb import GPT4RoI, GPT4RoIConfig
from gpt4roi_nb.data.collate import Collator
from gpt4roi_nb.data.problems import BadRecord
from gpt4roi_nb.memory import skeleton
from gpt4roi_nb.train import Probes, begin_anew, train
from gpt4roi_nb.train.arguments import arguments_for
from gpt4roi_nb.train.parts import choose_parts, table
from gpt4roi_nb.train.trainer import RegionTrainer, _needed_logits, checkpoints, last_checkpoint, read_history
from gpt4roi_nb.widgets import TrainingMonitor

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"stage": 1}, {"region_encoder"}),
        ({"stage": 2}, {"region_encoder", "multi_modal_projector", "language_model"}),
        ({"trainable": ("multi_modal_projector",)}, {"multi_modal_projector"}),
    ],
)
def test_only_what_is_to_train_changes(tmp_path, capsys, options, parts):
    gpt4roi = tiny_gpt4roi(seed=1)
    before = copy_of(gpt4roi)
    done = train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", **{**OPTIONS, "epochs": 1, **options})
    assert changed_parts(gpt4roi, before) == parts
    assert {part.name for part in done.parts if part.trained} == parts
    said = capsys.readouterr().out
    for part in done.parts:
        assert f"{part.parameters:,}" in said and part.name in said
    assert not gpt4roi.model.training


def test_images_that_are_links_are_read_where_their_folder_is_named_as_well(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "farm").mkdir()
    data = records(tmp_path / "images")
    for image in {record.image for record in data}:
        (tmp_path / "farm" / image).symlink_to(tmp_path / "images" / image)
    options = {**OPTIONS, "max_steps": 1, "strict": True}
    with pytest.raises(ValueError, match=r"can be used; the first: .*path leaves its folder.*also=… of load or train"):
        train(tiny_gpt4roi(seed=1), data, tmp_path / "farm", tmp_path / "out", **options)
    done = train(
        tiny_gpt4roi(seed=1),
        data,
        tmp_path / "farm",
        tmp_path / "out",
        also=tmp_path / "images",
        **options,
    )
    assert done.step == 1 and not done.problems.counts()


@pytest.mark.slow
def test_it_learns_and_the_whole_model_is_written(tmp_path):
    done = run(tmp_path, tmp_path / "out", epochs=12)
    lines = list(losses(done).values())
    assert lines[-1] < 0.3 * lines[0]
    assert {"loss/coco", "loss/vg", "learning_rate", "epoch"} <= {key for line in done.history for key in line}
    loaded = GPT4RoI.from_pretrained(tmp_path / "out" / "model", device="cpu")
    batch = Collator(loaded.processor, tmp_path)(records(tmp_path))
    del batch["ids"], batch["sources"]
    with torch.no_grad():
        assert loaded.model(**batch).loss.item() < 0.3 * lines[0]
    stored = [path.name for path in checkpoints(tmp_path / "out")]
    assert len(stored) == 2 and stored[-1] == f"checkpoint-{max(losses(done))}"


def test_the_loss_is_the_mean_over_the_labelled_tokens(tmp_path):
    gpt4roi, data = tiny_gpt4roi(seed=1), records(tmp_path)
    batch = Collator(gpt4roi.processor, tmp_path)(data)
    del batch["ids"], batch["sources"]
    with torch.no_grad():
        expected = gpt4roi.model(**batch).loss.item()
    done = run(tmp_path, tmp_path / "out", batch_size=len(data), max_steps=1)
    assert losses(done)[1] == pytest.approx(expected, rel=1e-5)
    accumulated = run(tmp_path, tmp_path / "other", batch_size=3, gradient_accumulation_steps=4, max_steps=1)
    assert losses(accumulated)[1] == pytest.approx(expected, rel=1e-5)


def in_process(folder: Path, output: Path, options: dict, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run `learnable.py` as a separate process, after the code in `before`."""
    script = f"import sys, runpy; sys.path.insert(0, {str(TESTS)!r})\n{before}\n"
    script += f"sys.argv = ['learnable', {str(folder)!r}, {str(output)!r}, {json.dumps(options)!r}]\n"
    script += "runpy.run_module('learnable', run_name='__main__')\n"
    return subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)


KILL = """
import os, signal
from gpt4roi_nb.train import trainer
real = trainer.RegionTrainer._save
def save(self, output_dir=None, state_dict=None):
    if self.state.global_step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)  # while the second checkpoint is being written
    real(self, output_dir, state_dict)
trainer.RegionTrainer._save = save
"""


@pytest.mark.slow
def test_a_killed_training_goes_on_as_if_nothing_had_been(tmp_path):
    whole = losses(run(tmp_path, tmp_path / "whole"))
    killed = in_process(tmp_path, tmp_path / "out", {}, before=KILL.format(step=6))
    assert killed.returncode == -9, killed.stderr
    assert [path.name for path in checkpoints(tmp_path / "out")] == ["checkpoint-3"]
    assert losses(run(tmp_path, tmp_path / "out")) == whole
    loaded = [GPT4RoI.from_pretrained(tmp_path / name / "model", device="cpu").model for name in ("out", "whole")]
    ours, theirs = (model.state_dict() for model in loaded)
    assert all(ours[name].equal(theirs[name]) for name in theirs)


@pytest.mark.slow
def test_a_mixture_killed_in_its_second_epoch_goes_on_with_the_same_words_and_images(tmp_path):
    """Several data sets, worded differently each epoch, images mirrored and shifted at random, read by a worker."""
    options = {"mixed": True, "augment": True, "workers": 1, "save_steps": 2}
    whole = losses(run(tmp_path, tmp_path / "whole", **options))
    killed = in_process(tmp_path, tmp_path / "out", options, before=KILL.format(step=10))
    assert killed.returncode == -9, killed.stderr
    assert [path.name for path in checkpoints(tmp_path / "out")] == ["checkpoint-6", "checkpoint-8"]
    assert len(whole) == 12 and losses(run(tmp_path, tmp_path / "out", **options)) == whole


@pytest.mark.slow
def test_an_interrupted_cell_goes_on_from_the_last_checkpoint(tmp_path):
    whole = losses(run(tmp_path, tmp_path / "whole"))

    def report(line):
        if line["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tmp_path / "out", report=report)
    assert [path.name for path in checkpoints(tmp_path / "out")] == ["checkpoint-3"]
    assert losses(run(tmp_path, tmp_path / "out")) == whole


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two_checkpoints")
    run(folder, folder / "out")
    return folder / "out"


@pytest.mark.parametrize(
    "name", ["trained.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "order.json"]
)
def test_a_checkpoint_that_is_cut_short_or_lacks_a_file_is_skipped_with_a_word(two_checkpoints, name):
    older, newest = checkpoints(two_checkpoints)
    assert last_checkpoint(two_checkpoints, {}) == newest
    content = (newest / name).read_bytes()
    (newest / name).write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match=rf"{newest.name}' is skipped: it is cut short"):
        assert last_checkpoint(two_checkpoints, {}) == older
    (newest / name).unlink()
    with pytest.warns(UserWarning, match=f"it lacks {name}"):
        assert last_checkpoint(two_checkpoints, {}) == older
    (newest / name).write_bytes(content)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({}, "trainer_state.json lacks 'global_step'"),
        ({"log_history": 5}, "'log_history' of trainer_state.json must be a list, but is 5"),
        ({"global_step": "x"}, "'global_step' of trainer_state.json must be a whole number, but is 'x'"),
        ({"global_step": 900}, "trainer_state.json is of step 900, expected"),
        ({"a": 5}, "trainer_state.json has 'a', which this version of transformers does not know"),
    ],
)
def test_a_checkpoint_whose_state_is_damaged_is_skipped_with_a_word(two_checkpoints, entry, says):
    older, newest = checkpoints(two_checkpoints)
    content = (newest / "trainer_state.json").read_text()
    (newest / "trainer_state.json").write_text(json.dumps({**json.loads(content), **entry} if entry else {}))
    with pytest.warns(UserWarning, match=rf"{newest.name}' is skipped: it is cut short or damaged \({says}"):
        assert last_checkpoint(two_checkpoints, {}) == older
    (newest / "trainer_state.json").write_text(content)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda weight: weight[:1], r"has the shape \(1, .*\), expected"),
        (lambda weight: weight.fill_(float("nan")), "holds NaN or infinity"),
    ],
)
def test_a_checkpoint_whose_weights_are_damaged_is_skipped_with_a_word(two_checkpoints, change, says):
    older, newest = checkpoints(two_checkpoints)
    content = (newest / "trained.safetensors").read_bytes()
    weights = load_file(newest / "trained.safetensors")
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    name = "multi_modal_projector.weight"
    weights[name] = change(weights[name].clone()).contiguous()
    save_file(weights, newest / "trained.safetensors")
    with pytest.warns(UserWarning, match=rf"{newest.name}' is skipped: {name} in trained\.safetensors {says}"):
        assert last_checkpoint(two_checkpoints, shapes) == older
    (newest / "trained.safetensors").write_bytes(content)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_of_damaged_pickles(two_checkpoints, name):
    older, newest = checkpoints(two_checkpoints)
    whole = (newest / name).read_bytes()

    @cases
    def case(rng: random.Random) -> None:
        (newest / name).write_bytes(garbled(whole, rng))
        with ends_well(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            assert last_checkpoint(two_checkpoints, {}) in (older, newest)

    case()
    (newest / name).write_bytes(whole)


def test_a_damaged_state_of_a_checkpoint(two_checkpoints):
    older, newest = checkpoints(two_checkpoints)
    whole = (newest / "trainer_state.json").read_bytes()
    content = json.loads(whole)

    @cases
    def case(rng: random.Random) -> None:
        (newest / "trainer_state.json").write_bytes(written(mutated(content, rng), rng))
        with ends_well(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = last_checkpoint(two_checkpoints, {})
            assert found in (older, newest)
            assert all(isinstance(line["loss"], int | float) for line in read_history(found))
            TrainerState.load_from_json(str(found / "trainer_state.json"))

    case()
    (newest / "trainer_state.json").write_bytes(whole)


@pytest.mark.slow
def test_a_stop_keeps_a_checkpoint_and_the_rest_follows(tmp_path):
    whole = losses(run(tmp_path, tmp_path / "whole"))
    four = threading.Event()

    def report(line):
        if line["step"] == 4:
            four.set()
            started.stop()

    started = run(tmp_path, tmp_path / "out", block=False, report=lambda line: None)
    started.wait()
    assert losses(started) == whole and not started.running and not started.stopped
    started = run(tmp_path, tmp_path / "stopped", block=False, report=report)
    started.wait(120)
    assert four.is_set() and started.stopped and not (tmp_path / "stopped" / "model").exists()
    assert losses(run(tmp_path, tmp_path / "stopped")) == whole


def test_another_choice_of_parts_is_not_continued(tmp_path):
    run(tmp_path, tmp_path / "out", stage=1)
    with pytest.raises(ValueError, match="was trained with other parts"):
        run(tmp_path, tmp_path / "out", stage=2, epochs=3)


@pytest.mark.parametrize(
    ("mixed", "changes", "words"),
    [
        (False, {"batch_size": 3}, "records a step was 2, but is 3"),
        (False, {"count": 8}, "records was 12, but is 8"),
        (True, {"weight": 9}, "weights was .*, but is .*"),
    ],
)
def test_a_checkpoint_of_other_data_is_not_continued(tmp_path, mixed, changes, words):
    """Its position in the data would mean other records; the given weights are not changed."""
    run(tmp_path, tmp_path / "out", mixed=mixed, epochs=1)
    gpt4roi, options = tiny_gpt4roi(seed=2), {**OPTIONS, **changes}
    given = records(tmp_path, options.pop("count", 12))
    data, images = (mixture(tmp_path, options.pop("weight")), None) if mixed else (given, tmp_path)
    before = copy_of(gpt4roi)
    with pytest.raises(ValueError, match=words) as refusal:
        train(gpt4roi, data, images, tmp_path / "out", **options)
    assert "resume=False" in str(refusal.value) and not changed_parts(gpt4roi, before)


def test_where_no_checkpoint_is_whole_nothing_is_begun_over_them(tmp_path):
    run(tmp_path, tmp_path / "out")
    shutil.copytree(tmp_path / "out" / "checkpoint-12", tmp_path / "out" / "checkpoint-12-mine")
    for checkpoint in checkpoints(tmp_path / "out"):
        (checkpoint / "order.json").unlink()
    before = sorted((tmp_path / "out").rglob("*"))
    with pytest.warns(UserWarning, match="it lacks order.json"), pytest.raises(ValueError, match="resume=False"):
        run(tmp_path, tmp_path / "out")
    assert sorted((tmp_path / "out").rglob("*")) == before
    run(tmp_path, tmp_path / "out", resume=False, max_steps=6)
    assert [path.name for path in checkpoints(tmp_path / "out")] == ["checkpoint-3", "checkpoint-6"]
    assert (tmp_path / "out" / "checkpoint-12-mine").is_dir()


def test_what_begins_anew_keeps_its_own_checkpoints(tmp_path, capsys):
    run(tmp_path, tmp_path / "out")
    assert [path.name for path in checkpoints(tmp_path / "out")] == ["checkpoint-9", "checkpoint-12"]
    anew = run(tmp_path, tmp_path / "out", resume=False, max_steps=6)
    assert "continuing" not in capsys.readouterr().out
    assert list(losses(anew)) == [1, 2, 3, 4, 5, 6]
    assert [path.name for path in checkpoints(tmp_path / "out")] == ["checkpoint-3", "checkpoint-6"]
    again = run(tmp_path, tmp_path / "out", max_steps=6)
    assert losses(again) == losses(anew) and "continuing from" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [None, "bf16"])
@pytest.mark.parametrize(
    ("trainable", "lora"),
    [
        (("region_encoder",), None),
        (("region_encoder", "vision_tower"), None),
        (("region_encoder", "multi_modal_projector", "language_model"), None),
        (("region_encoder", "multi_modal_projector", "language_model"), {}),
    ],
)
def test_parts_of_a_model_in_half_precision_learn_beside_the_rest(tmp_path, dtype, autocast, trainable, lora):
    """As all of it does in float32, nearly."""
    changes = {"trainable": trainable, "lora": lora, "batch_size": 12, "epochs": 8, "use_cpu": True}
    exact = losses(run(tmp_path, tmp_path / "exact", **changes))
    gpt4roi = tiny_gpt4roi(seed=1)
    gpt4roi.model.to(dtype)
    probes = Probes(tiny_image(0), BOX, max_new_tokens=3)
    options = {**OPTIONS, **changes, "probes": probes, "bf16": autocast is not None}
    if dtype == torch.float16 and autocast is None and (lora is not None or "language_model" not in trainable):
        with pytest.raises(ValueError, match="gradients vanish in a frozen language model in float16"):
            train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", **options)
        return
    done = train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", **options)
    assert list(losses(done).values()) == pytest.approx(list(exact.values()), rel=0.05)
    assert len(done.answers) == len(exact) + 1
    assert gpt4roi.session(tiny_image(1)).ask("What is <region1>?", boxes=BOX, max_new_tokens=3).tokens


def test_a_warm_up_as_long_as_the_training_is_warned_of(tmp_path, caplog):
    run(tmp_path, tmp_path / "out", max_steps=2, warmup_steps=None)  # 3000 steps in the second stage
    assert "the warm-up takes 3000 of the training's 2 steps" in caplog.text
    caplog.clear()
    run(tmp_path, tmp_path / "other", max_steps=2, warmup_steps=1)
    assert "warm-up" not in caplog.text


def test_a_process_uses_one_of_the_gpus_that_it_sees(tmp_path):
    arguments = arguments_for(tmp_path, per_device_train_batch_size=3)
    arguments._n_gpu = 2  # as transformers sets it on such a machine
    assert arguments.n_gpu == 1 and arguments.train_batch_size == 3


def test_a_loss_that_is_no_number_names_its_records(tmp_path):
    gpt4roi = tiny_gpt4roi(seed=1)
    gpt4roi.model.multi_modal_projector.bias.data[0] = torch.nan
    with pytest.raises(FloatingPointError, match=r"loss of step 0 is nan; the records .*bad_batch\.json"):
        train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", **OPTIONS)
    listed = json.loads((tmp_path / "out" / "bad_batch.json").read_text())
    assert len(listed["records"]) == 2 and {"source", "id"} == set(listed["records"][0])


def test_a_last_step_that_makes_weights_infinite_does_not_end_well(tmp_path):
    words = r"after step 1, .* hold NaN or infinity, first .*; they are not saved.*learning rate of 1e\+38"
    for folder, options in (("model", {"save_strategy": "no"}), ("checkpoints", {"save_steps": 1})):
        with pytest.raises(FloatingPointError, match=f"{words}.*there is no checkpoint yet; load the model again"):
            run(tmp_path, tmp_path / folder, learning_rate=1e38, max_steps=1, **options)
        assert not (tmp_path / folder / "model").exists() and not checkpoints(tmp_path / folder)


def test_a_checkpoint_of_infinite_weights_is_not_written_and_the_one_before_is_named(tmp_path):
    gpt4roi, out = tiny_gpt4roi(seed=1), tmp_path / "out"

    def spoil(line):
        if line["step"] == 2:
            gpt4roi.model.multi_modal_projector.bias.data[0] = torch.inf

    with pytest.raises(FloatingPointError, match=r"after step 2, 1 of .*projector.bias; .*checkpoint-1'"):
        train(gpt4roi, records(tmp_path), tmp_path, out, report=spoil, **{**OPTIONS, "save_steps": 1, "max_steps": 2})
    assert [path.name for path in checkpoints(out)] == ["checkpoint-1"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 68719476736 bytes."),
    ],
)
def test_running_out_of_memory_says_what_to_lower(tmp_path, error):
    gpt4roi = tiny_gpt4roi(seed=1)

    def fail(*_):
        raise error

    gpt4roi.model.region_encoder.register_forward_pre_hook(fail)
    gpt4roi.model.language_model.register_forward_pre_hook(fail)
    with pytest.raises(MemoryError, match="lower batch_size"):
        train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", **OPTIONS)


@pytest.mark.slow
def test_adapters_learn_and_leave_an_ordinary_model(tmp_path):
    gpt4roi = tiny_gpt4roi(seed=1)
    before = copy_of(gpt4roi)
    options = {**OPTIONS, "epochs": 8, "learning_rate": 1e-2, "lora": {"r": 4}}
    done = train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", **options)
    (words,) = [part for part in done.parts if part.name == "language_model"]
    assert 0 < words.trained < 0.2 * words.parameters
    assert list(losses(done).values())[-1] < 0.5 * losses(done)[1]
    after = gpt4roi.model.state_dict()
    assert set(after) == set(before)
    moved = {name for name in before if name.startswith("language_model") and not after[name].equal(before[name])}
    assert moved and all("_proj" in name for name in moved)
    loaded = GPT4RoI.from_pretrained(tmp_path / "out" / "model", device="cpu").model.state_dict()
    assert all(loaded[name].equal(after[name]) for name in after)


@pytest.mark.slow
def test_adapters_are_continued_as_well(tmp_path):
    options = {"lora": {"r": 4, "lora_dropout": 0.1}}
    whole = losses(run(tmp_path, tmp_path / "whole", **options))
    killed = in_process(tmp_path, tmp_path / "out", options, before=KILL.format(step=6))
    assert killed.returncode == -9, killed.stderr
    assert losses(run(tmp_path, tmp_path / "out", **options)) == whole


def test_a_stopped_training_with_adapters_goes_on_with_the_same_model(tmp_path):
    data, options = records(tmp_path), {**OPTIONS, "lora": {"r": 4, "lora_dropout": 0.1}}
    whole = train(tiny_gpt4roi(seed=1), data, tmp_path, tmp_path / "whole", **options)
    gpt4roi, runs = tiny_gpt4roi(seed=1), []
    names = set(gpt4roi.model.state_dict())

    def report(line):
        if line["step"] == 4:
            runs[0].stop()

    train(gpt4roi, data, tmp_path, tmp_path / "out", on_start=runs.append, report=report, **options)
    assert runs[0].stopped
    done = train(gpt4roi, data, tmp_path, tmp_path / "out", **options)
    assert losses(done) == losses(whole)
    assert set(gpt4roi.model.state_dict()) == names


SHARDED = yaml.safe_load((TESTS.parent / "gpt4roi_nb" / "train" / "fsdp.yaml").read_text())


def test_the_shipped_configuration_is_what_accelerate_reads_and_names_layers_that_are_there():
    from accelerate.commands.config.config_args import load_config_from_file

    read = load_config_from_file(str(TESTS.parent / "gpt4roi_nb" / "train" / "fsdp.yaml"))
    assert read.distributed_type.value == "FSDP" and read.fsdp_config == SHARDED["fsdp_config"]
    named = SHARDED["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"].split(",")
    kinds = {type(module).__name__ for module in skeleton(GPT4RoIConfig()).modules()}
    assert set(named) <= kinds and len(named) == 2


def test_the_named_layers_can_be_divided_and_give_the_same_loss(tmp_path):
    """torch's own FSDP 2 over gloo, in one process: accelerate itself divides nothing among CPUs."""
    gpt4roi = tiny_gpt4roi(seed=1)
    batch = Collator(gpt4roi.processor, tmp_path)(records(tmp_path)[:3])
    del batch["ids"], batch["sources"]
    with torch.no_grad():
        expected = gpt4roi.model(**batch).loss.item()
    before = copy_of(gpt4roi)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        named = SHARDED["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"].split(",")
        for module in gpt4roi.model.modules():
            if type(module).__name__ in named:
                fully_shard(module, mesh=mesh)
        fully_shard(gpt4roi.model, mesh=mesh)
        loss = gpt4roi.model(**batch).loss
        loss.backward()
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        options = StateDictOptions(full_state_dict=True, strict=False)
        set_model_state_dict(gpt4roi.model, {name: value + 1 for name, value in before.items()}, options=options)
        whole = get_model_state_dict(gpt4roi.model, options=StateDictOptions(full_state_dict=True))
        assert all(whole[name].equal(value + 1) for name, value in before.items())
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stage": 3}, "stage must be 1 or 2"),
        ({"trainable": ("head",)}, "trainable must name some of vision_tower"),
        ({"stage": 1, "lora": {}}, "lora adapts the language model, but trainable does not name language_model"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        run(tmp_path, tmp_path / "out", **options)
    with pytest.raises(ValueError, match="there are no data"):
        train(tiny_gpt4roi(), [], tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="the data do not know which folder their images are in; name it"):
        train(tiny_gpt4roi(), records(tmp_path), output_dir=tmp_path / "out")
    with pytest.raises(
        TypeError, match=r"no keyword warmup; give warmup_steps=0\.03: a number of steps, or, if below 1"
    ):
        run(tmp_path, tmp_path / "out", warmup=0.03)


# ------------------------------------------------------------------------------- records that cannot be used


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_damaged_image_is_counted_and_listed_and_nothing_is_learnt_of_it(tmp_path, caplog, batch_size):
    data = records(tmp_path)
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:100])  # of records 3 and 9
    options = {**OPTIONS, "stage": 1, "epochs": 1, "batch_size": batch_size, "workers": 1 if batch_size == 3 else 0}
    done = train(tiny_gpt4roi(seed=1), data, tmp_path, tmp_path / "out", **options)
    assert len(losses(done)) == len(data) // batch_size
    assert done.problems.counts() == {"image cannot be read": 2}
    listed = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert {entry["where"] for entry in listed} == {"coco: record 3, 3.png", "coco: record 9, 3.png"}
    assert "records that training could not use: 2" in done.report() and "image cannot be read" in caplog.text
    with pytest.raises((BadRecord, RuntimeError), match=r"image cannot be read: .*3\.png"):
        train(tiny_gpt4roi(seed=1), data, tmp_path, tmp_path / "strict", strict=True, **options)


def test_data_of_which_nothing_can_be_read_are_refused(tmp_path):
    data = records(tmp_path)
    with pytest.raises(ValueError, match=r"none of 12 evenly spaced records can be used; the first: no such"):
        train(tiny_gpt4roi(), data, tmp_path / "elsewhere", tmp_path / "out", **OPTIONS)


# ----------------------------------------------------------------------------------------------- the tower cache


def tower_calls(gpt4roi) -> list[int]:
    """The number of images in each call of the tower from now on."""
    calls: list[int] = []
    gpt4roi.model.vision_tower.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(len(args[0])), with_kwargs=True
    )
    return calls


@pytest.mark.slow
def test_with_kept_tower_states_the_losses_are_the_same_and_the_tower_rests(tmp_path, capsys, monkeypatch):
    data, options = records(tmp_path), {**OPTIONS, "stage": 1, "epochs": 1, "tower_cache": tmp_path / "tower"}

    def trained(gpt4roi, name, **changes):
        return train(gpt4roi, data, tmp_path, tmp_path / name, **{**options, **changes})

    plain = trained(tiny_gpt4roi(seed=1), "plain", tower_cache=None)
    gpt4roi = tiny_gpt4roi(seed=1)
    calls = tower_calls(gpt4roi)
    first = trained(gpt4roi, "first")
    assert sum(calls) == 6  # each image once
    assert "tower cache: 6 images take" in capsys.readouterr().out
    assert list(losses(first).values()) == pytest.approx(list(losses(plain).values()), rel=1e-5)

    # All are there: the tower is not run at all, until an image changes, or the tower does.
    gpt4roi = tiny_gpt4roi(seed=1)
    calls = tower_calls(gpt4roi)
    assert losses(trained(gpt4roi, "second")) == losses(first) and calls == []
    Image.fromarray(tiny_image(77)).save(tmp_path / "2.png")
    trained(gpt4roi, "third", max_steps=1)
    assert sum(calls) == 1
    gpt4roi.model.vision_tower.post_layernorm.bias.data += 1
    trained(gpt4roi, "fourth", max_steps=1)
    assert sum(calls) == 1 + 6

    (damaged,) = (file for file in list((tmp_path / "tower").rglob("*.safetensors"))[:1])
    damaged.write_bytes(damaged.read_bytes()[:50])
    usage, tower = shutil.disk_usage(tmp_path), tmp_path / "tower"
    monkeypatch.setattr(shutil, "disk_usage", lambda of: usage._replace(free=10) if of.is_relative_to(tower) else usage)
    with pytest.raises(OSError, match=r"tower cache needs .* has only 0\.01 kB free"):
        trained(tiny_gpt4roi(seed=5), "full", max_steps=1)
    with pytest.raises(ValueError, match="needs a frozen tower and unchanged images"):
        trained(gpt4roi, "fifth", augment=True)
    with pytest.raises(ValueError, match="needs a frozen tower and unchanged images"):
        trained(gpt4roi, "sixth", trainable=("vision_tower",))


def test_a_source_that_is_augmented_goes_through_the_tower_and_the_others_are_kept(tmp_path, caplog):
    options = {**OPTIONS, "stage": 1, "epochs": 1, "batch_size": 1, "augment": {"coco": "published"}}
    plain = train(tiny_gpt4roi(seed=1), records(tmp_path), tmp_path, tmp_path / "plain", **options)
    gpt4roi = tiny_gpt4roi(seed=1)
    calls = tower_calls(gpt4roi)
    kept = train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "kept", tower_cache=tmp_path / "tower", **options)
    assert sum(calls) == 3 + 6  # the three images of vg once, and coco's at each of its six records
    assert list(losses(kept).values()) == pytest.approx(list(losses(plain).values()), rel=1e-5)
    assert "augment names" not in caplog.text
    options = {**options, "max_steps": 1, "augment": {"coc": "published"}}
    train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "misspelt", **options)
    assert "augment names coc, but none of 12 evenly spaced records" in caplog.text
    assert "they are of coco, vg" in caplog.text


def test_weight_decay_reaches_all_that_trains_as_published_or_spares_biases_and_norms(tmp_path, capsys):
    groups = {}
    for decay_all in (True, False):
        gpt4roi = tiny_gpt4roi(seed=1)
        parts = choose_parts(gpt4roi.model, ["region_encoder"])
        arguments = arguments_for(tmp_path / "out", weight_decay=0.01, report_to="none")
        trainer = RegionTrainer(gpt4roi, args=arguments, decay_all=decay_all)
        names = {id(weight): name for name, weight in gpt4roi.model.named_parameters()}
        groups[decay_all] = {
            names[id(weight)]: group["weight_decay"]
            for group in trainer.create_optimizer().param_groups
            for weight in group["params"]
        }
        line = table(parts, 2e-5, 0.01, trainer.get_decay_parameter_names(gpt4roi.model)).splitlines()[3]
        decayed = sum(decay > 0 for decay in groups[decay_all].values())
        assert line.split()[0] == "region_encoder" and line.split()[-2:] == ["0.01", f"{decayed}/{len(groups[True])}"]
    trained = {name for name in names.values() if name.startswith("region_encoder.")}
    assert groups[True] == dict.fromkeys(trained, 0.01)
    assert groups[False].keys() == trained and set(groups[False].values()) == {0.01, 0.0}
    spared = {name for name, decay in groups[False].items() if not decay}
    assert {name for name in trained if name.endswith("bias")} < spared
    assert all(name.endswith("bias") or ".norm" in name or "position_embedding" in name for name in spared)

    run(tmp_path, tmp_path / "out", stage=1, max_steps=1)
    assert " 0.01 " in capsys.readouterr().out
    with pytest.raises(ValueError, match="weight decay of biases and norms was True, but is None"):
        run(tmp_path, tmp_path / "out", stage=1, max_steps=2, decay_biases_and_norms=False)


def test_only_what_is_read_of_the_tower_is_kept():
    model = tiny_gpt4roi(seed=1).model
    assert model.config.used_layers == [2, 3, 4]  # two region levels, and the last but one for the image tokens
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        states, whole = model.tower_states(pixels), model.encode_image(pixels)
        kept = model.encode_image(tower_states=states)
    assert states.shape == (2, 3, 16, 16)
    assert kept.image_features.equal(whole.image_features)
    assert all(one.equal(two) for one, two in zip(kept.fused_maps, whole.fused_maps, strict=True))


# --------------------------------------------------------------------------------------------- probes and figures


@pytest.mark.slow
def test_probes_are_asked_without_changing_what_is_learnt(tmp_path):
    options = {"epochs": 1, "lora": {"r": 2, "lora_dropout": 0.1}}
    plain = losses(run(tmp_path, tmp_path / "plain", **options))
    probes = Probes(tiny_image(0), BOX, ["blue cup"], max_new_tokens=3)
    done = run(tmp_path, tmp_path / "out", probes=probes, probe_steps=4, **options)
    assert losses(done) == plain
    assert [step for step, _ in done.answers] == [0, 4, 6]
    assert all(len(answers) == 1 for _, answers in done.answers)
    line = next(line for line in done.history if "loss" in line)
    assert line["tokens_per_second"] > 0 and 0 <= line["waiting"] < 1 and line["memory"] > 1e6
    assert line["seconds_left"] > 0 and done.step == done.max_steps == 6 and done.state == "done"
    assert done.history[-1]["step"] == 6 and "loss" in done.history[-1]


@pytest.mark.slow
def test_what_other_probes_were_answered_is_not_shown_as_theirs(tmp_path):
    few = {"max_steps": 3, "probe_steps": 1}
    first = run(tmp_path, tmp_path / "out", probes=Probes(tiny_image(0), BOX, max_new_tokens=3), **few)
    same = run(tmp_path, tmp_path / "out", probes=Probes(tiny_image(0), BOX, max_new_tokens=3), **few)
    assert same.answers == first.answers and [step for step, _ in same.answers] == [0, 1, 2, 3]
    more = Probes(tiny_image(0), [*BOX, [20, 10, 60, 44]], max_new_tokens=3)
    shown = []
    other = run(tmp_path, tmp_path / "out", probes=more, on_start=lambda run: shown.append(TrainingMonitor(run)), **few)
    assert [(step, len(answers)) for step, answers in other.answers] == [(3, 2)]
    elsewhere = Probes(tiny_image(1), BOX, max_new_tokens=3)
    assert len(run(tmp_path, tmp_path / "out", probes=elsewhere, **few).answers) == 1
    again = run(tmp_path, tmp_path / "out", probes=Probes(tiny_image(0), BOX, max_new_tokens=3), **few)
    assert again.answers == first.answers  # theirs are kept beside the others'
    assert [len(probe["answers"]) for probe in shown[0].probes] == [1, 1]


def test_probes_that_make_no_sense_are_refused():
    for boxes, truths, words in ((BOX, ["a", "b"], "one truth per box"), (BOX[:0], (), "1 to 10 boxes")):
        with pytest.raises(ValueError, match=words):
            Probes(tiny_image(0), boxes, truths)
    assert Probes(tiny_image(0), BOX, ["large red cup"]).share(["A red, large cone."]) == pytest.approx(2 / 3)


def test_parts_begin_anew_by_seed():
    gpt4roi = tiny_gpt4roi(seed=1)
    before = copy_of(gpt4roi)
    begin_anew(gpt4roi.model, ["region_encoder"], seed=3)
    assert changed_parts(gpt4roi, before) == {"region_encoder"}
    once = copy_of(gpt4roi)
    begin_anew(gpt4roi.model, ["region_encoder"], seed=3)
    assert not changed_parts(gpt4roi, once)
    with pytest.raises(ValueError, match="parts must name some of region_encoder"):
        begin_anew(gpt4roi.model, ["language_model"])


def test_each_epoch_words_its_records_anew(tmp_path):
    asked: list[tuple[int, int]] = []

    class Worded:
        def __init__(self):
            self.records = records(tmp_path)

        def __len__(self):
            return len(self.records)

        def __getitem__(self, number):
            return self.records[number]

        def record(self, number, epoch=0):
            asked.append((number, epoch))
            return self.records[number]

    def trained(epochs):
        # What is looked at before it begins does not count.
        options = {**OPTIONS, "epochs": epochs, "on_start": lambda run: asked.clear()}
        train(tiny_gpt4roi(seed=1), Worded(), tmp_path, tmp_path / "out", **options)
        return sorted(asked)

    assert trained(2) == [(number, epoch) for number in range(12) for epoch in range(2)]
    assert trained(3) == [(number, 2) for number in range(12)]  # taken up after the second epoch


def test_tensorboard_gets_what_is_logged(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = run(tmp_path, tmp_path / "out", max_steps=2, report_to="tensorboard")
    (file,) = tmp_path.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file)).Reload()
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(list(losses(done).values()))
    assert {"train/loss/vg", "train/tokens_per_second"} <= set(events.Tags()["scalars"])


@pytest.mark.parametrize(
    ("labels", "needed"),
    [
        ([[-100, -100, 5, 6]], 3),
        ([[-100, -100, -100, 6], [-100, 4, -100, -100]], 4),  # the earliest of all rows decides
        ([[5, -100, -100]], 3),  # nothing predicts the first
        ([[-100, -100, -100]], 2),
    ],
)
def test_the_loss_reads_logits_from_the_token_before_the_first_that_counts(
    labels: list[list[int]], needed: int
) -> None:
    assert _needed_logits(torch.tensor(labels)) == needed
