"""One question about many boxes of an image, in batches that share everything they have in common."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from transformers.cache_utils import Cache

from gpt4roi_nb.batches import BatchSize
from gpt4roi_nb.boxes import Box
from gpt4roi_nb.inference.cache import branch
from gpt4roi_nb.inference.decode import Sampling, decode, detokenizers
from gpt4roi_nb.inference.encoded_image import EncodedImage
from gpt4roi_nb.memory import within_context, work_bytes
from gpt4roi_nb.prompt import Prompt
from gpt4roi_nb.session.conversation import Answer


def describe_batches(
    encoded: EncodedImage,
    prompt: Prompt,
    boxes: Sequence[Box],
    batch_size: int,
    max_new_tokens: int,
    sampling: Sampling,
    known: Cache,
    stop: threading.Event | None = None,
) -> Iterator[list[Answer]]:
    """Yield answers batch by batch, in the order of the boxes.

    Once `stop` is set, or after an interrupt, no further batch begins; unfinished answers of the current one are marked
    (`Answer.stopped`). If memory is short or runs out, batches are smaller than `batch_size`. Only the region's vector
    differs between the boxes' prompts, so the keys and values before it are computed once and no batch needs padding.

    Args:
        encoded: the image.
        prompt: of a question about one region.
        boxes: pixel xyxy, checked.
        batch_size: boxes at a time.
        max_new_tokens: per answer.
        sampling: how tokens are chosen.
        known: keys and values of the prompt's beginning, as far as they are known; grows.
        stop: an event that ends the work early.
    """
    if not boxes:
        return
    size = BatchSize(min(batch_size, len(boxes)), "regions")
    size.fit(encoded.loaded, lambda rows: batch_bytes(encoded, prompt, rows, max_new_tokens))
    cut = prompt.spans["region1"][0]
    _read(encoded, prompt, cut, known)
    generator_on = functools.cache(sampling.generator)  # one for all batches, on the device of their embeddings

    def answer(part: slice) -> list[Answer]:
        if stop is not None and stop.is_set():
            return []
        return _describe(encoded, prompt, cut, known, boxes[part], max_new_tokens, sampling, generator_on, stop)

    for answers in size.run(len(boxes), answer):
        if not answers:
            return
        yield answers
        if any(one.stopped for one in answers):
            return


def batch_bytes(encoded: EncodedImage, prompt: Prompt, rows: int, max_new_tokens: int) -> int:
    """Compute the most bytes that a batch of `rows` boxes takes besides the weights."""
    model = encoded.loaded.model
    length = len(prompt.input_ids)
    tokens = within_context(model.config, length, max_new_tokens)
    # Each box has a copy of the shared keys and values.
    return work_bytes(model, rows=rows, tokens=tokens, cached=length + rows * tokens)


@torch.inference_mode()
def _read(encoded: EncodedImage, prompt: Prompt, cut: int, cache: Cache) -> None:
    """Fill the cache with the prompt before position `cut`."""
    known = cache.get_seq_length()
    if known < cut:
        embeddings = encoded.embed(replace(prompt, input_ids=prompt.input_ids[:cut]), [], known)
        with encoded.loaded.inference() as model:
            model.language_model(inputs_embeds=embeddings, past_key_values=cache, use_cache=True, logits_to_keep=1)


@torch.inference_mode()
def _describe(
    encoded: EncodedImage,
    prompt: Prompt,
    cut: int,
    known: Cache,
    batch: Sequence[Box],
    max_new_tokens: int,
    sampling: Sampling,
    generator_on: Callable[[torch.device], torch.Generator | None],
    stop: threading.Event | None,
) -> list[Answer]:
    started = time.perf_counter()
    loaded = encoded.loaded
    ids = torch.tensor([prompt.input_ids[cut:]] * len(batch), device=loaded.device)
    with loaded.inference() as model:
        embeddings = model.embed(ids, None, encoded.region_tokens(batch))
    rows = detokenizers(loaded, len(batch))
    with contextlib.suppress(KeyboardInterrupt):  # what was written is kept, as with a stop
        for _ in decode(
            loaded,
            rows,
            embeddings,
            branch(known, cut, len(batch)),
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            generator=generator_on(embeddings.device),
            stop=stop,
        ):
            pass
    seconds = (time.perf_counter() - started) / len(batch)
    return [
        Answer.of(row, encoded, prompt, [box], reused_tokens=cut, seconds=seconds)
        for row, box in zip(rows, batch, strict=True)
    ]
