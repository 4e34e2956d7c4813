"""Turn records into a batch that the model can be trained on."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from gpt4roi_nb.boxes import BoxClippedWarning, check_boxes, normalise
from gpt4roi_nb.data.augmentation import AUGMENTATIONS
from gpt4roi_nb.data.image_files import Folder, linked_folders
from gpt4roi_nb.data.problems import NO_IMAGE, OUTSIDE, TOO_LONG, UNREADABLE_IMAGE, BadRecord, Problems, relative_path
from gpt4roi_nb.data.record import Record
from gpt4roi_nb.images import load_image
from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.prompt import IGNORE, Prompt

ImageFolders = str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]


class Kept(Protocol):
    """Hidden states of the vision tower that were kept, by image."""

    def get(self, image: Path, /) -> tuple[Tensor, tuple[int, int]] | None:
        """(L, grid², C), and the image's width and height; None if nothing was kept of the image as it is now."""


class Example(NamedTuple):
    """A record as the model takes it.

    boxes: (n, 4) float32, xyxy in [0, 1], one per `<bbox>` of the prompt. pixel_values: (3, S, S). tower_states:
    (L, grid², C). One of the last two is None.
    """

    prompt: Prompt
    boxes: Tensor
    pixel_values: Tensor | None = None
    tower_states: Tensor | None = None


class Collator:
    """Turn records into batches. It opens the images, in the loader's workers.

    Args:
        processor: of the model that is trained.
        images: the folder of the records' images, or one folder per source. Nothing outside of it is opened. None if
            records name their images by whole paths, as `located` gives them.
        max_length: most tokens of a conversation. A longer one loses its last questions; one whose first question and
            answer are longer cannot be used.
        also: one or several folders that links in `images` may lead to; links that lead elsewhere are not followed.
        problems: where unusable records are noted. Such a record keeps its row, without loss, so that the batch keeps
            its size. Without `problems`, the first unusable record raises BadRecord.
        augment: how images are mirrored and shifted by chance: one of `augmentation.AUGMENTATIONS` for all sources, or
            one per source that is named; None leaves images as they are.
        seed: of that chance.
        kept: hidden states of the tower, used instead of images if those of the whole batch are there. Sources that
            are augmented never use them.

    Raises:
        ValueError: a source has no folder; or `also` without `images`.
        FileNotFoundError, NotADirectoryError: `also` names something that is not a folder.
        BadRecord: a record cannot be used, and there are no `problems`, or they are strict.
    """

    def __init__(
        self,
        processor: GPT4RoIProcessor,
        images: ImageFolders | None,
        max_length: int | None = None,
        *,
        also: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
        problems: Problems | None = None,
        augment: str | Mapping[str, str] | None = None,
        seed: int = 0,
        kept: Kept | None = None,
    ) -> None:
        self.processor = processor
        self.images = images
        self.also = linked_folders(also)
        if self.also and images is None:
            raise ValueError(
                "also names folders that links in images lead to, but images is None; give images, or pass also to load"
            )
        self._folders: Folder | dict[str, Folder] | None
        if isinstance(images, Mapping):
            self._folders = {source: Folder(Path(folder), self.also) for source, folder in images.items()}
        else:
            self._folders = None if images is None else Folder(Path(images), self.also)
        self.max_length = max_length
        self.problems = Problems(strict=True) if problems is None else problems
        self.augment = augment
        self.seed = seed
        self.kept = kept
        # Shared memory, so that workers that outlive an epoch see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """With the seed, decides how images are mirrored and shifted."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __call__(self, records: Sequence[Record]) -> dict[str, Any]:
        """Collate records into what the model takes, with their ids and sources.

        Returns:
            input_ids, attention_mask, labels: (B, T) int64, padded on the right. pixel_values: (B, 3, S, S) float32; or
            tower_states: (B, L, grid², C). boxes: a list of B tensors (n_i, 4) float32, xyxy in [0, 1]. ids, sources:
            lists of B strings.
        """
        examples = [self.example(record) for record in records]
        some_kept = any(example is not None and example.tower_states is not None for example in examples)
        if some_kept and any(example is not None and example.tower_states is None for example in examples):
            examples = [self.example(record, from_kept=False) for record in records]  # the tower runs for all
        like = next((example for example in examples if example is not None), None)
        whole = [self._nothing(like) if example is None else example for example in examples]
        batch: dict[str, Any] = self.processor.pad([example.prompt for example in whole], padding_side="right")
        for name in ("pixel_values", "tower_states"):
            values = [getattr(example, name) for example in whole]
            if values[0] is not None:
                batch[name] = torch.stack(values)
        batch["boxes"] = [example.boxes for example in whole]
        batch["ids"] = [record.id for record in records]
        batch["sources"] = [record.source for record in records]
        return batch

    def example(self, record: Record, *, from_kept: bool = True) -> Example | None:
        """Return a record as the model takes it; None if it cannot be used, which is noted.

        Args:
            record: the record.
            from_kept: use the kept hidden states of the tower instead of the image, if they are there.
        """
        folder = self._folder_of(record)
        try:
            file = _file(folder, record)
            variant = self.variant_of(record)
            kept = self.kept.get(file) if self.kept is not None and from_kept and variant is None else None
            if kept is not None:
                states, size = kept
                return self._example(record, size, tower_states=states)
            image = _opened(file)
            if variant is not None:
                within = _within(record, image.size)
                image, record = AUGMENTATIONS[variant](image, within, self.seed, epoch=self.epoch)
            return self._example(record, image.size, self.processor.image_processor.pixels(image))
        except BadRecord as bad:
            self.problems.add(bad, f"{record.source}: record {record.id}, {record.image}")
            return None

    def variant_of(self, record: Record) -> str | None:
        """Return the variant by which a record's image is augmented; None if it is left as it is."""
        if self.augment is None or isinstance(self.augment, str):
            return self.augment
        return self.augment.get(record.source)

    def path_of(self, record: Record) -> Path:
        """Return the path of a record's image.

        Raises:
            ValueError: its source has no folder.
            BadRecord: its path leaves the folder.
        """
        return _file(self._folder_of(record), record)

    def _folder_of(self, record: Record) -> Folder | None:
        """The folder that a record's image must lie in; None if records name their images by whole paths."""
        if not isinstance(self._folders, dict):
            return self._folders
        if record.source not in self._folders:
            known = ", ".join(self._folders)
            raise ValueError(f"images names no folder for the source {record.source!r}; it names folders for {known}")
        return self._folders[record.source]

    def prompt_of(self, record: Record) -> Prompt:
        """Return the conversation in tokens, without the last questions that do not fit.

        Raises:
            BadRecord: its first question and answer alone are longer than `max_length`.
        """
        turns = list(record.turns)
        prompt = self.processor.prompt(turns)
        while self.max_length is not None and len(prompt.input_ids) > self.max_length:
            if len(turns) <= 2:
                raise BadRecord(
                    TOO_LONG,
                    f"its first question and answer have {len(prompt.input_ids)} tokens, but max_length is "
                    f"{self.max_length}; raise it, or leave the record out",
                )
            del turns[-2:]
            prompt = self.processor.prompt(turns)
        return prompt

    def _example(self, record: Record, size: tuple[int, int], *pixel_values: Tensor, **features: Tensor) -> Example:
        prompt = self.prompt_of(record)
        boxes = torch.from_numpy(normalise(_within(record, size).boxes, *size))
        return Example(prompt, boxes[[number - 1 for number in prompt.regions]], *pixel_values, **features)

    def _nothing(self, like: Example | None) -> Example:
        """A row without loss. It has a region, so that gradients reach every part that trains."""
        prompt = self.processor.prompt([("user", "<region1>"), ("assistant", "-")])
        without_loss = dataclasses.replace(prompt, labels=[IGNORE] * len(prompt.labels))
        box = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        if like is not None and like.tower_states is not None:
            return Example(without_loss, box, tower_states=torch.zeros_like(like.tower_states))
        side = self.processor.image_processor.image_size
        return Example(without_loss, box, torch.zeros(3, side, side))


def _file(folder: Folder | None, record: Record) -> Path:
    """The path of a record's image. Raises BadRecord if it leaves the folder."""
    if folder is None:
        return Path(record.image)
    return folder.file(relative_path(record.image, "image"))


def _opened(file: Path) -> Any:
    try:
        return load_image(file)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise BadRecord(NO_IMAGE, str(error)) from error
    except (OSError, ValueError) as error:
        raise BadRecord(UNREADABLE_IMAGE, str(error)) from error


def _within(record: Record, size: tuple[int, int]) -> Record:
    """The record with its boxes clipped to the image: some files do not give the sizes of images."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BoxClippedWarning)
            boxes = check_boxes(record.boxes, *size)
    except ValueError as error:
        raise BadRecord(OUTSIDE, str(error)) from error
    return dataclasses.replace(record, boxes=boxes)
