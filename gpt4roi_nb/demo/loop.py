"""A training phase that lasts a given time, decays its learning rate to zero, and goes on where it was broken off."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gpt4roi_nb.demo.recipe import Recipe

SAVE_EVERY = 120.0  # seconds
REPORT_EVERY = 20.0  # seconds
MAX_GRADIENT_NORM = 1.0
SMOOTHING = 0.98  # of the reported losses

Step = Callable[[np.random.Generator], dict[str, Tensor]]


def run_phase(
    name: str,
    folder: Path,
    trained: nn.Module,
    step: Step,
    *,
    minutes: float,
    rate: float,
    recipe: Recipe,
    seed: int,
    report: Callable[[str], None] = print,
) -> int:
    """Trains `trained` in place for so many minutes, or loads the state of a finished run; returns the steps taken.

    Args:
        folder: where `<name>.pt` is kept: weights, optimizer and progress, so that a broken run goes on.
        trained: the module whose parameters with `requires_grad` are updated.
        step: makes a batch from a random generator and returns its losses by name; their sum is minimised.
        minutes: training time; the time of earlier, broken runs counts.
        rate: the highest learning rate, after a short rise; it then falls to zero along a cosine.
    """
    path = folder / f"{name}.pt"
    decayed = [p for p in trained.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in trained.parameters() if p.requires_grad and p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=rate,
        betas=recipe.betas,
        fused=True,
    )
    seconds, spent, steps = 60 * minutes, 0.0, 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        trained.load_state_dict(state["weights"])
        if state["finished"]:
            report(f"{name}: finished before, after {state['steps']} steps")
            return state["steps"]
        optimizer.load_state_dict(state["optimizer"])
        spent, steps = state["spent"], state["steps"]
        report(f"{name}: goes on after {steps} steps")
    rng = np.random.default_rng((seed, steps))
    torch.manual_seed(seed + steps)

    def save(finished: bool) -> None:
        state = {"weights": trained.state_dict(), "spent": spent, "steps": steps, "finished": finished}
        if not finished:
            state["optimizer"] = optimizer.state_dict()
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    saved = reported = spent
    smooth: dict[str, float] = {}
    while spent < seconds:
        started = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(spent / seconds, recipe.warmup_share)
        losses = step(rng)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(decayed + others, MAX_GRADIENT_NORM)
        optimizer.step()
        steps += 1
        for key, value in losses.items():
            smooth[key] = SMOOTHING * smooth.get(key, value.item()) + (1 - SMOOTHING) * value.item()
        spent += time.perf_counter() - started
        if spent - reported > REPORT_EVERY:
            reported = spent
            figures = "  ".join(f"{key} {value:.3f}" for key, value in smooth.items())
            place = f"{spent / 60:.1f} of {minutes:.1f} min, step {steps}, {steps / spent:.1f} a second"
            report(f"{name}: {place}  {figures}")
        if spent - saved > SAVE_EVERY:
            saved = spent
            save(finished=False)
    save(finished=True)
    return steps


def schedule(progress: float, warmup: float) -> float:
    """The learning rate as a share of the highest, at a progress from 0 to 1: a straight rise, then a cosine to 0."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * min((progress - warmup) / (1 - warmup), 1.0)))
