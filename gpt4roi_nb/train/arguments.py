"""The published settings of each stage, and what transformers' Trainer is told."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainingArguments

from gpt4roi_nb.arguments import whole_number
from gpt4roi_nb.train.parts import STAGES

MOST_SEED = 2**32 - 1  # NumPy's, which transformers' set_seed sets with the others


@dataclass(frozen=True)
class Stage:
    """The published settings of a stage (arXiv 2307.03601 and its code, commit 00273ad).

    batch_size: records per device.
    warmup_steps: a number of steps, or, if below 1, a share of all steps.
    """

    parts: tuple[str, ...]
    batch_size: int
    weight_decay: float
    warmup_steps: float


PUBLISHED = {
    1: Stage(STAGES[1], batch_size=1, weight_decay=0.01, warmup_steps=0.003),
    2: Stage(STAGES[2], batch_size=2, weight_decay=0.0, warmup_steps=3000),
}


class SingleDeviceArguments(TrainingArguments):
    """transformers' arguments, with one GPU per process.

    Its Trainer would copy the model to all GPUs that it sees and split each batch among them, which does not work for a
    batch with boxes; a launcher starts one process per GPU.
    """

    @property
    def n_gpu(self) -> int:
        return min(super().n_gpu, 1)


def arguments_for(output_dir: str | os.PathLike[str], **options: Any) -> TrainingArguments:
    """Make transformers' arguments, with the settings that this package's batches need.

    Raises:
        TypeError, ValueError: for a seed that is not a whole number, or that NumPy does not take.
    """
    if "seed" in options:
        options["seed"] = whole_number(options["seed"], "seed", least=0, most=MOST_SEED)
    return SingleDeviceArguments(
        output_dir=os.fspath(output_dir),
        remove_unused_columns=False,  # a batch is more than the model's arguments
        label_names=["labels"],
        **options,
    )


def training_arguments(
    output_dir: str | os.PathLike[str],
    numbers: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    bf16: bool,
    gradient_checkpointing: bool,
    progress: bool,
) -> TrainingArguments:
    """Make transformers' arguments from those of `train`.

    Args:
        output_dir: for checkpoints and logs.
        numbers: as `check_numbers` returns them.
        options: transformers' own, which `train` passes on.
        bf16, gradient_checkpointing, progress: of `train`.
    """
    return arguments_for(
        output_dir,
        learning_rate=numbers["learning_rate"],
        weight_decay=numbers["weight_decay"],
        warmup_steps=numbers["warmup_steps"],
        lr_scheduler_type="cosine",
        num_train_epochs=numbers["epochs"],
        max_steps=numbers["max_steps"],
        per_device_train_batch_size=numbers["batch_size"],
        gradient_accumulation_steps=numbers["gradient_accumulation_steps"],
        bf16=bf16,
        seed=numbers["seed"],
        save_steps=numbers["save_steps"],
        save_total_limit=numbers["keep"],
        logging_steps=numbers["logging_steps"],
        dataloader_num_workers=numbers["workers"],
        disable_tqdm=not progress,
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_nan_inf_filter=False,
        # transformers 5.17 and later versions all take this name; later ones warn about it, whatever its value.
        **({"gradient_checkpointing": True} if gradient_checkpointing else {}),
        **{"report_to": _loggers(), **options},
    )


def _loggers() -> str:
    """The Trainer's logger: TensorBoard if it is installed."""
    return "tensorboard" if importlib.util.find_spec("tensorboard") else "none"
