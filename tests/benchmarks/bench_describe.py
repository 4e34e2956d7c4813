"""The demo model: `describe` for many boxes against asking about each, and a further answer against the first."""

from __future__ import annotations

import time

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data.scenes.scene import make_scene

BOXES = 16
REPEATS = 15
QUESTION = "What is <region1>?"


def run() -> list[dict[str, object]]:
    started = time.perf_counter()
    gpt4roi = GPT4RoI.from_pretrained()
    load = time.perf_counter() - started
    scene = make_scene(0, n_objects=6)
    objects = [tuple(item.box) for item in scene.objects]
    boxes = [objects[index % len(objects)] for index in range(BOXES)]
    warm = gpt4roi.session(scene.image)
    warm.ask(QUESTION, boxes[:1])
    warm.describe(boxes, QUESTION)

    first, singly, together = [], [], []  # seconds
    for _ in range(REPEATS):
        started = time.perf_counter()
        session = gpt4roi.session(scene.image)
        session.ask(QUESTION, boxes[:1])
        first.append(time.perf_counter() - started)

        started = time.perf_counter()
        asked = []
        for box in boxes:
            session.reset()
            asked.append(session.ask(QUESTION, [box]))
        singly.append(time.perf_counter() - started)

        started = time.perf_counter()
        described = session.describe(boxes, QUESTION)
        together.append(time.perf_counter() - started)
        if [answer.text for answer in asked] != [answer.text for answer in described]:
            raise RuntimeError("describe and ask gave different answers; their times cannot be compared")
    single, batched = min(singly), min(together)  # the best of each: what is slower is another program's doing
    limits = (("loading", load, 2.0), ("image and first answer", min(first), 0.5), ("a further", single / BOXES, 0.25))
    return [
        {"what": f"{what} on the demo model / {limit:g} s", "ratio": took / limit, "demand": "<= 1", "detail": ""}
        for what, took, limit in limits
    ] + [
        {
            "what": f"time of {BOXES} single questions / of describe with {BOXES} boxes",
            "ratio": single / batched,
            "demand": ">= 4",
            "detail": f"{single:.2f} s and {batched:.2f} s; the single ones share the encoded image and prompt prefix",
        },
        {
            "what": "a further question with a new box / image and first question",
            "ratio": single / BOXES / min(first),
            "demand": "",
            "detail": f"{1000 * single / BOXES:.0f} ms and {1000 * min(first):.0f} ms",
        },
    ]
