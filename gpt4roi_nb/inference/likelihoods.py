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


class ContinuationScorer:
    """Scores continuations of B prompts that were read.

    Args:
        model: the model that computes the logits.
        first: (B, V) logits after each prompt, which give the continuations' first tokens.
        read: reads the tokens of continuations after their prompts; not called if all have one token.
    """

    def __init__(self, model: Any, first: Tensor, read: ReadMore) -> None:
        self._model = model
        self._first = log_probabilities(first.to(model.device), model)  # a spread model ends on another device
        self._read = read

    @torch.inference_mode()
    def __call__(self, continuations: Sequence[Sequence[int]], owners: Sequence[int]) -> Tensor:
        """Return the natural log-probability of each continuation, the sum over its tokens: (n,) float64 on the CPU.

        Args:
            continuations: n of them, read together; token ids, at least one each.
            owners: per continuation, the index of its prompt.
        """
        device = self._first.device
        # Padded on the right, which nothing before it sees.
        ids, mask = pad(continuations, device, side="right")
        rows = torch.tensor(owners, device=device)
        each = self._first[rows].gather(-1, ids[:, :1])
        if ids.shape[1] > 1:
            logits = self._read(ids[:, :-1], rows, mask[:, :-1]).to(device)
            later = log_probabilities(logits, self._model).gather(-1, ids[:, 1:, None])[..., 0]
            each = torch.cat([each, later], dim=1)
        return torch.where(mask == 1, each, 0).cpu().double().sum(-1)

    def of_one_prompt(self, continuations: Sequence[Sequence[int]], at_a_time: int) -> list[float]:
        """Score continuations of the first prompt, some at a time; fewer, with a warning, if memory runs out."""

        def likely(part: slice) -> list[float]:
            some = continuations[part]
            found: list[float] = self(some, [0] * len(some)).tolist()
            return found

        several = BatchSize(at_a_time, "options").run(len(continuations), likely)
        return [value for values in several for value in values]
