"""One question about many boxes of an image, in batches that share all that is the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from transformers.cache_utils import Cache

from gpt4roi_nb.inference.cache import branch
from gpt4roi_nb.inference.decode import AnswerText, Sampling, decode
from gpt4roi_nb.inference.encoded_image import EncodedImage
from gpt4roi_nb.prompt import Prompt
from gpt4roi_nb.session.conversation import Answer, Box


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
    """Answers batch by batch, in the order of the boxes.

    Once `stop` is set, or after an interrupt, no further batch begins; the answers of the present one that were not
    finished say so (`Answer.stopped`).

    prompt: of a question about one region. The prompt is the same for every box but for the region's vector, so its
    keys and values up to there are computed once, and no batch needs padding. `known` holds those of the prompt's
    beginning, as far as they are known already.
    """
    if not boxes:
        return
    cut = prompt.spans["region1"][0]
    _read(encoded, prompt, cut, known)
    generator = sampling.generator(encoded.gpt4roi.device)
    for start in range(0, len(boxes), batch_size):
        if stop is not None and stop.is_set():
            return
        batch = boxes[start : start + batch_size]
        answers = _describe(encoded, prompt, cut, known, batch, max_new_tokens, sampling, generator, stop)
        yield answers
        if any(answer.stopped for answer in answers):
            return


@torch.inference_mode()
def _read(encoded: EncodedImage, prompt: Prompt, cut: int, cache: Cache) -> None:
    """Fills the cache with the prompt before position `cut`."""
    known = cache.get_seq_length()
    if known < cut:
        before = replace(prompt, input_ids=prompt.input_ids[:cut])
        embeddings = encoded.embed(before, [], known)
        with encoded.gpt4roi.running:
            encoded.gpt4roi.model.language_model(
                inputs_embeds=embeddings, past_key_values=cache, use_cache=True, logits_to_keep=1
            )


@torch.inference_mode()
def _describe(
    encoded: EncodedImage,
    prompt: Prompt,
    cut: int,
    known: Cache,
    batch: Sequence[Box],
    max_new_tokens: int,
    sampling: Sampling,
    generator: torch.Generator | None,
    stop: threading.Event | None,
) -> list[Answer]:
    started = time.perf_counter()
    gpt4roi = encoded.gpt4roi
    model = gpt4roi.model
    ids = torch.tensor([prompt.input_ids[cut:]] * len(batch), device=gpt4roi.device)
    embeddings = model.embed(ids, None, encoded.region_tokens(batch))
    steps = decode(gpt4roi, embeddings, branch(known, cut, len(batch)), sampling, generator)
    writing = [AnswerText(gpt4roi.processor, model.generation_config.eos_token_id) for _ in batch]
    stopped = False
    try:
        for _ in range(max_new_tokens):
            for row, token, logprob in zip(writing, *next(steps), strict=True):
                if not row.finished:
                    row.push(token, logprob)
            if all(row.finished for row in writing):
                break
            if stopped := stop is not None and stop.is_set():
                break
    except KeyboardInterrupt:
        stopped = True  # what was written is kept, as with a stop
    seconds = (time.perf_counter() - started) / len(batch)
    for row in writing:
        row.rest()
    return [
        encoded.answer(row, prompt, [box], reused_tokens=cut, seconds=seconds, stopped=stopped and not row.finished)
        for row, box in zip(writing, batch, strict=True)
    ]
