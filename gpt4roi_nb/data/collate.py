"""Records to a batch that the model can be trained on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gpt4roi_nb.boxes import check_boxes, normalise
from gpt4roi_nb.data.record import Record
from gpt4roi_nb.images import load_image
from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.prompt import Prompt

ImageFolders = str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]


class Collator:
    """Batches records: pictures are opened here, in the loader's workers.

    Args:
        processor: of the model that is trained.
        images: the folder that the records' pictures are in; or a folder for each source.
        max_length: tokens. A longer conversation loses its last questions; one whose first question alone is longer is
            an error.

    Raises:
        ValueError: a source has no folder, or a record is too long (says which).
    """

    def __init__(self, processor: GPT4RoIProcessor, images: ImageFolders, max_length: int | None = None) -> None:
        self.processor = processor
        self.images = images
        self.max_length = max_length

    def __call__(self, records: Sequence[Record]) -> dict[str, Any]:
        """What the model takes, and whose it is.

        Returns:
            input_ids, attention_mask, labels: (B, T) int64, padded on the right. pixel_values: (B, 3, S, S) float32.
            boxes: a list of (n_i, 4) float32, xyxy in [0, 1]. ids, sources: lists of B strings.
        """
        pictures = [load_image(self.path_of(record)) for record in records]
        prompts = [self.prompt_of(record) for record in records]
        batch: dict[str, Any] = self.processor.pad(prompts, padding_side="right")
        batch["pixel_values"] = torch.stack([self.processor.image_processor.picture(picture) for picture in pictures])
        batch["boxes"] = [
            torch.from_numpy(normalise(check_boxes(record.boxes, *picture.size), *picture.size))[
                [number - 1 for number in prompt.regions]
            ]
            for prompt, record, picture in zip(prompts, records, pictures, strict=True)
        ]
        batch["ids"] = [record.id for record in records]
        batch["sources"] = [record.source for record in records]
        return batch

    def path_of(self, record: Record) -> Path:
        """Where a record's picture lies."""
        if not isinstance(self.images, Mapping):
            return Path(self.images) / record.image
        if record.source not in self.images:
            known = ", ".join(self.images)
            raise ValueError(f"there is no folder of images for the source {record.source!r}; there are {known}")
        return Path(self.images[record.source]) / record.image

    def prompt_of(self, record: Record) -> Prompt:
        """The conversation in tokens, without the last questions that would not fit."""
        turns = list(record.turns)
        prompt = self.processor.prompt(turns)
        while self.max_length is not None and len(prompt.input_ids) > self.max_length:
            if len(turns) <= 2:
                raise ValueError(
                    f"record {record.id!r} of {record.source} has {len(prompt.input_ids)} tokens in its first question "
                    f"and answer, but max_length is {self.max_length}; raise it, or leave the record out"
                )
            del turns[-2:]
            prompt = self.processor.prompt(turns)
        return prompt
