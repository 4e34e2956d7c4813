"""A training from a file, sharded over processes on CPUs, although accelerate only shards over GPUs.

`sharded.py FOLDER CHECKPOINT` runs the trainings in FOLDER/runs.json, one after the other: a file per process, a port
for them to meet, and the step during whose checkpoint the process is killed, or null. Process N writes what it saw of
its weights, which are those of CHECKPOINT, to FOLDER/seenN.json. Everything but accelerate's choice to shard is as
shipped.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
from accelerate import state
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from gpt4roi_nb.train import sharding, trainer
from gpt4roi_nb.train.__main__ import main

_begin = state.AcceleratorState.__init__


def begin_sharded(self, *args, fsdp_plugin=None, **kwargs) -> None:
    """As accelerate does for GPUs."""
    _begin(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        state.PartialState._shared_state["distributed_type"] = self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin


def observed(seen: Path, stored: dict[str, torch.Tensor]):
    """`divide`, and record its input and its result."""

    def divide(accelerator, model) -> None:
        before = [weight.is_meta for weight in model.parameters()]
        sharding.divide(accelerator, model)
        weights = dict(model.named_parameters())
        line = {
            "meta before": sum(before),
            "meta after": sum(weight.is_meta for weight in weights.values()),
            "weights": len(before),
            "divided": all(isinstance(weight, DTensor) for weight in weights.values()),
            "own numbers": sum(weight.to_local().numel() for weight in weights.values()),
            "numbers": sum(weight.numel() for weight in weights.values()),
            "as in the file": set(weights) == set(stored)
            and all(weight.full_tensor().equal(stored[name]) for name, weight in weights.items()),
        }
        seen.write_text(json.dumps(line))

    return divide


def killed_at(step: int):
    """`RegionTrainer._save`, in which the process is killed while a checkpoint is being written."""
    save = trainer.RegionTrainer._save

    def _save(self, output_dir=None, state_dict=None) -> None:
        if self.state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, output_dir, state_dict)

    return _save


def start(rank: int, config: Path, environment: dict[str, str], seen: Path, checkpoint: Path, kill: int | None) -> int:
    """Start a process that has already imported everything that this one has; returns its id."""
    child = os.fork()
    if child:
        return child
    os.environ.update({**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)})
    trainer.divide = observed(seen, load_file(checkpoint / "model.safetensors"))
    if kill is not None:
        trainer.RegionTrainer._save = killed_at(kill)
    code = 1
    try:
        main([str(config)])
        code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def finish(children: list[int]) -> list[int]:
    """Exit codes in the order in which the processes end; as in torchrun, the first failure ends the others."""
    codes = []
    while children:
        child, status = os.wait()
        children.remove(child)
        codes.append(os.waitstatus_to_exitcode(status))
        if codes[-1] != 0:
            for other in children:
                os.kill(other, signal.SIGKILL)
    return codes


if __name__ == "__main__":
    folder, checkpoint = map(Path, sys.argv[1:])
    state.AcceleratorState.__init__ = begin_sharded
    for number, run in enumerate(json.loads((folder / "runs.json").read_text())):
        several = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(run["port"])}
        print(f"run {number}", flush=True)
        children = [
            start(rank, Path(config), several, folder / f"seen{rank}.json", checkpoint, run["kill"])
            for rank, config in enumerate(run["configs"])
        ]
        print(f"ended {finish(children)}", flush=True)
