"""The demo model: `describe` for many boxes against asking about each, and a further answer against the first."""

from __future__ import annotations

from timing import Seconds, measured, quotient

from gpt4roi_nb import Answer, GPT4RoI
from gpt4roi_nb.data.scenes.scene import make_scene

BOXES = 16
REPEATS = 15
QUESTION = "What is <region1>?"


def run() -> list[dict[str, object]]:
    gpt4roi = GPT4RoI.from_pretrained()
    scene = make_scene(0, n_objects=6)
    objects = [tuple(item.box) for item in scene.objects]
    boxes = [objects[index % len(objects)] for index in range(BOXES)]
    session = gpt4roi.session(scene.image)
    said: dict[str, list[str]] = {}

    def first() -> None:
        gpt4roi.session(scene.image).ask(QUESTION, boxes[:1])

    def singly() -> None:
        session._encoded._known.clear()  # the boxes are new
        answers: list[Answer] = []
        for box in boxes:
            session.reset()
            answers.append(session.ask(QUESTION, [box]))
        said["singly"] = [answer.text for answer in answers]

    def together() -> None:
        session._encoded._known.clear()
        said["together"] = [answer.text for answer in session.describe(boxes, QUESTION)]

    works = {"loading": GPT4RoI.from_pretrained, "first": first, "singly": singly, "together": together}
    measured(works, 1)
    if said["singly"] != said["together"]:
        raise RuntimeError("describe and ask gave different answers; their times cannot be compared")
    found = measured(works, REPEATS)
    further = Seconds(*(each / BOXES for each in found["singly"]))
    limits = (
        ("loading", found["loading"], 2.0),
        ("image and first answer", found["first"], 0.5),
        ("a further answer", further, 0.25),
    )
    rows: list[dict[str, object]] = [
        {
            "what": f"{what} on the demo model, by the clock / {limit:g} s",
            "ratio": took.wall / limit,
            "demand": "<= 1",
            "detail": str(took),
        }
        for what, took, limit in limits
    ]
    ratio, detail = quotient(found["singly"], found["together"])
    what = f"{BOXES} single questions / describe with {BOXES} boxes"
    rows.append({"what": what, "ratio": ratio, "demand": ">= 4", "detail": f"{detail}; singly, the image is kept"})
    ratio, detail = quotient(further, found["first"])
    what = "a further question with a new box / image and first question"
    return [*rows, {"what": what, "ratio": ratio, "demand": "", "detail": detail}]
