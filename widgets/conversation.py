"""The conversation beside the image, as a widget of its own: turns, chips, question line, buttons."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import traitlets

from gpt4roi_nb import Turn
from gpt4roi_nb.widgets.esm import module
from gpt4roi_nb.widgets.worker import WorkingView

_HERE = Path(__file__).parent


class Conversation(WorkingView):
    """What is said about an image. Holds text and colors only; what to do about it is `RegionChat`'s business.

    turns: [{"question", "answer", "stopped", "regions": how many regions the conversation had then}], oldest first.
    pending: the question that is being answered, "" when none. streaming: its answer so far.
    regions: [{"number", "color"}]: what can be put into a question.
    busy: what is going on, in words; "" when a question can be asked.
    problem: what went wrong, in words. notice: something worth knowing.
    draft: the question line, which the browser keeps to itself until it asks; `put_line` changes it.
    examples: questions to begin with. about: what the checkpoint is.
    colors: region colors, of which region n has number (n - 1) modulo their count.

    Messages from the browser: {"type": "ask", "text"}, {"type": "stop"}, {"type": "undo"}, {"type": "new"},
    {"type": "image"}, {"type": "inspect", "turn": from 0}.
    """

    _esm = module("conversation.js")
    _css = _HERE / "conversation.css"

    turns: traitlets.List[Any] = traitlets.List().tag(sync=True)
    pending = traitlets.Unicode().tag(sync=True)
    streaming = traitlets.Unicode().tag(sync=True)
    regions: traitlets.List[Any] = traitlets.List().tag(sync=True)
    stoppable = traitlets.Bool(False).tag(sync=True)
    notice = traitlets.Unicode().tag(sync=True)
    draft = traitlets.Unicode().tag(sync=True)
    examples = traitlets.List(traitlets.Unicode()).tag(sync=True)
    about = traitlets.Unicode().tag(sync=True)
    colors = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def set_history(self, history: Iterable[Turn]) -> None:
        """Shows these turns, oldest first."""
        turns: list[dict[str, Any]] = []
        regions = 0
        for turn in history:
            regions += len(turn.regions)
            answer = turn.answer
            turns.append(
                {"question": turn.question, "answer": answer.text, "stopped": answer.stopped, "regions": regions}
            )
        self.turns = turns

    def put_line(self, text: str, instead_of: str = "") -> None:
        """Puts a text into the question line, if that holds what it is to replace; else somebody is typing there.

        A message and no trait: what a person types reaches the kernel late, and would come back as an old state.
        """
        self.send({"type": "line", "text": text, "instead_of": instead_of})
