"""FSDP 2 in two processes: the weights are read once, and a killed training continues as if nothing had happened."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import annotation_files
import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from learnable import OPTIONS, entry
from safetensors.torch import load_file
from tiny import tiny_gpt4roi

from gpt4roi_nb.train.__main__ import main
from gpt4roi_nb.train.sharding import is_sharded, reads_weights
from gpt4roi_nb.train.trainer import checkpoints, read_history

HERE = Path(__file__).resolve().parent
SHIPPED = HERE.parents[1] / "gpt4roi_nb" / "train" / "fsdp.yaml"


def shipped_environment() -> dict[str, str]:
    """What `accelerate launch --config_file fsdp.yaml` sets for its processes, on CPUs and in float32."""
    launch = ["--config_file", str(SHIPPED), "--num_processes", "2", "-m", "gpt4roi_nb.train", "config.yaml"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(launch))
    whole = prepare_multi_gpu_env(arguments)
    return {**whole, "ACCELERATE_USE_CPU": "true", "ACCELERATE_MIXED_PRECISION": "no", "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def losses(output: Path) -> list[dict[str, float]]:
    lines = read_history(checkpoints(output)[-1])
    return [{name: value for name, value in line.items() if name.startswith("loss")} for line in lines]


def test_fsdp_is_asked_for_in_the_words_of_accelerate():
    asked = {"ACCELERATE_USE_FSDP": "True", "RANK": "1"}
    assert is_sharded(asked) and not is_sharded({})
    assert not any(is_sharded({"ACCELERATE_USE_FSDP": word}) for word in ("", "0", "no", "False"))
    for word in ("1", "yes", "on"):
        assert not reads_weights({**asked, "FSDP_CPU_RAM_EFFICIENT_LOADING": word})
        with pytest.raises(ValueError, match=f"ACCELERATE_USE_FSDP is '{word}', .* set it to true"):
            is_sharded({"ACCELERATE_USE_FSDP": word})
    assert reads_weights(asked) and reads_weights({**asked, "FSDP_CPU_RAM_EFFICIENT_LOADING": "0"})


@pytest.mark.slow
def test_a_sharded_training_reads_its_weights_once_and_goes_on_after_a_kill(tmp_path):
    """accelerate's FSDP 2 as the shipped file sets it up, over gloo on CPUs. The second process has no weights file."""
    tiny_gpt4roi(seed=1).save_pretrained(tmp_path / "tiny")
    shutil.copytree(tmp_path / "tiny", tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    makers = (annotation_files.refcoco, annotation_files.llava)
    options = {
        **OPTIONS,
        "data": [entry(make(tmp_path / make.__name__), tmp_path / "cache") for make in makers],
        "batch_size": 1,
        "epochs": 3,
        "learning_rate": 1e-3,
        "save_steps": 2,
        "keep": 1,
    }
    runs = []
    for name, kill in (("whole", None), ("out", 4), ("out", None)):
        configs = []
        for checkpoint in ("tiny", "bare"):
            configs.append(str(tmp_path / f"{name}.{checkpoint}.yaml"))
            places = {"checkpoint": str(tmp_path / checkpoint), "output_dir": str(tmp_path / name)}
            Path(configs[-1]).write_text(yaml.safe_dump({**options, **places}))
        runs.append({"configs": configs, "port": free_port(), "kill": kill})
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    command = [sys.executable, str(HERE / "sharded.py"), str(tmp_path), str(tmp_path / "tiny")]
    done = subprocess.run(command, env=shipped_environment(), capture_output=True, text=True, check=False)
    said = re.split(r"run \d\n", done.stdout)[1:]
    assert "ended [0, 0]" in said[0], done.stderr
    assert "ended [-9" in said[1], done.stderr
    assert "ended [0, 0]" in said[2], done.stderr

    first, second = (json.loads((tmp_path / f"seen{rank}.json").read_text()) for rank in range(2))
    assert first["meta before"] == 0 and second["meta before"] == second["weights"] > 50
    for seen in (first, second):
        assert seen["meta after"] == 0 and seen["divided"] and seen["as in the file"]
        assert seen["own numbers"] == pytest.approx(seen["numbers"] / 2, rel=0.05)

    assert "continuing from" not in said[0] + said[1] and "checkpoint-2" in said[2]
    assert len(losses(tmp_path / "whole")) == 6
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")
    ours, theirs = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("out", "whole"))
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in theirs)
    # What trains and the optimizer's state, as is counted before the first step, and not the whole model beside them.
    (kept,) = checkpoints(tmp_path / "out")
    trained = sum(weight.numel() for weight in load_file(kept / "trained.safetensors").values())
    assert sum(file.stat().st_size for file in kept.iterdir()) == pytest.approx(12 * trained, rel=0.1)
    alone = {**options, "batch_size": 2, "checkpoint": str(tmp_path / "tiny"), "output_dir": str(tmp_path / "alone")}
    (tmp_path / "alone.yaml").write_text(yaml.safe_dump(alone))
    main([str(tmp_path / "alone.yaml")])
    for divided, whole in zip(losses(tmp_path / "whole"), losses(tmp_path / "alone"), strict=True):
        assert divided == pytest.approx(whole, rel=1e-4)
