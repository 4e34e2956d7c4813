"""Names for the parts of a prompt that an answer can attend to."""

from __future__ import annotations

from gpt4roi_nb.prompt import Prompt

FIRST_TOKEN, ANSWER_SO_FAR = "first token", "answer so far"


def named_spans(prompt: Prompt) -> dict[str, list[int]]:
    """Return the positions of a prompt by name; every position belongs to exactly one.

    - "first token": only the very first one. It belongs to the opening but often draws attention whatever it is.
    - "system": the rest of the opening, including the tokens around the image.
    - "image": the grid, row by row.
    - "region1", …: only the region's token, although it stands inside a question.
    - "question": the words of the last question; "earlier turns": all questions and answers before it.
    - "marks": what stands between turns.
    """
    turns = [name for name in prompt.spans if name.startswith(("question", "answer"))]
    last = max((name for name in turns if name.startswith("question")), key=lambda name: int(name[len("question") :]))
    spans: dict[str, list[int]] = {FIRST_TOKEN: [0], "system": prompt.spans.get("system", []), "image": []}
    spans["image"] = prompt.spans.get("image", [])
    spans |= {f"region{number}": prompt.spans[f"region{number}"] for number in sorted(prompt.regions)}
    spans["earlier turns"] = sorted(position for name in turns if name != last for position in prompt.spans[name])
    spans["question"] = prompt.spans[last]
    spans["marks"] = prompt.spans.get("marks", [])
    return {
        name: [position for position in positions if position > 0 or name == FIRST_TOKEN]
        for name, positions in spans.items()
    }
