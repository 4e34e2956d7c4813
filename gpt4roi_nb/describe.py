"""One question about many boxes of an image, in batches that share all that is the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from transformers.cache_utils import Cache

from gpt4roi_nb.cache import branch
from gpt4roi_nb.conversation import Answer, Box
from gpt4roi_nb.decoding import AnswerText, Sampling, decode
from gpt4roi_nb.encoded import EncodedImage
from gpt4roi_nb.prompt import Prompt


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
    """Answers batch by batch, in the order of the boxes; ends before the next batch once `stop` is set.

    prompt: of a question about one region. The prompt is the same for every box but for the region's vector, so its
    keys and values up to there are computed once, and no batch needs padding. `known` holds those of the prompt's
    beginning, as far as they are known already.
    """
    if not boxes:
        return
    cut = prompt.spans["region1"][0]
    _read(encoded, prompt, cut, known)
    for start in range(0, len(boxes), batch_size):
        if stop is not None and stop.is_set():
            return
        yield _describe(encoded, prompt, cut, known, boxes[start : start + batch_size], max_new_tokens, sampling)


@torch.inference_mode()
def _read(encoded: EncodedImage, prompt: Prompt, cut: int, cache: Cache) -> None:
    """Fills the cache with the prompt before position `cut`."""
    known = cache.get_seq_length()
    if known < cut:
        before = replace(prompt, input_ids=prompt.input_ids[:cut])
        encoded.gpt4roi.model.language_model(
            inputs_embeds=encoded.embed(before, [], known), past_key_values=cache, use_cache=True, logits_to_keep=1
        )


@torch.inference_mode()
def _describe(
    encoded: EncodedImage,
    prompt: Prompt,
    cut: int,
    shared: Cache,
    batch: Sequence[Box],
    max_new_tokens: int,
    sampling: Sampling,
) -> list[Answer]:
    started = time.perf_counter()
    model, processor = encoded.gpt4roi.model, encoded.gpt4roi.processor
    cache = branch(shared, cut, len(batch))
    ids = torch.tensor([prompt.input_ids[cut:]] * len(batch), device=encoded.gpt4roi.device)
    steps = decode(model, model.embed(ids, None, encoded.region_tokens(batch)), cache, processor, sampling)
    writing = [AnswerText(processor, model.generation_config.eos_token_id) for _ in batch]
    for _ in range(max_new_tokens):
        for row, token, logprob in zip(writing, *next(steps), strict=True):
            if not row.finished:
                row.push(token, logprob)
        if all(row.finished for row in writing):
            break
    seconds = (time.perf_counter() - started) / len(batch)
    return [
        encoded.answer(row, prompt, [box], reused_tokens=cut, seconds=seconds)
        for row, box in zip(writing, batch, strict=True)
    ]
