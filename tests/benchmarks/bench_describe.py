"""The demo model: `describe` for many boxes against asking about each, and a further answer against the first."""

from __future__ import annotations

import statistics
import time

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data.scenes import make_scene

BOXES = 16
REPEATS = 5
QUESTION = "What is <region1>?"


def run() -> list[dict[str, object]]:
    gpt4roi = GPT4RoI.from_pretrained()
    scene = make_scene(0, n_objects=6)
    objects = [tuple(item.box) for item in scene.objects]
    boxes = [objects[index % len(objects)] for index in range(BOXES)]
    gpt4roi.session(scene.image).ask(QUESTION, boxes[:1])  # warms up

    first, following, ratios, single_times = [], [], [], []
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
        single = time.perf_counter() - started
        following.append(single / BOXES)

        started = time.perf_counter()
        described = session.describe(boxes, QUESTION)
        batched = time.perf_counter() - started
        ratios.append(single / batched)
        single_times.append((single, batched))
        if [answer.text for answer in asked] != [answer.text for answer in described]:
            raise RuntimeError("describe and ask gave different answers; their times cannot be compared")
    single, batched = single_times[ratios.index(statistics.median_low(ratios))]
    return [
        {
            "what": f"time of {BOXES} single questions / of describe with {BOXES} boxes",
            "ratio": statistics.median(ratios),
            "demand": ">= 4",
            "detail": f"{single:.2f} s and {batched:.2f} s; the single ones share the encoded image and prompt prefix",
        },
        {
            "what": "a further question with a new box / image and first question",
            "ratio": statistics.median(following) / statistics.median(first),
            "demand": "",
            "detail": f"{1000 * statistics.median(following):.0f} ms and {1000 * statistics.median(first):.0f} ms",
        },
    ]
