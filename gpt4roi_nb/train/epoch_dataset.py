"""Data as the Trainer reads them: by index, with the wording of the current epoch; and the paths of their images."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from gpt4roi_nb.data.collate import Collator
from gpt4roi_nb.data.mixture import Mixture
from gpt4roi_nb.data.problems import BadRecord
from gpt4roi_nb.data.record import Record
from gpt4roi_nb.train.tower_cache import TowerCache, cache_for, fill
from gpt4roi_nb.train.trainer import RegionTrainer

logger = logging.getLogger(__name__)
SAMPLED = 16  # records that are read before training begins


class EpochDataset(Dataset[Record]):
    """Records by index; data that word a record differently each epoch do so through `record(number, epoch)`.

    The epoch is the collator's, which the loader's workers share.

    Args:
        data: `Record`s by index, with a length.
        collator: turns records into batches.
        located: ask the data for records with whole image paths.
    """

    def __init__(self, data: Any, collator: Collator, *, located: bool = False) -> None:
        self.data = data
        self.collator = collator
        self.located = located

    def __len__(self) -> int:
        return len(self.data)

    def order(self) -> dict[str, Any]:
        """Everything that determines the order of the records."""
        state = self.data.state_dict() if isinstance(self.data, Mixture) else {}
        return {"records": len(self), **{name: value for name, value in state.items() if name != "position"}}

    def __getitem__(self, number: int) -> Record:
        if self.located:
            record: Record = self.data.located(number, self.collator.epoch)
        elif hasattr(self.data, "record"):
            record = self.data.record(number, self.collator.epoch)
        else:
            record = self.data[number]
        return record

    def check_readable(self) -> int:
        """Read a few records, evenly spaced.

        Returns:
            The number of tokens of the longest.

        Raises:
            ValueError: none of them can be used, for example because the folder is wrong: training would learn nothing.
        """
        numbers = sorted({round(k * (len(self) - 1) / (SAMPLED - 1)) for k in range(SAMPLED)})
        collator = self.collator
        trial = Collator(collator.processor, collator.images, collator.max_length, also=collator.also)
        first: BadRecord | None = None
        longest, sources = 0, set[str]()
        for number in numbers:
            try:
                record = self[number]
                sources.add(record.source)
                example = trial.example(record)
            except BadRecord as bad:
                first = first or bad
            else:
                longest = max(longest, 0 if example is None else len(example.prompt.input_ids))
        if isinstance(collator.augment, dict) and (absent := sorted(collator.augment.keys() - sources)):
            logger.warning(
                "augment names %s, but none of %d evenly spaced records is of that source; they are of %s",
                ", ".join(absent),
                len(numbers),
                ", ".join(sorted(sources)),
            )
        if longest:
            return longest
        raise ValueError(f"none of {len(numbers)} evenly spaced records can be used; the first: {first}")

    def image_paths(self, epochs: int) -> Iterator[Path]:
        """Paths of the images that are not augmented, of all records of so many epochs.

        A path may come more than once. Images outside their folder are left out.
        """
        before = self.collator.epoch
        try:
            for epoch in range(epochs):
                self.collator.epoch = epoch
                for number in range(len(self)):
                    record = self[number]
                    if self.collator.variant_of(record) is None:
                        with suppress(BadRecord):  # training reports it
                            yield self.collator.path_of(record)
        finally:
            self.collator.epoch = before


def cache_tower_states(trainer: RegionTrainer, dataset: EpochDataset, folder: Path, progress: bool) -> TowerCache:
    """Fill a cache with the tower's hidden states for all images of a training, as training would compute them."""
    arguments, accelerator, loaded = trainer.args, trainer.accelerator, trainer.loaded
    dtype = next(loaded.model.vision_tower.parameters()).dtype
    if dtype == torch.float32:  # autocast leaves half precision as it is
        dtype = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else dtype
    cache = cache_for(folder, loaded, dtype)
    steps_per_epoch = max(1, len(trainer.get_train_dataloader()) // arguments.gradient_accumulation_steps)
    epochs = arguments.max_steps / steps_per_epoch if arguments.max_steps > 0 else arguments.num_train_epochs
    fill(
        cache,
        loaded,
        dataset.image_paths(math.ceil(epochs)),
        report=print if accelerator.is_main_process else logger.debug,
        autocast=accelerator.autocast,
        workers=arguments.dataloader_num_workers,
        progress=progress and accelerator.is_main_process,
        process_index=accelerator.process_index,
        num_processes=accelerator.num_processes,
    )
    accelerator.wait_for_everyone()
    return cache
