"""Muon: momentum steps, with the matrix made orthogonal, so that every direction is learnt at the same pace.

After Jordan and others (2024) with the scale of Liu and others (arXiv 2502.16982), in float32: PyTorch's own computes
in bfloat16, which most CPUs only imitate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

ITERATIONS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)
RMS = 0.2  # of an update at learning rate 1, about what AdamW's is


class Muon(torch.optim.Optimizer):
    """For the matrices inside a network; embeddings, outputs, norms and biases need another optimizer."""

    def __init__(
        self, matrices: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum"] = torch.zeros_like(matrix)
                state["momentum"].lerp_(matrix.grad, 1 - group["momentum"])
                ahead = matrix.grad.lerp(state["momentum"], group["momentum"])
                by_shape[tuple(matrix.shape)].append((matrix, ahead))
            for shape, pairs in by_shape.items():
                steps = orthogonal(torch.stack([ahead for _, ahead in pairs]))
                for (matrix, _), one in zip(pairs, steps, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(one, alpha=-group["lr"] * RMS * max(shape) ** 0.5)


def orthogonal(matrices: Tensor) -> Tensor:
    """(N, rows, columns) → the same with all singular values brought near 1, by Newton-Schulz iterations."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x
