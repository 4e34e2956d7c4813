"""Asks a model the questions about some pictures: what is the same is computed once.

A picture is encoded once for all its questions. What all prompts begin with, the picture among it, is read once a
picture, and its keys and values are handed to every question. Questions of like length are answered together, padded on
the left. Options cost one prompt together, since they part only at its end.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache

from gpt4roi_nb.boxes import check_boxes, normalise
from gpt4roi_nb.data.problems import WRONG_TYPE, BadRecord
from gpt4roi_nb.evaluate.benchmarks.item import Item, Prediction
from gpt4roi_nb.evaluate.options import choice, padded
from gpt4roi_nb.inference.cache import gather, new_cache
from gpt4roi_nb.inference.decode import AnswerText, Sampling, decode, masked_positions
from gpt4roi_nb.model import ImageEncoding
from gpt4roi_nb.processor import check_references
from gpt4roi_nb.prompt import Prompt
from gpt4roi_nb.session.gpt4roi import GPT4RoI

TOO_LONG = "prompt longer than the model's context"
GREEDY = Sampling()


@dataclass(frozen=True)
class Picture:
    """A picture that was read. pixel_values: (3, S, S) float32; size: (width, height) of the upright original."""

    pixel_values: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class _Question:
    """An item that can be asked. picture: row in the encoding. boxes: (n, 4) in [0, 1], as the prompt's `<bbox>`."""

    item: Item
    picture: int
    prompt: Prompt
    boxes: Tensor
    continuations: tuple[tuple[int, ...], ...]


Outcome = Prediction | tuple[str, BadRecord]  # or the id of an item that cannot be asked, and why


class Asker:
    """Answers items with a model.

    scorer: "generate" writes an answer greedily; "likelihood" takes the likeliest of the item's options.
    batch_size: questions at a time. max_new_tokens: of an answer.
    """

    def __init__(self, gpt4roi: GPT4RoI, scorer: str, batch_size: int, max_new_tokens: int) -> None:
        self.gpt4roi = gpt4roi
        self.scorer = scorer
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self._pad = gpt4roi.processor.tokenizer.pad_token_id or 0

    def batches(self, items: Sequence[Item]) -> list[list[Item]]:
        """The items in batches of like length: the same for the same items, whatever was answered before."""
        order = sorted(range(len(items)), key=lambda k: (len(items[k].question), k))
        return [
            [items[k] for k in order[first : first + self.batch_size]]
            for first in range(0, len(order), self.batch_size)
        ]

    @torch.inference_mode()
    def answer(
        self, batches: Sequence[Sequence[Item]], pictures: dict[str, Picture | BadRecord]
    ) -> Iterator[list[Outcome]]:
        """What comes of each batch, an outcome an item. pictures: of all items, by path."""
        read = {path: picture for path, picture in pictures.items() if isinstance(picture, Picture)}
        rows = {path: row for row, path in enumerate(read)}
        started = time.perf_counter()
        shared = _Shared(self.gpt4roi, list(read.values())) if read else None
        shared_seconds = (time.perf_counter() - started) / max(1, sum(map(len, batches)))
        for batch in batches:
            started = time.perf_counter()
            outcomes: list[Outcome | None] = []
            questions: list[_Question] = []
            for item in batch:
                picture = pictures[item.image]
                try:
                    if isinstance(picture, BadRecord):
                        raise picture
                    questions.append(self._question(item, rows[item.image], picture.size))
                    outcomes.append(None)
                except BadRecord as bad:
                    outcomes.append((item.id, bad))
            answers: Iterator[tuple[str, float | None, tuple[float, ...] | None]] = iter(())
            if questions and shared is not None:
                likely = self.scorer == "likelihood"
                answers = iter(self._choose(questions, shared) if likely else self._write(questions, shared))
            seconds = (time.perf_counter() - started) / max(1, len(questions)) + shared_seconds
            sizes = {item.id: read[item.image].size for item in batch if item.image in read}
            yield [
                Prediction(item.id, *next(answers), seconds, *sizes[item.id]) if outcome is None else outcome
                for item, outcome in zip(batch, outcomes, strict=True)
            ]

    def _question(self, item: Item, row: int, size: tuple[int, int]) -> _Question:
        processor = self.gpt4roi.processor
        context = self.gpt4roi.model.config.text_config.max_position_embeddings
        continuations: tuple[tuple[int, ...], ...] = ()
        room = 1
        try:
            if self.scorer == "likelihood":
                offered = choice(processor, item.question, item.options)
                prompt, continuations = offered.prompt, offered.continuations
                room = max(map(len, continuations))
            else:
                prompt = processor.prompt([("user", item.question)])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # files hold boxes that stand out by a pixel
                checked = check_boxes(np.asarray(item.boxes, dtype=np.float64).reshape(-1, 4), *size)
            check_references(prompt.regions, range(1, len(checked) + 1))
        except (ValueError, TypeError) as error:
            raise BadRecord(WRONG_TYPE, f"it cannot be asked: {error}") from error
        if len(prompt.input_ids) + room > context:
            raise BadRecord(TOO_LONG, f"it takes {len(prompt.input_ids)} tokens of {context}")
        boxes = torch.from_numpy(normalise(checked, *size))[[number - 1 for number in prompt.regions]]
        return _Question(item, row, prompt, boxes, continuations)

    def _read(self, questions: Sequence[_Question], shared: _Shared) -> tuple[Tensor, Tensor, Cache]:
        """Embeddings (B, T, D) of what the prompts have of their own, mask (B, shared + T), and cache of the rest."""
        model = self.gpt4roi.model
        device = self.gpt4roi.device
        length = shared.common([question.prompt for question in questions])
        own = [question.prompt.input_ids[length:] for question in questions]
        ids, mask = padded(own, self._pad, left=True, device=device)
        mask = torch.cat([mask.new_ones(len(mask), length), mask], dim=1)
        # The gap between what is shared and a short prompt's own part is masked out, so it takes no position.
        pictures = torch.tensor([question.picture for question in questions])
        vectors = shared.regions(questions)
        return model.embed(ids, None, vectors), mask, gather(shared.cache(length), length, pictures)

    def _write(
        self, questions: Sequence[_Question], shared: _Shared
    ) -> list[tuple[str, float | None, tuple[float, ...] | None]]:
        embeddings, mask, cache = self._read(questions, shared)
        context = self.gpt4roi.model.config.text_config.max_position_embeddings
        end = self.gpt4roi.model.generation_config.eos_token_id
        writing = [AnswerText(self.gpt4roi.processor, end) for _ in questions]
        room = min(self.max_new_tokens, context - max(len(question.prompt.input_ids) for question in questions))
        steps = decode(self.gpt4roi, embeddings, cache, GREEDY, attention_mask=None if mask.all() else mask)
        for _ in range(room):
            for one, token, logprob in zip(writing, *next(steps), strict=True):
                if not one.finished:
                    one.push(token, logprob)
            if all(one.finished for one in writing):
                break
        answers: list[tuple[str, float | None, tuple[float, ...] | None]] = []
        for one in writing:
            one.rest()
            first, last = one.kept
            logprobs = one.logprobs[first:last]
            answers.append((one.text, sum(logprobs) / len(logprobs) if logprobs else None, None))
        return answers

    def _choose(
        self, questions: Sequence[_Question], shared: _Shared
    ) -> list[tuple[str, float | None, tuple[float, ...] | None]]:
        embeddings, mask, cache = self._read(questions, shared)
        with self.gpt4roi.running:
            logits = self.gpt4roi.model.language_model(
                inputs_embeds=embeddings,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
                **masked_positions(mask, embeddings.shape[1]),
            ).logits[:, -1]
        first = logits.float().log_softmax(-1)
        owners = [row for row, question in enumerate(questions) for _ in question.continuations]
        rests = [rest for question in questions for rest in question.continuations]
        likely = first[owners, [rest[0] for rest in rests]].cpu()
        if max(map(len, rests)) > 1:
            likely = likely + self._rest(owners, rests, mask, cache).cpu()
        answers: list[tuple[str, float | None, tuple[float, ...] | None]] = []
        start = 0
        for question in questions:
            count = len(question.continuations)
            normalised = likely[start : start + count].double().log_softmax(0).tolist()
            start += count
            best = max(range(count), key=normalised.__getitem__)
            answers.append((question.item.options[best], normalised[best], tuple(normalised)))
        return answers

    def _rest(self, owners: list[int], rests: Sequence[Sequence[int]], mask: Tensor, cache: Cache) -> Tensor:
        """(options,) log-probability of what follows each option's first token."""
        device = self.gpt4roi.device
        model = self.gpt4roi.model
        rows = torch.tensor(owners, device=device)
        ids, known = padded(rests, self._pad, left=False, device=device)
        length = mask.shape[1]
        sums = []
        # As many options at a time as there are rows to a batch: keys and values are copied for each.
        for start in range(0, len(owners), max(1, self.batch_size)):
            part = slice(start, start + max(1, self.batch_size))
            inputs, valid = ids[part, :-1], known[part]
            whole = torch.cat([mask[rows[part]], valid[:, :-1]], dim=1)
            with self.gpt4roi.running:
                logits = model.language_model(
                    inputs_embeds=model.get_input_embeddings()(inputs),
                    past_key_values=gather(cache, length, rows[part]),
                    use_cache=True,
                    **masked_positions(whole, inputs.shape[1]),
                ).logits
            each = logits.to(device).float().log_softmax(-1).gather(-1, ids[part, 1:, None]).squeeze(-1)
            sums.append((each * valid[:, 1:]).sum(-1))
        return torch.cat(sums)


class _Shared:
    """What the questions about some pictures share: their encodings, and keys and values of the prompts' beginning."""

    def __init__(self, gpt4roi: GPT4RoI, pictures: Sequence[Picture]) -> None:
        self._gpt4roi = gpt4roi
        pixel_values = torch.stack([picture.pixel_values for picture in pictures])
        self._encoding: ImageEncoding = gpt4roi.model.encode_image(pixel_values)
        self._opening = _opening(gpt4roi)
        self._cache: Cache | None = None

    def common(self, prompts: Sequence[Prompt]) -> int:
        """With how many tokens of the opening all the prompts begin."""
        count = len(self._opening)
        for prompt in prompts:
            while prompt.input_ids[:count] != self._opening[:count]:
                count -= 1
        return count

    def cache(self, length: int) -> Cache:
        """Keys and values of the opening, a row a picture; `length` of it is needed."""
        if self._cache is None:
            count = len(self._encoding.image_features)
            ids = torch.tensor([self._opening] * count, device=self._gpt4roi.device)
            model = self._gpt4roi.model
            self._cache = new_cache()
            embeddings = model.embed(ids, self._encoding.image_features, None)
            with self._gpt4roi.running:
                model.language_model(
                    inputs_embeds=embeddings, past_key_values=self._cache, use_cache=True, logits_to_keep=1
                )
        return self._cache

    def regions(self, questions: Sequence[_Question]) -> Tensor | None:
        """(all regions, D), in the order of the questions' `<bbox>` tokens. A box that comes again is computed once."""
        count = len(self._encoding.image_features)
        known: list[dict[tuple[float, ...], int]] = [{} for _ in range(count)]
        places: list[tuple[int, int]] = []
        for question in questions:
            boxes = known[question.picture]
            for box in question.boxes.tolist():
                places.append((question.picture, boxes.setdefault(tuple(box), len(boxes))))
        if not places:
            return None
        per_picture = [torch.tensor(list(boxes), dtype=torch.float32).reshape(-1, 4) for boxes in known]
        vectors = self._gpt4roi.model.encode_regions(self._encoding.fused_maps, per_picture)
        starts = np.cumsum([0, *map(len, per_picture)])
        return vectors[[int(starts[picture]) + row for picture, row in places]]


def _opening(gpt4roi: GPT4RoI) -> list[int]:
    """The tokens that every prompt begins with, whatever is asked."""
    one, other = (gpt4roi.processor.prompt([("user", text)]).input_ids for text in ("What?", "<region1>"))
    count = 0
    while one[count] == other[count]:
        count += 1
    return one[:count]
