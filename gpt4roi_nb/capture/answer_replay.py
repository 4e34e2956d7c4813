"""What an answer keeps of its model and image to run again: the same for every model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.capture.ablation import ABLATIONS, Ablation, How, ablate, occlusion
from gpt4roi_nb.capture.attention import Attention, attention_of, wanted_and_size
from gpt4roi_nb.capture.removal import EmbeddedRemoval, Removal
from gpt4roi_nb.capture.replay import Replay
from gpt4roi_nb.inference.loaded_model import LoadedModel


class AnswerReplay(Protocol):
    """Runs an answer again; arguments as `Answer` has them."""

    @property
    def loaded(self) -> LoadedModel:
        """The model that wrote the answer."""

    @property
    def boxes(self) -> Sequence[Box]:
        """Pixel xyxy of the regions in the answer's prompt."""

    @property
    def ablations(self) -> tuple[How, ...]:
        """What `ablate` takes as `how`."""

    def attention(
        self,
        layers: Sequence[int] | int | None,
        heads: Sequence[int] | int | None,
        dtype: torch.dtype,
        limit: float,
    ) -> Attention:
        """Record attention."""

    def size(self, layers: Sequence[int] | int | None, heads: Sequence[int] | int | None, dtype: torch.dtype) -> int:
        """Return the bytes that this takes."""

    def ablate(
        self,
        region: int,
        how: str,
        *,
        baseline: str,
        other: int | None,
        box: Box | None,
        generate: bool,
        max_new_tokens: int | None,
    ) -> Ablation:
        """Change something about a region and score the answer again."""

    def occlusion(self, patch: int, token: int | str | None, batch_size: int) -> Tensor:
        """Cover parts of the image and score the answer again."""

    def removal(self) -> Removal:
        """Return what takes prompt tokens away, of the weights as they are now."""


class GPT4RoIReplay(Replay):
    """Runs an answer of a GPT4RoI again; nothing trains the model meanwhile."""

    @property
    def ablations(self) -> tuple[How, ...]:
        """What `ablate` takes as `how`."""
        return ABLATIONS

    def attention(
        self,
        layers: Sequence[int] | int | None,
        heads: Sequence[int] | int | None,
        dtype: torch.dtype,
        limit: float,
    ) -> Attention:
        """See `Answer.attention`."""
        with self.loaded.hold_weights():
            return attention_of(self, layers, heads, dtype, limit)

    def size(self, layers: Sequence[int] | int | None, heads: Sequence[int] | int | None, dtype: torch.dtype) -> int:
        """See `Answer.attention_size`."""
        return wanted_and_size(self, layers, heads, dtype)[2]

    def ablate(
        self,
        region: int,
        how: str,
        *,
        baseline: str,
        other: int | None,
        box: Box | None,
        generate: bool,
        max_new_tokens: int | None,
    ) -> Ablation:
        """See `Answer.ablate`."""
        with self.loaded.hold_weights():
            return ablate(
                self,
                region,
                how,
                baseline=baseline,
                other=other,
                box=box,
                generate=generate,
                max_new_tokens=max_new_tokens,
            )

    def occlusion(self, patch: int, token: int | str | None, batch_size: int) -> Tensor:
        """See `Answer.occlusion`."""
        with self.loaded.hold_weights():
            return occlusion(self, patch, token, batch_size)

    def removal(self) -> EmbeddedRemoval:
        """See `faithfulness`."""
        return EmbeddedRemoval(self)
