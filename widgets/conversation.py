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
MAX_NEW_TOKENS = 256


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
    ratio: of the image, width by height.
    temperature, max_new_tokens, seed: how answers are written, as `RegionSession.ask` takes them.

    Messages from the browser: {"type": "ask", "text"}, {"type": "stop"}, {"type": "undo"}, {"type": "new"},
    {"type": "image"}, {"type": "inspect", "turn": from 0}, {"type": "export", "format": "md" or "html"},
    {"type": "save"}.

    The browser empties its line when it asks, and asks nothing more until `take` or `put_back` has answered it.
    """

    _esm = module("conversation_tools.js", "conversation.js")
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
    ratio = traitlets.Float(1.0).tag(sync=True)
    temperature = traitlets.Float(0.0).tag(sync=True)
    max_new_tokens = traitlets.Int(MAX_NEW_TOKENS).tag(sync=True)
    seed = traitlets.Int(None, allow_none=True).tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self._put = ""  # what `put_line` put into the line last

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

    # Messages and no trait: what a person types reaches the kernel late, and would come back as an old state.

    def put_line(self, text: str) -> None:
        """Puts a text into the question line, unless somebody is typing there."""
        self.send({"type": "line", "text": text, "instead_of": ["", self._put.strip()]})
        self._put = text

    def take(self) -> None:
        """The question that was typed is being answered."""
        self.send({"type": "taken"})

    def put_back(self, text: str) -> None:
        """The question that was typed is not asked, or was not answered: it returns to its line, before what is typed
        there by now."""
        self.send({"type": "back", "text": text})

    def hand_out(self, name: str, mime: str, data: bytes) -> None:
        """Gives a file to the browser to keep."""
        self.send({"type": "file", "name": name, "mime": mime}, [data])
