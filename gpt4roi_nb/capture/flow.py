"""Attention through all layers: rollout, and relevancy, which is weighted by gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gpt4roi_nb.batches import check_room
from gpt4roi_nb.capture.recording import (
    attention_modules,
    capture_attention,
    check_pass,
    eager_attention,
    forced_tokens,
)
from gpt4roi_nb.capture.replay import Replay
from gpt4roi_nb.memory import graph_bytes, is_out_of_memory, work_bytes
from gpt4roi_nb.quantization import unpack

LESS = "look at rollout() and ablate() instead, which keep one layer at a time"


@torch.inference_mode()
def rollout(replay: Replay) -> Tensor:
    """Compute (A, P) float32; see `Attention.rollout`. Holds one (T, T) matrix, whatever the number of layers."""
    check_pass(replay, "the rollout needs")
    embeddings = replay.forced(replay.embeddings())
    flow = torch.eye(embeddings.shape[1])

    def look(layer: int, weights: Tensor) -> None:
        nonlocal flow
        attended = weights[0].float().mean(dim=0).cpu()
        flow = (flow + attended @ flow) / 2  # half for the residual connection

    with (
        replay.loaded.inference() as model,
        eager_attention(model),
        capture_attention(attention_modules(model), look),
    ):
        model.language_model(inputs_embeds=embeddings, use_cache=False, logits_to_keep=1)
    return flow[replay.steps, : replay.length].contiguous()


def relevancies(replay: Replay, tokens: Sequence[int]) -> dict[int, Tensor]:
    """Compute the relevancy of each prompt token for some answer tokens; see `Attention.relevancy`.

    Chefer et al. 2021 (arXiv 2103.15679), equations 5 and 6: R starts as the identity, and each layer adds
    mean over heads of (gradient ⊙ attention)⁺ · R. Runs one pass forward, and one backward per token.

    Args:
        replay: the answer.
        tokens: indices of answer tokens.

    Returns:
        {token: (P,) float32}.

    Raises:
        MemoryError: if it does not fit; raised before it begins.
        RuntimeError: if the model gives no gradients.
    """
    if not tokens:
        return {}
    what = "relevancy, which keeps every layer for its gradients, needs"
    check_room(replay.loaded, relevancy_bytes(replay), what, LESS)
    with torch.inference_mode():
        computed = replay.forced(replay.embeddings())
    maps: list[Tensor] = []

    def look(layer: int, weights: Tensor) -> None:
        maps.append(weights)

    found = {}
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        replay.loaded.inference() as model,
        eager_attention(model),
        capture_attention(attention_modules(model), look),
    ):
        unpack(model)
        embeddings = computed.clone().requires_grad_()  # a tensor made in inference mode cannot have a gradient
        logits = model.language_model(
            inputs_embeds=embeddings, use_cache=False, logits_to_keep=len(replay.tokens)
        ).logits[0]
        for number, token in enumerate(tokens):
            target = logits[token, replay.ids[replay.first + token]]
            gradients = _gradients(target, maps, last=number == len(tokens) - 1)
            found[token] = _relevancy(maps, gradients, replay.steps.start + token)[: replay.length]
    return found


def relevancy_bytes(replay: Replay) -> int:
    """Compute the most bytes that `relevancies` takes besides the weights."""
    model, tokens = replay.loaded.model, forced_tokens(replay)
    return graph_bytes(model, tokens) + work_bytes(model, tokens=tokens, cached=0, logits=len(replay.tokens))


def _gradients(target: Tensor, maps: Sequence[Tensor], last: bool) -> Sequence[Tensor]:
    reason: Exception | str = "the attention weights do not lead to the logits"
    if target.requires_grad and all(each.requires_grad for each in maps):
        try:
            return torch.autograd.grad(target, maps, retain_graph=not last)
        except (RuntimeError, NotImplementedError) as error:  # raised by kernels without a backward pass
            if is_out_of_memory(error):
                raise
            reason = error
    raise RuntimeError(
        "relevancy needs gradients, which this model does not give (a quantised one may not, on some devices); load "
        f"it without quantization, or look at rollout() and ablate() instead: {reason}"
    )


@torch.no_grad()
def _relevancy(maps: Sequence[Tensor], gradients: Sequence[Tensor], step: int) -> Tensor:
    """Compute the row of `step` in R, (T,) float32 on the CPU, by applying the layers to the row, the last one first.

    R = (1 + A_L) … (1 + A_1), so its row r is ((e_r (1 + A_L)) (1 + A_{L-1})) …; R itself is not computed.
    """
    row = torch.zeros(maps[0].shape[-1])
    row[step] = 1
    for weights, gradient in zip(reversed(maps), reversed(gradients), strict=True):
        layer = (gradient[0].float() * weights[0].float()).clamp(min=0).mean(dim=0).cpu()
        row = row + row @ layer
    row[step] -= 1  # the identity with which R starts
    return row
