"""Take prompt tokens away, each by itself, and score the same answer again."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from gpt4roi_nb.batches import BatchSize
from gpt4roi_nb.capture.ablation import mean_region
from gpt4roi_nb.capture.replay import Replay

OVER = ("image", "regions", "both")  # what is taken away


class Removal(Protocol):
    """An answer whose prompt tokens can be taken away."""

    @property
    def length(self) -> int:
        """P, the number of prompt tokens."""

    def removable(self, over: str) -> list[int]:
        """Return the prompt positions of what is removed, one of OVER; ValueError if there are none."""

    def without(self, removed: Tensor, batch: BatchSize) -> Tensor:
        """Compute the log-probability of each answer token without some prompt tokens: (B, P) bool → (B, A) float32."""


class EmbeddedRemoval:
    """Of a GPT4RoI's answer: prompt tokens are embeddings, which the mean image token or region token replaces."""

    @torch.inference_mode()
    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self.length = replay.length
        self._prompt = prompt = replay.embeddings()[0]
        self._nothing = nothing = prompt.clone()
        image = replay.prompt.spans["image"]
        nothing[image] = prompt[image].mean(dim=0)
        for number in replay.prompt.regions:
            position, box = replay.region(number)
            nothing[position] = mean_region(replay, box)[0].to(nothing.device, nothing.dtype)

    def removable(self, over: str) -> list[int]:
        spans = self._replay.prompt.spans
        regions = [spans[f"region{number}"][0] for number in self._replay.prompt.regions]
        chosen = {"image": spans["image"], "regions": regions, "both": [*spans["image"], *regions]}[over]
        if not chosen:
            raise ValueError('an answer without regions cannot be measured with over="regions"; use over="image"')
        return chosen

    @torch.inference_mode()
    def without(self, removed: Tensor, batch: BatchSize) -> Tensor:
        prompts = torch.where(removed[..., None].to(self._prompt.device), self._nothing, self._prompt)
        return self._replay.log_probabilities(prompts, batch)
