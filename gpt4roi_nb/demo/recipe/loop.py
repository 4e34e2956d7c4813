"""A training phase: a fixed number of steps with a learning rate that falls to zero; an interrupted one continues."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gpt4roi_nb.demo.recipe.muon import Muon
from gpt4roi_nb.demo.recipe.recipe import Phase, Recipe
from gpt4roi_nb.files import replacing

SAVE_EVERY = 120.0  # seconds
REPORT_EVERY = 20.0  # seconds
MAX_GRADIENT_NORM = 1.0
SMOOTHING = 0.98  # of the reported losses
# Names of the matrices that Muon trains: inside the language model, and inside a tower's last layers (`OrderPhase`, and
# `LanguagePhase`). A tower that trains as a whole is AdamW's: in `VisionPhase` its names begin with "vision_tower.".
MUONS = re.compile(r"layers\.|.*language_model\.model\.layers\.|model\.vision_tower\.encoder\.layers\.")

Step = Callable[[np.random.Generator], dict[str, Tensor]]


def run_phase(
    name: str,
    folder: Path,
    trained: nn.Module,
    step: Step,
    *,
    phase: Phase,
    recipe: Recipe,
    seed: int,
    report: Callable[[str], None] = print,
) -> dict[str, float]:
    """Train `trained` in place, or load a finished run; return `{"steps": …, "minutes": …, "threads": …}`.

    Args:
        folder: where `<name>.pt` is kept: weights, optimizers and progress, so that an interrupted run continues.
        trained: the module whose parameters with `requires_grad` are updated.
        step: makes a batch from a random generator and returns its losses by name; their sum is minimised.
        phase: number of steps and highest learning rate, after a short rise; it then falls to zero along a cosine.

    Raises:
        ValueError: if the folder holds this phase of another recipe or seed.
    """
    path = folder / f"{name}.pt"
    training = {name: p for name, p in trained.named_parameters() if p.requires_grad}
    optimizers = make_optimizers(trained, recipe)
    spent, steps = 0.0, 0
    made_as = {"seed": seed, **asdict(phase), **recipe.shared()}
    if path.exists():
        state = torch.load(path, weights_only=True)
        if state.get("made as") != made_as or state["weights"].keys() != training.keys():
            raise ValueError(
                f"{path} is of another recipe or seed, {state.get('made as')}; use another run folder (--run)"
            )
        trained.load_state_dict(state["weights"], strict=False)  # of what trains in this phase, and of nothing else
        spent, steps = state["spent"], state["steps"]
        if state["finished"]:
            report(f"{name}: finished before, after {steps} steps")
            return {"steps": steps, "minutes": spent / 60, "threads": state["threads"]}
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        report(f"{name}: continues after {steps} steps")

    def save(finished: bool) -> None:
        weights = {name: parameter.detach() for name, parameter in training.items()}
        state = {"weights": weights, "spent": spent, "steps": steps, "finished": finished}
        state |= {"threads": torch.get_num_threads(), "made as": made_as}
        if not finished:
            state["optimizers"] = [optimizer.state_dict() for optimizer in optimizers]
        with replacing(path) as partial:
            torch.save(state, partial)

    saved = reported = spent
    smooth: dict[str, float] = {}
    while steps < phase.steps:
        started = time.perf_counter()
        progress = steps / phase.steps
        losses = step(np.random.default_rng((seed, steps)))
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(training.values(), MAX_GRADIENT_NORM)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = phase.rate * schedule(progress, recipe.warmup_share)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        steps += 1
        for key, value in losses.items():
            smooth[key] = SMOOTHING * smooth.get(key, value.item()) + (1 - SMOOTHING) * value.item()
        spent += time.perf_counter() - started
        if spent - reported > REPORT_EVERY:
            reported = spent
            figures = "  ".join(f"{key} {value:.3f}" for key, value in smooth.items())
            report(f"{name}: step {steps} of {phase.steps}, {spent / 60:.1f} min  {figures}")
        if spent - saved > SAVE_EVERY:
            saved = spent
            save(finished=False)
    save(finished=True)
    return {"steps": steps, "minutes": spent / 60, "threads": torch.get_num_threads()}


def make_optimizers(trained: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the language model and the tower's last layers; AdamW for all else that trains."""
    inner: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in trained.named_parameters():
        if parameter.requires_grad:
            kept = others if parameter.ndim <= 1 else inner if MUONS.match(name) else decayed
            kept.append(parameter)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, betas=recipe.betas, fused=True)]
    if inner:
        optimizers.append(Muon(inner, lr=1.0, weight_decay=recipe.weight_decay))
    return optimizers


def schedule(progress: float, warmup: float) -> float:
    """The learning rate as a share of the highest, at a progress from 0 to 1: a straight rise, then a cosine to 0.

    One for two optimizers, whose phases may be interrupted; the embedded weights come from these very rates."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * min((progress - warmup) / (1 - warmup), 1.0)))
