"""The command line of training: a file configures model and data, for one process or several."""

from __future__ import annotations

import inspect
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import annotation_files
import pytest
import torch
import yaml
from learnable import OPTIONS, changed_parts, copy_of, entry
from mutations import cases, ends_well, garbled
from tiny import tiny_gpt4roi

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data import FORMATS, Mixture, load
from gpt4roi_nb.data.scenes.formats.write import write_world
from gpt4roi_nb.train import train
from gpt4roi_nb.train.__main__ import Loader, main, mixed, placement, read_config
from gpt4roi_nb.train.arguments import PUBLISHED
from gpt4roi_nb.train.checks import check_augment
from gpt4roi_nb.train.trainer import checkpoints

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_file_says_what_is_trained_on_what(tmp_path, capsys):
    """The world's own COCO and VG files, the demo checkpoint, one step."""
    world = tmp_path / "world"
    write_world(world, 4, seed=1, workers=1)
    annotations = world / "coco" / "annotations" / "instances_train2017.json"
    config = {
        "output_dir": str(tmp_path / "out"),
        "max_steps": 1,
        "logging_steps": 1,
        "report_to": "none",
        "data": [
            {
                "format": "coco",
                "annotations": str(annotations),
                "images": str(world / "coco" / "train2017"),
                "cache": str(tmp_path),
            },
            {
                "format": "visual_genome",
                "annotations": str(world / "vg" / "train.json"),
                "images": str(world / "vg" / "VG_100K"),
                "weight": 100,
                "cache": str(tmp_path),
            },
        ],
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({**config, "batch_size": 4}))
    main([str(file)])
    assert "region_encoder" in capsys.readouterr().out
    assert GPT4RoI.from_pretrained(tmp_path / "out" / "model", device="cpu").model.config.text_config.num_hidden_layers
    for content, words in (("[", "cannot be read"), ("stage: 1", "must give output_dir and data"), ("", "must give")):
        file.write_text(content)
        with pytest.raises(SystemExit):
            main([str(file)])
        assert words in capsys.readouterr().err
    file.write_bytes(b"\x89PNG")
    with pytest.raises(SystemExit):
        main([str(file)])
    assert "cannot be read as a YAML file" in capsys.readouterr().err
    for change, words in (
        ({"data": [{"format": "coco", "annotations": "absent.json"}]}, "absent.json"),
        ({"warmup": 20}, "give warmup_steps=20"),  # its former name
    ):
        file.write_text(yaml.safe_dump({**config, **change}))
        with pytest.raises(SystemExit):
            main([str(file)])
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("stage", [1, 2])
def test_a_published_file_gives_the_published_settings_each_with_its_source(stage):
    file = ROOT / "gpt4roi_nb" / "train" / f"stage{stage}.yaml"
    config = yaml.load(file.read_text(), Loader)
    published = PUBLISHED[stage]
    assert {name: config[name] for name in ("batch_size", "weight_decay", "warmup_steps")} == {
        name: getattr(published, name) for name in ("batch_size", "weight_decay", "warmup_steps")
    }
    known = inspect.signature(train).parameters
    entries = config.pop("data")
    assert config.keys() - known.keys() == {"checkpoint"}
    assert config["gradient_checkpointing"] and (config["save_steps"], config["keep"]) == ((1000, 3000)[stage - 1], 1)
    assert check_augment(config.get("augment")) == ({"coco": "published"} if stage == 1 else None)
    for listed in entries:
        options = inspect.signature(load).parameters.keys() | FORMATS[listed["format"]].__kwdefaults__.keys()
        assert listed.keys() <= options
        assert "max_regions" in listed or listed["format"] in ("vcr", "llava")
    settings = [line for line in file.read_text().splitlines() if re.match(r"\w+:", line)]
    assert len(settings) > 15 and all(" # " in line for line in settings)


def test_a_number_may_be_written_without_a_dot_and_what_fails_in_training_keeps_its_place(tmp_path, capsys):
    given = annotation_files.vg_train(tmp_path)
    data = yaml.safe_dump([entry(given, tmp_path / "cache")])
    file = tmp_path / "config.yaml"
    file.write_text(
        f"output_dir: {tmp_path / 'out'}\nmax_steps: 1e0\nlearning_rate: 1e-4\nweight_decay: 1E-2\nreport_to: none\n"
        f"data:\n{data}"
    )
    main([str(file)])
    assert "0.0001" in capsys.readouterr().out
    state = json.loads((tmp_path / "out" / "checkpoint-1" / "trainer_state.json").read_text())
    assert state["global_step"] == 1
    file.write_text(f"output_dir: {tmp_path / 'out'}\nstage: 2\nreport_to: none\ndata:\n{data}")
    with pytest.raises(SystemExit) as stop:
        main([str(file)])
    said = capsys.readouterr().err
    assert stop.value.code == 1 and "Traceback" in said and "usage" not in said
    assert "was trained with other parts" in said.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "parts"),
    [(1, {"region_encoder"}), (2, {"region_encoder", "multi_modal_projector", "language_model"})],
)
def test_each_data_set_of_a_file_has_its_own_folder_in_either_stage(tmp_path, stage, parts):
    """Two of COCO's files, which have the same source, and one with another source than its format's name."""
    coco = annotation_files.coco(tmp_path / "one")
    other = annotation_files.coco(tmp_path / "two")
    other.annotations.write_text(other.annotations.read_text().replace("0000000000", "1111111111"))
    for image_file in list(other.images.iterdir()):
        image_file.rename(image_file.with_name(image_file.name.replace("0000000000", "1111111111")))
    given = (coco, annotation_files.refcoco(tmp_path / "three"), other)
    tiny_gpt4roi(seed=1).save_pretrained(tmp_path / "tiny")
    before = copy_of(GPT4RoI.from_pretrained(tmp_path / "tiny", device="cpu"))
    config = {
        "checkpoint": str(tmp_path / "tiny"),
        "output_dir": str(tmp_path / "out"),
        "data": [
            {
                "format": each.format,
                "annotations": str(each.annotations),
                "images": str(each.images),
                "cache": str(tmp_path / "cache"),
            }
            for each in given
        ],
        **OPTIONS,
        "stage": stage,
        "epochs": 8,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    main([str(tmp_path / "config.yaml")])
    assert (tmp_path / "out" / "skipped.jsonl").read_text() == ""
    state = json.loads((checkpoints(tmp_path / "out")[-1] / "trainer_state.json").read_text())
    assert {"loss/coco", "loss/refcoco+"} <= {key for line in state["log_history"] for key in line}
    assert changed_parts(GPT4RoI.from_pretrained(tmp_path / "out" / "model", device="cpu"), before) == parts


def test_a_weight_says_how_often_each_record_is_drawn(tmp_path):
    one, two = (make(tmp_path / make.__name__) for make in (annotation_files.refcoco, annotation_files.unc_refs))
    sizes = [len(load(g.format, g.annotations, g.images, cache=tmp_path / "cache", **g.options)) for g in (one, two)]
    mixture = mixed([entry(one, tmp_path / "cache"), entry(two, tmp_path / "cache", weight=3)], seed=0)
    share = sizes[0] / (sizes[0] + 3 * sizes[1])
    assert list(mixture.weights.values()) == pytest.approx([share, 1 - share])
    for entries, words in (
        ([entry(one, tmp_path / "cache", weight="2")], "weight, how often each record is drawn, must be a number"),
        ([entry(one, tmp_path / "cache", weight=0)], "weights must be positive numbers"),
        (["coco"], "an entry of data must give keywords of load"),
    ):
        with pytest.raises(ValueError, match=words):
            mixed(entries, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_a_shipped_stage_trains_on_data_laid_out_as_the_generated_world_is(tmp_path, monkeypatch, stage):
    config = yaml.safe_load((ROOT / "gpt4roi_nb" / "train" / f"stage{stage}.yaml").read_text())
    assert config["stage"] == stage
    assert {entry["format"] for entry in config["data"]} == (
        {"coco", "refcoco"} if stage == 1 else {"refcoco", "flickr30k", "visual_genome", "vcr", "llava"}
    )
    write_world(tmp_path / "data", 6, seed=1, workers=1, progress=False)
    tiny_gpt4roi(seed=1).save_pretrained(tmp_path / "tiny")
    small = {"max_steps": 1, "max_length": 4096, "workers": 0, "progress": False, "report_to": "none"}
    places = {"checkpoint": "tiny", "data": [{**entry, "cache": "cache"} for entry in config["data"]]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, **places, **small}))
    monkeypatch.chdir(tmp_path)
    main(["config.yaml"])
    assert (tmp_path / config["output_dir"] / "model" / "model.safetensors").exists()


def test_two_data_sets_that_tell_one_source_are_read_each_from_its_folder(tmp_path):
    sets = {}
    for name in ("one", "two"):
        given = annotation_files.coco(tmp_path / name)
        sets[name] = load(given.format, given.annotations, given.images, cache=tmp_path / "cache")
    mixture = Mixture(sets, length=20)
    for position in range(20):
        image, record = mixture.read(position)
        located = mixture.located(position)
        assert Path(located.image).parts[-3] == mixture.place(position).name and Path(located.image).is_file()
        assert located.turns == record.turns and image.size == (annotation_files.WIDTH, annotation_files.HEIGHT)
    with pytest.raises(ValueError, match="'one' does not know where its images are"):
        Mixture({"one": [1, 2]}).located(0)


def test_each_of_several_processes_loads_what_its_launcher_can_place(monkeypatch):
    several, divided = {"WORLD_SIZE": "2"}, {"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true"}
    assert placement({}, None) == (None, None) and placement({}, "float16") == (None, "float16")
    assert placement(several, None) == ("cpu", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert placement(several, None) == ("cpu", "auto")  # 2 bytes per parameter that does not train, not 4
    assert placement(divided, None) == ("cpu", None)  # FSDP divides weights of one dtype, in which Adam can step
    assert placement(divided, "bfloat16") == ("cpu", "bfloat16")


@pytest.mark.slow
def test_two_launched_processes_train_as_one_does(tmp_path):
    """Over gloo on the CPU: a mixture of two sources, half of each batch in each process.

    By torchrun, which `accelerate launch` calls for several GPUs; on a CPU it starts a single process without MPI.
    """
    makers = (annotation_files.refcoco, annotation_files.llava)
    sets = [entry(make(tmp_path / make.__name__), tmp_path) for make in makers]
    tiny_gpt4roi(seed=1).save_pretrained(tmp_path / "tiny")
    config = {"checkpoint": str(tmp_path / "tiny"), "data": sets, **OPTIONS, "epochs": 4, "learning_rate": 1e-3}
    lines = {}
    for processes in (1, 2):
        output = tmp_path / f"out{processes}"
        file = tmp_path / f"{processes}.yaml"
        # With their own indexes, so that two processes build one at the same time.
        data = [{**each, "cache": str(tmp_path / f"cache{processes}")} for each in sets]
        whole = {**config, "data": data, "output_dir": str(output), "batch_size": 2 // processes}
        file.write_text(yaml.safe_dump(whole))
        if processes == 1:
            main([str(file)])  # here: a launcher and a process would import all that this one has
        else:
            launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
            done = subprocess.run(
                [*launcher, "-m", "gpt4roi_nb.train", str(file)],
                env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        state = json.loads((checkpoints(output)[-1] / "trainer_state.json").read_text())
        lines[processes] = [line for line in state["log_history"] if "loss" in line]
        assert (output / "model" / "model.safetensors").exists()
    assert len(lines[1]) == len(lines[2]) > 4
    for one, two in zip(lines[1], lines[2], strict=True):
        losses = {name: value for name, value in one.items() if name.startswith("loss")}
        assert {name: two[name] for name in losses} == pytest.approx(losses, rel=1e-4)
    assert {"loss/refcoco+", "loss/llava"} <= {name for line in lines[2] for name in line}


YAML = b"""output_dir: out
max_steps: 4
learning_rate: 1e-4
resume: true
begun: 2026-01-02
data:
  - {format: coco, annotations: a.json, weight: 2}
  - &more {format: llava, annotations: b.json}
  - *more
"""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: " + "[" * 5000 + "]" * 5000, "nests lists or mappings too deep"),
        ("a: " + "9" * 5000, "cannot be read as a YAML file"),
        ("begun: 2020-13-45", "cannot be read as a YAML file: month must be in 1..12"),
        ("a: !!bool maybe", "cannot be read as a YAML file: KeyError 'maybe'"),
        ("output_dir: x\ndata: 5", "data must be a list of entries with keywords of load, but is 5"),
    ],
    ids=["deep", "digits", "date", "tag", "data"],
)
def test_what_is_wrong_with_a_file_is_said(text, says, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(SystemExit):
        main([str(tmp_path / "config.yaml")])
    assert says in capsys.readouterr().err


def test_a_pipe_is_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "config.yaml")])
    assert "is a pipe" in capsys.readouterr().err


KINDS = (b"bool", b"int", b"float", b"timestamp", b"binary", b"set", b"omap", b"pairs", b"seq", b"map", b"null")
MARKS = (
    *(b"!!" + kind + b" " for kind in KINDS),
    *(b"*more ", b"&more ", b"<<: ", b"? ", b"- ", b"0x", b"0b", b"1:", b"!", b"%", b"| ", b"2020-13-45", b"[" * 3000),
)


def test_a_damaged_file(tmp_path):
    @cases
    def case(rng: random.Random) -> None:
        data = garbled(YAML, rng)
        for _ in range(rng.randrange(3)):  # what YAML alone gives a meaning
            at = rng.randrange(len(data) + 1)
            data = data[:at] + rng.choice(MARKS) + data[at:]
        (tmp_path / "config.yaml").write_bytes(data)
        with ends_well():
            read_config(tmp_path / "config.yaml")

    case()
