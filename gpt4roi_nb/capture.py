"""What is inside: attention and region features, recorded only when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from gpt4roi_nb.model import GPT4RoIForConditionalGeneration, ImageEncoding


@dataclass(frozen=True)
class RoIFeatures:
    """What the region encoder makes of some boxes, step by step; all float32 on the CPU.

    boxes: (N, 4) xyxy in [0, 1].
    levels: one (C, grid, grid) hidden state of the tower a level, shallowest first, in the frame of the whole image.
    fused_maps: one (C_region, S_l, S_l) a level, in the frame of the whole image.
    pooled: one (N, C_region, output_size, output_size) a level, each in the frame of its box.
    tokens: (N, D) the region tokens, as the language model reads them.
    """

    boxes: Tensor
    levels: list[Tensor]
    fused_maps: list[Tensor]
    pooled: list[Tensor]
    tokens: Tensor


@torch.inference_mode()
def record_roi_features(model: GPT4RoIForConditionalGeneration, encoding: ImageEncoding, boxes: Tensor) -> RoIFeatures:
    """Features of boxes on one encoded image. boxes: (N, 4) xyxy in [0, 1]."""
    head = model.region_encoder.head
    given = [boxes.to(encoding.fused_maps[0].device)]
    pooled = head.pool(encoding.fused_maps, given)

    def plain(tensor: Tensor) -> Tensor:
        return tensor.float().cpu()

    grid = model.config.grid_size
    return RoIFeatures(
        boxes=plain(boxes),
        levels=[plain(rearrange(level[0], "(h w) c -> c h w", h=grid)) for level in encoding.levels],
        fused_maps=[plain(level[0]) for level in encoding.fused_maps],
        pooled=[plain(level) for level in pooled],
        tokens=plain(head.combine(pooled, given)),
    )


@dataclass(frozen=True)
class Attention:
    """How an answer's tokens attend to its prompt.

    A raw map is no explanation by itself: most of its mass may lie on tokens that could be removed without effect.

    weights: (layers, heads, answer tokens, prompt tokens) float32. Row t is the step that wrote answer token t. What
        a row lacks to 1 is the attention to the answer so far.
    tokens: text of each answer token.
    spans: prompt positions by name: "system", "image", "question1", "region1", "answer1", "marks", …
    logprobs: (answer tokens,) log-probability of each answer token, recomputed in this pass.
    """

    weights: Tensor
    tokens: list[str]
    spans: dict[str, list[int]]
    logprobs: Tensor

    def mass(self, span: str) -> Tensor:
        """Attention to a span: (layers, heads, answer tokens) float32, between 0 and 1."""
        if span not in self.spans:
            raise KeyError(f"there is no span {span!r}; there are {', '.join(self.spans)}")
        return self.weights[..., self.spans[span]].sum(dim=-1)


@torch.inference_mode()
def record_attention(
    model: GPT4RoIForConditionalGeneration,
    inputs_embeds: Tensor,
    answer_ids: Sequence[int],
    first: int,
    tokens: list[str],
    spans: dict[str, list[int]],
) -> Attention:
    """One teacher-forced pass in eager mode over a finished answer.

    Args:
        inputs_embeds: (1, T, D) of the prompt.
        answer_ids: every token that was generated, up to the last one that is kept.
        first: index in `answer_ids` of the first token that is kept; those before it are the role.
        tokens, spans: passed on.
    """
    prompt_length = inputs_embeds.shape[1]
    ids = torch.tensor([list(answer_ids)], dtype=torch.long, device=inputs_embeds.device)
    embeddings = torch.cat([inputs_embeds, model.get_input_embeddings()(ids)], dim=1)
    with eager_attention(model):
        outputs = model.language_model(inputs_embeds=embeddings, output_attentions=True, use_cache=False)
    steps = slice(prompt_length + first - 1, prompt_length + len(answer_ids) - 1)  # the step that wrote each token
    logprobs = outputs.logits[0, steps].to(ids.device).float().log_softmax(dim=-1)
    return Attention(
        weights=torch.stack([layer[0, :, steps, :prompt_length].float().cpu() for layer in outputs.attentions]),
        tokens=tokens,
        spans=spans,
        logprobs=logprobs.gather(-1, ids[0, first:, None]).squeeze(-1).cpu(),
    )


@contextmanager
def eager_attention(model: GPT4RoIForConditionalGeneration) -> Iterator[None]:
    """Attention weights exist in eager mode only: switches the language model to it and back, also after an error."""
    before = model.language_model.config._attn_implementation
    model.language_model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.language_model.set_attn_implementation(before)
