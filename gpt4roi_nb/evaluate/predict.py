"""Ask a model questions about images, and compute what they share only once.

Each image is encoded once for all its questions. The opening that all prompts share, image tokens included, is read
once per image, and every question reuses its keys and values. Questions of similar length are answered in one batch,
padded on the left. All options of a question cost one prompt, since they differ only at its end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from gpt4roi_nb.boxes import normalise
from gpt4roi_nb.data.problems import WRONG_TYPE, BadRecord
from gpt4roi_nb.evaluate.answered import Answered, checked_item_boxes, likeliest_option
from gpt4roi_nb.evaluate.benchmarks.item import Item, Prediction
from gpt4roi_nb.inference.shared_opening import PromptBatch, SharedOpening
from gpt4roi_nb.prompt import Prompt, check_references
from gpt4roi_nb.session.conversation import mean_logprob
from gpt4roi_nb.session.gpt4roi import GPT4RoI
from gpt4roi_nb.session.options import choice

TOO_LONG = "prompt longer than the model's context"


@dataclass(frozen=True)
class LoadedImage:
    """An image that was read from its file.

    Attributes:
        prepared: what the predictor's `prepare` made of it.
        size: (width, height) of the upright original in pixels.
        stamp: changes when the file changes.
    """

    prepared: Any
    size: tuple[int, int]
    stamp: str = ""


@dataclass(frozen=True)
class _Question:
    """An item that can be asked.

    Attributes:
        image: row in the encoding.
        boxes: (n, 4) in [0, 1], in the order of the prompt's `<bbox>`.
    """

    item: Item
    image: int
    prompt: Prompt
    boxes: Tensor
    continuations: tuple[tuple[int, ...], ...]


Outcome = Prediction | tuple[str, BadRecord]  # the tuple: id of an item that cannot be asked, and why


class Predictor(Protocol):
    """Answers items with a model. batch_size: questions per batch; may be lowered between batches."""

    batch_size: int

    def prepare(self, image: Image.Image) -> Any:
        """Return what `LoadedImage` holds of an image; called in a thread that reads ahead."""

    def batches(self, items: Sequence[Item]) -> list[list[Item]]:
        """Sort the items into batches; deterministic in the items and the batch size."""

    def answer(
        self, batches: Sequence[Sequence[Item]], images: dict[str, LoadedImage | BadRecord]
    ) -> Iterator[list[Outcome]]:
        """Yield the outcomes of each batch, one per item."""


class BatchedPredictor:
    """Answers items with a GPT4RoI.

    Args:
        gpt4roi: the model.
        scorer: "generate" writes an answer greedily; "likelihood" chooses the likeliest of the item's options.
        batch_size: questions per batch; may be lowered between batches.
        max_new_tokens: maximum length of an answer.
    """

    def __init__(self, gpt4roi: GPT4RoI, scorer: str, batch_size: int, max_new_tokens: int) -> None:
        self.gpt4roi = gpt4roi
        self.scorer = scorer
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens

    def prepare(self, image: Image.Image) -> Tensor:
        """Return what `LoadedImage` holds: (3, S, S) float32, in pinned memory if the model is on a GPU."""
        pixel_values = self.gpt4roi.processor.image_processor.pixels(image)
        return pixel_values.pin_memory() if self.gpt4roi.device.type == "cuda" else pixel_values

    def batches(self, items: Sequence[Item]) -> list[list[Item]]:
        """Sort the items into batches of similar length; deterministic in the items and the batch size."""
        order = sorted(range(len(items)), key=lambda k: (len(items[k].question), k))
        return [
            [items[k] for k in order[first : first + self.batch_size]]
            for first in range(0, len(order), self.batch_size)
        ]

    @torch.inference_mode()
    def answer(
        self, batches: Sequence[Sequence[Item]], images: dict[str, LoadedImage | BadRecord]
    ) -> Iterator[list[Outcome]]:
        """Yield the outcomes of each batch, one per item.

        Args:
            batches: items; the images that they are about are encoded together.
            images: all of these images by path; a `BadRecord` stands for one that cannot be read.
        """
        about = dict.fromkeys(item.image for batch in batches for item in batch)
        read = {path: image for path in about if isinstance(image := images[path], LoadedImage)}
        rows = {path: row for row, path in enumerate(read)}
        started = time.perf_counter()
        shared = None
        if read:
            # From pinned memory, copies overlap.
            copies = [image.prepared.to(self.gpt4roi.device, non_blocking=True) for image in read.values()]
            pixel_values = torch.stack(copies)
            shared = SharedOpening(self.gpt4roi, pixel_values)
        shared_seconds = (time.perf_counter() - started) / max(1, sum(map(len, batches)))
        for batch in batches:
            started = time.perf_counter()
            outcomes: list[Outcome | None] = []
            questions: list[_Question] = []
            for item in batch:
                image = images[item.image]
                try:
                    if isinstance(image, BadRecord):
                        raise image
                    questions.append(self._question(item, rows[item.image], image.size))
                    outcomes.append(None)
                except BadRecord as bad:
                    outcomes.append((item.id, bad))
            answers: Iterator[Answered] = iter(())
            if questions and shared is not None:
                likely = self.scorer == "likelihood"
                answers = iter(self._choose(questions, shared) if likely else self._write(questions, shared))
            seconds = (time.perf_counter() - started) / max(1, len(questions)) + shared_seconds
            yield [
                Prediction(item.id, *next(answers), seconds, *read[item.image].size, read[item.image].stamp)
                if outcome is None
                else outcome
                for item, outcome in zip(batch, outcomes, strict=True)
            ]

    def _question(self, item: Item, row: int, size: tuple[int, int]) -> _Question:
        processor = self.gpt4roi.processor
        context = self.gpt4roi.context_length
        continuations: tuple[tuple[int, ...], ...] = ()
        room = 1
        try:
            if self.scorer == "likelihood":
                offered = choice(processor, item.question, item.options)
                prompt, continuations = offered.prompt, offered.continuations
                room = max(map(len, continuations))
            else:
                prompt = processor.prompt([("user", item.question)])
            checked = checked_item_boxes(item, size)
            check_references(prompt.regions, range(1, len(checked) + 1))
        except (ValueError, TypeError) as error:
            raise BadRecord(WRONG_TYPE, f"it cannot be asked: {error}") from error
        if len(prompt.input_ids) + room > context:
            raise BadRecord(TOO_LONG, f"it takes {len(prompt.input_ids)} tokens of {context}")
        boxes = torch.from_numpy(normalise(checked, *size))[[number - 1 for number in prompt.regions]]
        return _Question(item, row, prompt, boxes, continuations)

    def _read(self, questions: Sequence[_Question], shared: SharedOpening) -> PromptBatch:
        return shared.read(
            [question.prompt for question in questions],
            [question.image for question in questions],
            [question.boxes for question in questions],
        )

    def _write(self, questions: Sequence[_Question], shared: SharedOpening) -> list[Answered]:
        batch = self._read(questions, shared)
        room = min(
            self.max_new_tokens,
            self.gpt4roi.context_length - max(len(question.prompt.input_ids) for question in questions),
        )
        rows = shared.write(batch, room)
        return [(row.text, mean_logprob(row.logprobs[slice(*row.kept)]), None) for row in rows]

    def _choose(self, questions: Sequence[_Question], shared: SharedOpening) -> list[Answered]:
        score = shared.scorer(self._read(questions, shared))
        rests = [rest for question in questions for rest in question.continuations]
        owners = [row for row, question in enumerate(questions) for _ in question.continuations]
        # In batches of the same size, since keys and values are copied for each option.
        parts = [slice(start, start + self.batch_size) for start in range(0, len(rests), self.batch_size)]
        likely = torch.cat([score(rests[part], owners[part]) for part in parts])
        several = likely.split([len(question.continuations) for question in questions])
        return [likeliest_option(question.item.options, own) for question, own in zip(questions, several, strict=True)]
