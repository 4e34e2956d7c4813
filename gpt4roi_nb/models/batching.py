"""Many prompts answered together; their common beginning is read once."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from gpt4roi_nb.batches import BatchSize
from gpt4roi_nb.inference.decode import GREEDY, Sampling, decode, detokenizers
from gpt4roi_nb.inference.detokenizer import StreamingDetokenizer
from gpt4roi_nb.inference.likelihoods import ContinuationScorer
from gpt4roi_nb.inference.loaded_model import LoadedModel
from gpt4roi_nb.inference.padding import common_length
from gpt4roi_nb.models.families import family_of
from gpt4roi_nb.models.images import SessionImages
from gpt4roi_nb.models.prompts import PromptedPrompt
from gpt4roi_nb.models.reading import Reader, cache_for, reader_of, rows_of
from gpt4roi_nb.session.conversation import Answer

# What becomes of an answer: its row, its prompt, the reused tokens, and seconds.
Keep = Callable[[StreamingDetokenizer, PromptedPrompt, int, float], Answer]


def write_batches(
    loaded: LoadedModel,
    images: SessionImages,
    prompts: Sequence[PromptedPrompt],
    keep: Keep,
    *,
    batch_size: int,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    stop: threading.Event | None = None,
    partial: bool = False,
) -> Iterator[list[Answer]]:
    """Answer prompts batch by batch, in their order.

    Prompts of one batch are read together if they are of equal length, or if the family takes padding; their common
    beginning, images included, is read once. If memory runs out, batches become smaller than `batch_size`.

    Args:
        loaded: the model.
        images: where features are kept.
        prompts: from `LoadedFamily.prompt`; taken batch by batch.
        keep: makes an answer of a row.
        batch_size: prompts at a time.
        max_new_tokens: the most tokens per answer; fewer where the context of prompts read together is full.
        sampling: how tokens are chosen; one generator serves all batches.
        stop: an event after which no further batch begins; unfinished answers of the current one are `stopped`.
        partial: whether an interrupt does as `stop`; otherwise it raises KeyboardInterrupt.

    Yields:
        What `keep` returned for each prompt of a batch.
    """
    generator = sampling.generator(loaded.device)
    ended = False

    def work(part: slice) -> list[Answer]:
        nonlocal ended
        if stop is not None and stop.is_set():
            return []
        several = prompts[part]
        made: dict[int, Answer] = {}
        for places in _together(several, family_of(loaded.model.config.model_type).takes_padding):
            some = [several[place] for place in places]
            rows = _write(loaded, images, some, keep, max_new_tokens, sampling, generator, stop, partial)
            made |= dict(zip(places, rows, strict=True))
            if any(row.stopped for row in rows):
                ended = True
                break
        # Without gaps: an answer's place says which prompt it answers.
        return [made[place] for place in itertools.takewhile(made.__contains__, itertools.count())]

    if not prompts:
        return
    for made in BatchSize(min(batch_size, len(prompts)), "questions").run(len(prompts), work):
        if not made:
            return
        yield made
        if ended:
            return


def _together(prompts: Sequence[PromptedPrompt], padded: bool) -> list[list[int]]:
    """Indices of the prompts that are read together."""
    groups: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(0 if padded else len(prompt.input_ids), []).append(index)
    return list(groups.values())


@torch.inference_mode()
def _write(
    loaded: LoadedModel,
    images: SessionImages,
    prompts: Sequence[PromptedPrompt],
    keep: Keep,
    max_new_tokens: int,
    sampling: Sampling,
    generator: torch.Generator | None,
    stop: threading.Event | None,
    partial: bool,
) -> list[Answer]:
    started = time.perf_counter()
    longest = max(len(prompt.input_ids) for prompt in prompts)
    max_new_tokens = min(max_new_tokens, max(loaded.context_length - longest, 1))
    reader, cache, shared = read_together(loaded, images, prompts)
    rows = detokenizers(loaded, len(prompts))
    # What was written is kept, as with a stop.
    with contextlib.suppress(KeyboardInterrupt) if partial else contextlib.nullcontext():
        for _ in decode(
            loaded,
            rows,
            reader.begin,
            cache,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            generator=generator,
            attention_mask=reader.attention_mask,
            stop=stop,
            read=reader,
        ):
            pass
    seconds = (time.perf_counter() - started) / len(prompts)
    return [keep(row, prompt, shared, seconds) for row, prompt in zip(rows, prompts, strict=True)]


def read_together(
    loaded: LoadedModel, images: SessionImages, prompts: Sequence[PromptedPrompt]
) -> tuple[Reader, Cache, int]:
    """Return a reader of B prompts, the cache that it continues from, and how many tokens of each are in the cache."""
    family = family_of(loaded.model.config.model_type)
    shared = _shared(prompts) if family.keeps_prefixes and len(prompts) > 1 else 0
    cache = cache_for(loaded.model.config)
    with loaded.inference() as model:
        if shared:
            one = replace(prompts[0], input_ids=prompts[0].input_ids[:shared], images=prompts[0].images[:shared])
            opening = reader_of(model, [one], 0, images.features(one.shown))
            opening(model, opening.begin, cache, None)
            cache = rows_of(cache, shared, torch.zeros(len(prompts), dtype=torch.long))
        shown = prompts[0].shown if shared else [image for prompt in prompts for image in prompt.shown]
        return reader_of(model, prompts, shared, images.features(shown)), cache, shared


def _shared(prompts: Sequence[PromptedPrompt]) -> int:
    """The number of tokens that all prompts begin with, if these include all images; else 0."""
    keys = [prompt.keys() for prompt in prompts]
    # The last token of each is always read: its answer begins with those logits.
    common = min(common_length(keys), min(map(len, keys)) - 1)
    return 0 if any(image >= 0 for prompt in prompts for image in prompt.images[common:]) else common


@torch.inference_mode()
def option_likelihoods(
    loaded: LoadedModel, images: SessionImages, prompt: PromptedPrompt, answers: Sequence[Sequence[int]], at_a_time: int
) -> list[float]:
    """Return the natural log-probability of each answer, in token ids, after one prompt, which is read once."""
    with loaded.hold_weights(), loaded.inference() as model:
        reader, cache, _ = read_together(loaded, images, [prompt])
        first = reader(model, reader.begin, cache, None)[:, -1]
        length = cache.get_seq_length()

        def read(ids: Tensor, rows: Tensor, _: Tensor) -> Tensor:
            if not model.config.is_encoder_decoder:
                return reader(model, ids, rows_of(cache, length, rows), None)
            begun = torch.cat([reader.begin.expand(len(ids), -1), ids], dim=1)  # an answer begins a text of its own
            return reader(model, begun, cache_for(model.config), None)[:, 1:]

        return ContinuationScorer(model, first, read).of_one_prompt(answers, at_a_time)
