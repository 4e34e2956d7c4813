"""The demo model: recording an answer's attention against one plain teacher-forced pass over the same tokens."""

from __future__ import annotations

from functools import partial

import torch
from timing import measured, quotient

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data.scenes.scene import make_scene

REPEATS = 25


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
    ways = {"plain": plain, "float32": answer.attention, "float16": partial(answer.attention, dtype=torch.float16)}
    found = measured(ways, REPEATS)
    rows: list[dict[str, object]] = []
    for kind in ("float32", "float16"):
        ratio, detail = quotient(found[kind], found["plain"])
        what = f"recording attention, {kind} / a plain teacher-forced pass"
        rows.append({"what": what, "ratio": ratio, "demand": "<= 1.5", "detail": detail})
    return rows
