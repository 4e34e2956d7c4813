"""Training with weights divided among processes (FSDP 2): they are read once, divided, and written once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, init_empty_weights
from accelerate.utils import broadcast_object_list, str_to_bool
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.tensor import DTensor

from gpt4roi_nb.checkpoint import DEMO_CHECKPOINT
from gpt4roi_nb.checkpoint.check import PROCESSOR_FILES, check_small_files, check_stored
from gpt4roi_nb.checkpoint.hub import locate
from gpt4roi_nb.checkpoint.load import load_processor
from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.session.gpt4roi import GPT4RoI


def is_sharded(environment: Mapping[str, str]) -> bool:
    """Whether a launcher asks for FSDP, by the environment variable that `accelerate launch` sets.

    Raises:
        ValueError: the variable has another value, such as 1. transformers accepts it, but accelerate, which divides
            the weights, does not: the training would not be divided.
    """
    asked = environment.get("ACCELERATE_USE_FSDP") or "false"
    if asked.lower() == "true":
        return True
    if str_to_bool(asked):
        raise ValueError(
            f"ACCELERATE_USE_FSDP is {asked!r}, with which accelerate does not divide the weights; set it to true, or "
            "start with accelerate launch --config_file (docs/training.md)"
        )
    return False


def reads_weights(environment: Mapping[str, str]) -> bool:
    """Whether this process reads the checkpoint's weights; False if it gets its share from the first process."""
    efficient = str_to_bool(environment.get("FSDP_CPU_RAM_EFFICIENT_LOADING") or "false")
    return not (is_sharded(environment) and efficient and int(environment.get("RANK", "0")) > 0)


def without_weights(checkpoint: str | os.PathLike[str] | None) -> GPT4RoI:
    """Make a checkpoint's model with parameters that have shapes but no values; only its small files are read.

    Buffers that are in no checkpoint, such as the frequencies of rotary embeddings, do have values, since `divide`
    would not bring them.

    Args:
        checkpoint: a folder or a hub id; None is the demo checkpoint.

    Returns:
        A model that can be divided; before that, it cannot compute anything.

    Raises:
        FileNotFoundError: there is no such checkpoint, or it lacks a file.
        ValueError: a file is damaged, or of another model.
    """
    source = locate(DEMO_CHECKPOINT if checkpoint is None else checkpoint, "checkpoint")
    config = GPT4RoIConfig.from_file(check_small_files(source.folder), source.name)
    check_stored(source.name, config, {}, quantised=False)
    with init_empty_weights(include_buffers=False):
        model = GPT4RoIForConditionalGeneration(config)
    processor = load_processor(GPT4RoIProcessor.from_pretrained, source, tuple(PROCESSOR_FILES))
    return GPT4RoI(model, processor, source.name)


def divide(accelerator: Accelerator, model: nn.Module) -> None:
    """Divide a model's parameters among the processes, in place.

    Call it before the optimizer is made: accelerate finds the divided parameters of an optimizer by their addresses,
    and parameters without values have none.

    Args:
        accelerator: of the Trainer.
        model: with its weights in the first process; in the others with them, or from `without_weights`.

    Raises:
        ValueError: the processes have models of different shapes.
    """
    shapes = [{name: (tuple(weight.shape), weight.dtype) for name, weight in model.named_parameters()}]
    own = shapes[0]
    first = broadcast_object_list(shapes)[0]
    differing = sorted(
        name for name in own.keys() | first.keys() if own.get(name, ((),))[0] != first.get(name, ((),))[0]
    )
    if differing:
        raise ValueError(
            f"the processes do not train the same model: {len(differing)} weights have another shape here than in the "
            f"first process, first {differing[0]}; give each process the same checkpoint"
        )
    for name, weight in model.named_parameters():
        weight.data = weight.data.to(first[name][1])
    fsdp2_prepare_model(accelerator, model)


def load_trained(model: nn.Module, file: Path) -> None:
    """Load trained weights into a divided model; the first process reads them, and gives each process its share."""
    rank = torch.distributed.get_rank()
    whole: dict[str, Any] = dict(load_file(file)) if rank == 0 else {}
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
    set_model_state_dict(model, whole, options=options)


def stored_names(file: Path) -> set[str]:
    """Names of the tensors in a file, without reading them."""
    with safe_open(file, framework="pt") as opened:
        return set(opened.keys())


def own_share(weight: Tensor) -> Tensor:
    """Return the part of a sharded weight that this process holds; a whole weight is returned as it is."""
    return weight.to_local() if isinstance(weight, DTensor) else weight
