"""Data as the Trainer reads it: by position, with the words of the present epoch; and the pictures of all of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from gpt4roi_nb.data.collate import Collator
from gpt4roi_nb.data.mixture import Mixture
from gpt4roi_nb.data.problems import BadRecord
from gpt4roi_nb.data.record import Record
from gpt4roi_nb.train.tower_cache import TowerCache, cache_for, fill
from gpt4roi_nb.train.trainer import RegionTrainer

if TYPE_CHECKING:
    from gpt4roi_nb.session.gpt4roi import GPT4RoI

logger = logging.getLogger(__name__)
SAMPLED = 16  # records that are looked at before training begins


class Epochs(Dataset[Record]):
    """Records by number. Data that word a record anew each epoch (`record(number, epoch)`) are asked to.

    The epoch is the collator's, which loaders' workers share. located: ask the data for their pictures' whole paths.
    """

    def __init__(self, data: Any, collator: Collator, *, located: bool = False) -> None:
        self.data = data
        self.collator = collator
        self.located = located

    def __len__(self) -> int:
        return len(self.data)

    def order(self) -> dict[str, Any]:
        """What decides which record stands where."""
        state = self.data.state_dict() if isinstance(self.data, Mixture) else {}
        return {"records": len(self), **{name: value for name, value in state.items() if name != "position"}}

    def __getitem__(self, number: int) -> Record:
        if self.located:
            located: Record = self.data.located(number, self.collator.epoch)
            return located
        if hasattr(self.data, "record"):
            record: Record = self.data.record(number, self.collator.epoch)
        else:
            record = self.data[number]
        return record


def check_readable(reader: Epochs) -> None:
    """Raises ValueError if none of some records can be used, as with a wrong folder: training would learn nothing."""
    collator = reader.collator
    numbers = sorted({round(k * (len(reader) - 1) / (SAMPLED - 1)) for k in range(SAMPLED)})
    trial = Collator(collator.processor, collator.images, collator.max_length)
    first: BadRecord | None = None
    for number in numbers:
        try:
            trial.example(reader[number])
        except BadRecord as bad:
            first = first or bad
        else:
            return
    raise ValueError(f"none of {len(numbers)} records, drawn evenly from all, can be used; the first: {first}")


def pictures(reader: Epochs, epochs: int) -> Iterator[Path]:
    """The pictures of all records of so many epochs, any of them more than once."""
    before = reader.collator.epoch
    try:
        for epoch in range(epochs):
            reader.collator.epoch = epoch
            for number in range(len(reader)):
                yield reader.collator.path_of(reader[number])
    finally:
        reader.collator.epoch = before


def keep_tower_states(
    trainer: RegionTrainer, gpt4roi: GPT4RoI, reader: Epochs, folder: Path, progress: bool
) -> TowerCache:
    """A cache of the tower's hidden states of all pictures of a training, as training would compute them."""
    arguments, accelerator = trainer.args, trainer.accelerator
    dtype = next(gpt4roi.model.vision_tower.parameters()).dtype
    if dtype == torch.float32:  # half precision is left as it is by autocast
        dtype = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else dtype
    pixels = gpt4roi.processor.image_processor
    cache = cache_for(folder, gpt4roi.model, pixels, dtype)
    steps_an_epoch = max(1, len(trainer.get_train_dataloader()) // arguments.gradient_accumulation_steps)
    epochs = arguments.max_steps / steps_an_epoch if arguments.max_steps > 0 else arguments.num_train_epochs
    gpt4roi.model.eval()
    fill(
        cache,
        gpt4roi.model,
        pixels,
        pictures(reader, math.ceil(epochs)),
        say=print if accelerator.is_main_process else logger.debug,
        compute=accelerator.autocast,
        workers=arguments.dataloader_num_workers,
        progress=progress and accelerator.is_main_process,
        part=accelerator.process_index,
        parts=accelerator.num_processes,
    )
    accelerator.wait_for_everyone()
    return cache
