"""Attention through all layers: rollout, and relevancy weighted by gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gpt4roi_nb.batches import check_room
from gpt4roi_nb.capture.recording import capture_attention, check_pass, forced_tokens
from gpt4roi_nb.capture.replay import Replay
from gpt4roi_nb.memory import graph_bytes, is_out_of_memory, work_bytes
from gpt4roi_nb.quantization import unpack

LESS = "look at rollout() and ablate() instead, which keep one layer at a time"


@torch.inference_mode()
def rollout(replay: Replay) -> Tensor:
    """(A, P) float32; see `Attention.rollout`. One (T, T) matrix is held, whatever the number of layers."""
    check_pass(replay, "the rollout needs")
    embeddings = replay.forced(replay.embeddings())
    flow = torch.eye(embeddings.shape[1])

    def look(layer: int, weights: Tensor) -> None:
        nonlocal flow
        attended = weights[0].float().mean(dim=0).cpu()
        flow = (flow + attended @ flow) / 2  # half for the residual connection

    with replay.loaded.inference() as model, capture_attention(model, look):
        model.language_model(inputs_embeds=embeddings, use_cache=False, logits_to_keep=1)
    return flow[replay.steps, : replay.length].contiguous()


def relevancies(replay: Replay, tokens: Sequence[int]) -> dict[int, Tensor]:
    """Relevancy of each prompt token for some answer tokens: {token: (P,) float32}; see `Attention.relevancy`.

    Chefer et al. 2021 (arXiv 2103.15679), equations 5 and 6: R starts as the identity, and each layer adds
    mean over heads of (gradient ⊙ attention)⁺ · R. One pass forward, one backward a token.

    Raises:
        MemoryError: it does not fit; said before it begins.
        RuntimeError: the model gives no gradients.
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
        capture_attention(model, look),
    ):
        unpack(model)
        embeddings = computed.clone().requires_grad_()  # a tensor that was made in inference mode has no gradient
        logits = model.language_model(
            inputs_embeds=embeddings, use_cache=False, logits_to_keep=len(replay.tokens)
        ).logits[0]
        for number, token in enumerate(tokens):
            target = logits[token, replay.ids[replay.first + token]]
            gradients = _gradients(target, maps, last=number == len(tokens) - 1)
            found[token] = _relevancy(maps, gradients, replay.steps.start + token)[: replay.length]
    return found


def relevancy_bytes(replay: Replay) -> int:
    """Bytes that `relevancies` takes beside the weights, at most."""
    model, tokens = replay.loaded.model, forced_tokens(replay)
    return graph_bytes(model, tokens) + work_bytes(model, tokens=tokens, cached=0, logits=len(replay.tokens))


def _gradients(target: Tensor, maps: Sequence[Tensor], last: bool) -> Sequence[Tensor]:
    reason: Exception | str = "the attention weights do not lead to the logits"
    if target.requires_grad and all(each.requires_grad for each in maps):
        try:
            return torch.autograd.grad(target, maps, retain_graph=not last)
        except (RuntimeError, NotImplementedError) as error:  # what kernels without a backward pass raise
            if is_out_of_memory(error):
                raise
            reason = error
    raise RuntimeError(
        "relevancy needs gradients, which this model does not give (a quantised one may not, on some devices); load "
        f"it without quantization, or look at rollout() and ablate() instead: {reason}"
    )


@torch.no_grad()
def _relevancy(maps: Sequence[Tensor], gradients: Sequence[Tensor], step: int) -> Tensor:
    """(T,) float32 on the CPU: the row of `step` in R, without R: the layers are applied to the row, last one first.

    R = (1 + A_L) … (1 + A_1), so that its row r is ((e_r (1 + A_L)) (1 + A_{L-1})) …
    """
    row = torch.zeros(maps[0].shape[-1])
    row[step] = 1
    for weights, gradient in zip(reversed(maps), reversed(gradients), strict=True):
        layer = (gradient[0].float() * weights[0].float()).clamp(min=0).mean(dim=0).cpu()
        row = row + row @ layer
    row[step] -= 1  # the identity that R starts from
    return row
