"""The demo model: recording an answer's attention against one plain teacher-forced pass over the same tokens."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data.scenes.scene import make_scene

REPEATS = 25


def busy(work: Callable[[], object]) -> float:
    """Processor time: what other programs do is not counted."""
    started = time.process_time()
    work()
    return time.process_time() - started


def run() -> list[dict[str, object]]:
    gpt4roi = GPT4RoI.from_pretrained()
    scene = make_scene(0, n_objects=6)
    session = gpt4roi.session(scene.image)
    session.ask("What is <region1>?", [scene.objects[0].box])
    answer = session.ask("Is it the same colour as <region2>?", [scene.objects[1].box])
    replay = answer.replay

    def plain() -> torch.Tensor:
        return replay.log_probabilities(replay.embeddings())

    plain(), answer.attention(), answer.attention(dtype=torch.float16)
    ways = {"plain": plain, "whole": answer.attention, "half": lambda: answer.attention(dtype=torch.float16)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):  # in turn, so that a busy machine slows all of them
        for name, work in ways.items():
            times[name].append(busy(work))
    best = {name: min(several) for name, several in times.items()}
    return [
        {
            "what": f"recording attention, {kind} / a plain teacher-forced pass",
            "ratio": best[name] / best["plain"],
            "demand": "<= 1.5",
            "detail": f"{best[name] * 1e3:.1f} ms and {best['plain'] * 1e3:.1f} ms of processor time",
        }
        for name, kind in (("whole", "float32"), ("half", "float16"))
    ]
