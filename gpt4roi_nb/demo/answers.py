"""Many different questions about one image, answered in one batch: for measuring, where asking a session takes long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt4roi_nb.inference.cache import branch, new_cache
from gpt4roi_nb.inference.decode import AnswerText
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration, ImageEncoding
from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.prompt import Prompt, Turns

MAX_NEW_TOKENS = 48  # longer than any answer of the generated world; a list of seven things has about 35


@dataclass(frozen=True)
class Asked:
    """A question, or a conversation that awaits an answer, and the boxes of its regions.

    boxes: (number of regions, 4) float32, xyxy in [0, 1], region 1 first.
    """

    turns: Turns
    boxes: Tensor


@torch.inference_mode()
def answer_all(
    model: GPT4RoIForConditionalGeneration,
    processor: GPT4RoIProcessor,
    encoding: ImageEncoding,
    asked: Sequence[Asked],
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[str]:
    """The greedy answers, in order: what a session on this image would say to each, asked alone.

    encoding: of one image, from `model.encode_image`. The prompts' common opening is computed once.
    """
    prompts = [processor.prompt(one.turns) for one in asked]
    shared = _common(prompts)
    device = encoding.image_features.device
    opening = torch.tensor([prompts[0].input_ids[:shared]], device=device)
    cache = new_cache()
    model.language_model(
        inputs_embeds=model.embed(opening, encoding.image_features, None), past_key_values=cache, logits_to_keep=1
    )
    cache = branch(cache, shared, len(asked))

    suffixes = [prompt.input_ids[shared:] for prompt in prompts]
    width = max(map(len, suffixes))
    pads = [width - len(suffix) for suffix in suffixes]
    pad = processor.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * n + suffix for n, suffix in zip(pads, suffixes, strict=True)], device=device)
    mask = torch.ones(len(asked), shared + width, dtype=torch.long, device=device)
    for row, count in enumerate(pads):
        mask[row, shared : shared + count] = 0
    ordered = [one.boxes[[number - 1 for number in prompt.regions]] for one, prompt in zip(asked, prompts, strict=True)]
    boxes = torch.cat(ordered)
    regions = model.encode_regions(encoding.fused_maps, [boxes]) if len(boxes) else None
    embeddings = model.embed(ids, None, regions)
    positions = (mask.cumsum(1) - 1)[:, shared:].clamp(min=0)

    writing = [AnswerText(processor) for _ in asked]
    for _ in range(max_new_tokens):
        logits = model.language_model(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            logits_to_keep=1,
        ).logits[:, -1]
        tokens = logits.argmax(-1)
        for one, token in zip(writing, tokens.tolist(), strict=True):
            if not one.finished:
                one.push(token, 0.0)
        if all(one.finished for one in writing):
            break
        embeddings = model.get_input_embeddings()(tokens[:, None])
        mask = torch.cat([mask, mask.new_ones(len(asked), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return [one.text for one in writing]


def _common(prompts: Sequence[Prompt]) -> int:
    """How many tokens all prompts begin with, up to and including the image."""
    first = prompts[0].input_ids
    count = prompts[0].spans["system"][-1] + 1
    while any(prompt.input_ids[:count] != first[:count] for prompt in prompts):
        count -= 1
    return count
