"""Ask a model of `load_model` the questions of a benchmark: through its own way to present a box, in batches."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image

from gpt4roi_nb.data.problems import BadRecord
from gpt4roi_nb.evaluate.answered import Answered, checked_item_boxes, likeliest_option
from gpt4roi_nb.evaluate.benchmarks.item import Item, Prediction
from gpt4roi_nb.evaluate.predict import LoadedImage, Outcome
from gpt4roi_nb.images import load_image
from gpt4roi_nb.models.families import check_askable
from gpt4roi_nb.models.images import SessionImages
from gpt4roi_nb.models.memory import SESSION_TOKENS, prompted_work_bytes
from gpt4roi_nb.models.prompted_model import PromptedModel
from gpt4roi_nb.session.conversation import mean_logprob
from gpt4roi_nb.session.region_model import Question

TOKENISED = 4  # the questions with the most characters are prepared with their images to find the longest prompt
OPTIONS_AT_A_TIME = 16
CANNOT_TAKE = "question that the model cannot take"


@dataclass(frozen=True)
class _Asked:
    """An item that can be asked, with its question and its image."""

    item: Item
    question: Question
    image: LoadedImage


class CannotBeAskedError(ValueError):
    """A benchmark asks for more than a model can do with boxes presented in its way."""


def check_capabilities(model: PromptedModel, name: str, items: Sequence[Item], scorer: str) -> None:
    """Check that a model can be asked a benchmark's questions, before any is asked.

    Questions that are too much for one image alone, such as ten regions for nine colours, are left out and counted
    later.

    Args:
        model: the model.
        name: of the benchmark.
        items: its questions.
        scorer: "generate" or "likelihood".

    Raises:
        CannotBeAskedError: the model lacks a capability that a question needs; the message quotes the question.
    """
    can = model.capabilities
    refused = f"{name} cannot be asked of {model.model_type} with regions={model.way!r}: "
    if scorer == "likelihood" and not can.likelihood:
        raise CannotBeAskedError(f"{refused}it gives no likelihoods; take scorer='generate'")
    if can.free_question and can.several_regions:
        return
    failing: list[tuple[Item, ValueError]] = []
    for item in items:
        try:
            check_askable(item.question, len(item.boxes), model.way, model.model_type)
        except ValueError as error:
            failing.append((item, error))
    if failing:
        item, why = failing[0]
        raise CannotBeAskedError(
            f"{refused}{len(failing):,} of {len(items):,} questions are too much for it, such as {item.id!r}: {why}"
        )


class PromptedPredictor:
    """Answers items with a model of `load_model`.

    Args:
        model: the model.
        scorer: "generate" writes an answer greedily; "likelihood" chooses the option that is likeliest as the whole
            answer.
        batch_size: questions per batch; may be lowered between batches.
        max_new_tokens: maximum length of an answer.
    """

    def __init__(self, model: PromptedModel, scorer: str, batch_size: int, max_new_tokens: int) -> None:
        self.model = copy.copy(model)
        self.model.pen = replace(model.pen, warns=False)  # the card counts the boxes that a line covers
        self.scorer = scorer
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens

    def prepare(self, image: Image.Image) -> Image.Image:
        """Return what `LoadedImage` holds of an image: the image, since a way may draw on it or cut it."""
        return image

    def batches(self, items: Sequence[Item]) -> list[list[Item]]:
        """Cut the items into batches in their order, in which questions about the same image follow one another."""
        return [list(items[first : first + self.batch_size]) for first in range(0, len(items), self.batch_size)]

    def answer(
        self, batches: Sequence[Sequence[Item]], images: dict[str, LoadedImage | BadRecord]
    ) -> Iterator[list[Outcome]]:
        """Yield the outcomes of each batch, one per item.

        Args:
            batches: items.
            images: all of their images by path; a `BadRecord` stands for one that cannot be read.
        """
        shared = self.model.images()  # each image of these batches is encoded once
        for batch in batches:
            started = time.perf_counter()
            bad: dict[str, BadRecord] = {}
            asked: list[_Asked] = []
            for item in batch:
                image = images[item.image]
                if isinstance(image, BadRecord):
                    bad[item.id] = image
                    continue
                try:
                    question = Question(image.prepared, item.question, checked_item_boxes(item, image.size))
                    asked.append(_Asked(item, question, image))
                except (ValueError, TypeError) as error:
                    bad[item.id] = _cannot(error)
            answered = (self._choose if self.scorer == "likelihood" else self._write)(asked, shared)
            seconds = (time.perf_counter() - started) / max(1, len(asked))
            outcomes: dict[str, Outcome] = {name: (name, why) for name, why in bad.items()}
            for one, answer in zip(asked, answered, strict=True):
                name = one.item.id
                if isinstance(answer, BadRecord):
                    outcomes[name] = name, answer
                else:
                    outcomes[name] = Prediction(name, *answer, seconds, *one.image.size, one.image.stamp)
            yield [outcomes[item.id] for item in batch]

    def _write(self, asked: Sequence[_Asked], shared: SessionImages) -> list[Answered | BadRecord]:
        if not asked:
            return []
        try:
            answers = self.model.answers(
                [one.question for one in asked],
                max_new_tokens=self.max_new_tokens,
                batch_size=max(1, self.batch_size),
                images=shared,
            )
        except ValueError as error:
            if len(asked) == 1:
                return [_cannot(error)]
            return [one for each in asked for one in self._write([each], shared)]  # all but those that cannot be asked
        return [(self.model.without_boxes(one.text), mean_logprob(one.logprobs), None) for one in answers]

    def _choose(self, asked: Sequence[_Asked], shared: SessionImages) -> list[Answered | BadRecord]:
        found: list[Answered | BadRecord] = []
        for item, question in ((one.item, one.question) for one in asked):
            try:
                if len(set(item.options)) < max(2, len(item.options)):
                    raise ValueError(f"its options must be two or more that differ, but are {list(item.options)!r}")
                likely = self.model.likelihoods(
                    question.image,
                    question.text,
                    question.boxes,
                    item.options,
                    batch_size=OPTIONS_AT_A_TIME,
                    images=shared,
                )
            except ValueError as error:
                found.append(_cannot(error))
                continue
            found.append(likeliest_option(item.options, torch.tensor(likely, dtype=torch.float64)))
        return found


class PromptedCost:
    """The memory, beside the weights, of a batch of questions to a model of `load_model`.

    Call it with a batch size; it returns bytes. The longest prompt is that of a sample of questions: how many tokens an
    image takes is known once it is prepared.
    """

    def __init__(self, model: PromptedModel, items: Sequence[Item], scorer: str, max_new_tokens: int) -> None:
        self._model = model.model
        self._likely = scorer == "likelihood"
        sample = sorted(items, key=lambda item: len(item.question) + sum(map(len, item.options)), reverse=True)
        lengths = [length for item in sample[:TOKENISED] if (length := self._length(model, item, max_new_tokens))]
        # If none of these can be asked, what a session assumes.
        self._prompt, self._written, self._options, _ = max(lengths, default=(SESSION_TOKENS, max_new_tokens, 1, 0))
        self._pixels = max((pixels for *_, pixels in lengths), default=0)
        self._context = model.context_length

    def __call__(self, questions: int) -> int:
        """Return bytes for this many questions per batch. Likelihoods are computed question by question."""
        return prompted_work_bytes(
            self._model,
            rows=min(self._options, OPTIONS_AT_A_TIME) if self._likely else questions,
            tokens=min(self._prompt + self._written, max(self._context, self._prompt)),
            logits=self._written if self._likely else 1,
            pixels=self._pixels,
        )

    def _length(self, model: PromptedModel, item: Item, max_new_tokens: int) -> tuple[int, int, int, int] | None:
        """Tokens of a prompt and of what is written or scored after it, options, pixels; None if it cannot be asked."""
        images = model.images()
        try:
            whole = load_image(item.image)
            text, regions = model.checked(whole, item.question, checked_item_boxes(item, whole.size))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the card counts the boxes that a line covers
                prompt = len(model.prompt(images, whole, [("user", text)], regions).input_ids)
                pixels = sum(shown.width * shown.height for shown in model.point(images, whole, regions).images)
        except (ValueError, TypeError, OSError):  # the run counts it when it comes to it
            return None
        ids = model.processor.tokenizer
        scored = max(
            (len(ids(option, add_special_tokens=False)["input_ids"]) + 1 for option in item.options), default=1
        )
        return prompt, scored if self._likely else max_new_tokens, len(item.options), pixels


def _cannot(error: Exception) -> BadRecord:
    return BadRecord(CANNOT_TAKE, f"it cannot be asked: {error}")
