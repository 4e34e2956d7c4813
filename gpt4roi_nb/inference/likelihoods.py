"""How likely texts are as continuations of prompts that were read: the only place where options are scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gpt4roi_nb.batches import BatchSize
from gpt4roi_nb.finite import log_probabilities
from gpt4roi_nb.inference.padding import pad

# Maps ids of n continuations, (n, T) padded on the right, the index of each one's prompt, (n,), and a mask, (n, T),
# 0 for padding, all int64, to the logits after each id, (n, T, V).
ReadMore = Callable[[Tensor, Tensor, Tensor], Tensor]


@torch.inference_mode()
def continuation_likelihoods(
    model: Any,
    first: Tensor,
    continuations: Sequence[Sequence[int]],
    owners: Sequence[int],
    read: ReadMore,
    *,
    at_a_time: int,
) -> Tensor:
    """Return the natural log-probability of each of n continuations, the sum over its tokens: (n,) float64 on the CPU.

    Args:
        model: the model that computes the logits.
        first: (B, V) logits after each prompt, which give the continuations' first tokens.
        continuations: token ids, at least one each.
        owners: per continuation, the index of its prompt.
        read: reads the tokens of continuations after their prompts; not called if all have one token.
        at_a_time: continuations read together; fewer, with a warning, if memory runs out.
    """
    prompts = log_probabilities(first, model)

    def likely(part: slice) -> Tensor:
        # Padded on the right, which nothing before it sees.
        ids, mask = pad(continuations[part], prompts.device, side="right")
        rows = torch.tensor(owners[part], device=prompts.device)
        each = prompts[rows].gather(-1, ids[:, :1])
        if ids.shape[1] > 1:
            logits = read(ids[:, :-1], rows, mask[:, :-1]).to(prompts.device)
            later = log_probabilities(logits, model).gather(-1, ids[:, 1:, None])[..., 0]
            each = torch.cat([each, later], dim=1)
        return torch.where(mask == 1, each, 0).cpu().double().sum(-1)

    found = list(BatchSize(at_a_time, "options").run(len(continuations), likely))
    return torch.cat([torch.zeros(0, dtype=torch.float64), *found])
