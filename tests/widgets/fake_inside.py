"""An answer and its attention without a model: random numbers with the properties of real ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gpt4roi_nb import Answer
from gpt4roi_nb.capture import Attention

GRID = 4
LAYERS, HEADS = [0, 1], [0, 1, 2]
TOKENS = ["a", " red", " star", " and", " a", " red", " cone"]
FIRST_IMAGE = 2  # prompt: first token, system, the image, a region, the question
REGION = FIRST_IMAGE + GRID**2
PROMPT = REGION + 3
SINKS = (0, FIRST_IMAGE + 5)


class FakeAttention(Attention):
    """The public interface of `Attention`, with random weights whose rows sum to 1, and two sinks."""

    def __init__(self, seed: int = 0, regions: int = 1) -> None:
        rng = torch.Generator().manual_seed(seed)
        count = len(TOKENS)
        weights = torch.rand(len(LAYERS), len(HEADS), count, PROMPT + count, generator=rng) ** 6
        weights[..., list(SINKS)] += 2.0
        weights /= weights.sum(-1, keepdim=True)
        values: dict[str, Any] = {
            "weights": weights[..., :PROMPT],
            "to_answer": weights[..., PROMPT:],
            "tokens": list(TOKENS),
            "prompt_tokens": [f"p{index}" for index in range(PROMPT)],
            "spans": {
                "first token": [0],
                "system": [1],
                "image": list(range(FIRST_IMAGE, REGION)),
                "region1": [REGION],
                "question": [REGION + 1, REGION + 2],
            },
            "logprobs": -torch.rand(count, generator=rng),
            "layers": LAYERS,
            "heads": HEADS,
            "grid": GRID,
            "image_size": (160, 120),
            "image": Image.fromarray(np.random.default_rng(seed).integers(0, 255, (120, 160, 3), dtype=np.uint8)),
            "regions": {1: (20.0, 30.0, 80.0, 90.0)} if regions else {},
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def row(self, token: int, layer: int | None = None, head: int | None = None) -> Tensor:
        rows = self.weights[:, :, token]
        rows = rows.mean(0) if layer is None else rows[LAYERS.index(layer)]
        return rows.mean(0) if head is None else rows[HEADS.index(head)]

    def to_image(self, token: int, layer: int | None = None, head: int | None = None) -> Tensor:
        return self.row(token, layer, head)[FIRST_IMAGE:REGION].reshape(GRID, GRID)

    def sinks(self) -> list[Any]:
        return [SimpleNamespace(position=at, span="image" if at else "first token", token=f"p{at}") for at in SINKS]

    def rollout(self) -> Tensor:
        return self.weights.mean((0, 1))

    def relevancy(self, token: int) -> Tensor:
        if token == 3:
            raise RuntimeError("this model gives no gradients; load it without quantization")
        return self.weights[0, 0, token] * (token + 1)


@dataclass(frozen=True)
class FakeAnswer(Answer):
    """ablated: the requested ablations, as (region, how, generate)."""

    seed: int = 0
    regions: int = 1
    ablated: list[tuple[int, str, bool]] = field(default_factory=list)

    def attention(self, **options: Any) -> FakeAttention:
        return FakeAttention(self.seed, self.regions)

    def check_weights(self, attention: Attention) -> None:
        """There are no weights."""

    def ablate(self, region: int, how: str, *, generate: bool = True) -> Any:
        self.ablated.append((region, how, generate))
        if how == "swap":
            raise ValueError("there is no other region to swap with; give box=")
        change = torch.linspace(-3, 0.5, len(TOKENS))
        return SimpleNamespace(
            tokens=list(TOKENS),
            change=change,
            answer="a blue star" if generate else "",
            verdict=lambda token: (
                f"without region 1 the log-probability of {TOKENS[token]!r} changes by {change[token]:.1f}"
            ),
        )


def fake_answer(seed: int = 0, regions: int = 1) -> FakeAnswer:
    count = len(TOKENS)
    return FakeAnswer("".join(TOKENS), list(TOKENS), [0] * count, [0.0] * count, 0, 0, 0.0, seed=seed, regions=regions)
