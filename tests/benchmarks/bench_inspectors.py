"""The demo model: how soon the inspectors open, and what they ask of the kernel afterwards."""

from __future__ import annotations

from typing import TypeVar

from timing import measured

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data.scenes.scene import make_scene
from gpt4roi_nb.widgets import AttentionInspector, RoIInspector

Inspector = TypeVar("Inspector", AttentionInspector, RoIInspector)
REPEATS = 5
OPEN_SECONDS = 1.0
ROUND_TRIP_SECONDS = 0.25
QUESTION = "What is <region1>, and is it the same colour as <region2>?"


def computed(inspector: Inspector) -> Inspector:
    """The inspector, when all that it computes in the background is there."""
    inspector._worker.wait()
    return inspector


def run() -> list[dict[str, object]]:
    gpt4roi = GPT4RoI.from_pretrained()
    scene = make_scene(0, n_objects=6)
    boxes = [tuple(item.box) for item in scene.objects]
    session = gpt4roi.session(scene.image)
    answer = session.ask(QUESTION, boxes[:2])
    inspector, roi = computed(AttentionInspector(answer)), computed(RoIInspector(session, boxes))
    tokens, moves = iter(range(len(answer.tokens))), iter(range(1, REPEATS + 1))
    wanted = {"type": "map", "side": 0, "layer": -1, "head": -1, "method": "relevancy"}

    def ask() -> None:
        inspector.view._handle_custom_msg({**wanted, "token": next(tokens)}, [])  # a new one each
        computed(inspector)

    def move() -> None:
        by = next(moves)
        roi.set_boxes([(x1 + by, y1, x2 + by, y2) for x1, y1, x2, y2 in boxes[:1]])
        computed(roi)

    works = {
        # It records the attention, looks for sinks, and tests both regions.
        "opening an AttentionInspector with two ablations": lambda: computed(AttentionInspector(answer)).close(),
        f"opening a RoIInspector with {len(boxes)} boxes": lambda: computed(RoIInspector(session, boxes)).close(),
        "a token's relevancy on demand": ask,
        "following a moved box": move,
    }
    limits = dict(zip(works, (OPEN_SECONDS, OPEN_SECONDS, ROUND_TRIP_SECONDS, ROUND_TRIP_SECONDS), strict=True))
    found = measured(works, REPEATS)
    if inspector.view.ablations == [] or roi.view.problem:
        raise RuntimeError(f"an inspector did not do its work: {roi.view.problem!r}")
    return [
        {
            "what": f"{what}, by the clock / {limits[what]:g} s",
            "ratio": took.wall / limits[what],
            "demand": "<= 1",
            "detail": str(took),
        }
        for what, took in found.items()
    ]
