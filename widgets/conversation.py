"""The widget beside the image: the conversation with its turns, chips, question line and buttons."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import traitlets

from gpt4roi_nb import Turn
from gpt4roi_nb.widgets.esm import module, style
from gpt4roi_nb.widgets.worker import WorkingView

MAX_NEW_TOKENS = 256


class Conversation(WorkingView):
    """A conversation about an image. It holds only text and colors; `RegionChat` acts on its messages.

    turns: [{"question", "answer", "stopped", "regions": how many regions the conversation had then}], oldest first.
    pending: the question that is being answered, "" for none. streaming: its answer so far.
    regions: [{"number", "color", "name": "" for none}]: the regions that can be put into a question.
    busy: a text about the running work; "" when a question can be asked.
    problem: what went wrong, as a text. notice: a text that is good to know.
    draft: the question line, which the browser does not send until it asks; `put_line` changes it.
    examples: example questions. about: a text about the checkpoint.
    colors: region colors, of which region n has number (n - 1) modulo their count.
    ratio: of the image, width by height.
    temperature, max_new_tokens, seed: how answers are written, as `RegionSession.ask` takes them.
    inspectable: whether each answer has a button to look inside it.
    earlier: whether Undo, without turns, brings an earlier conversation back.

    Messages from the browser: {"type": "ask", "text"}, {"type": "stop"}, {"type": "undo"}, {"type": "new"},
    {"type": "image"}, {"type": "inspect", "turn": from 0}, {"type": "export", "format": "md" or "html"},
    {"type": "save"}, and {"type": "told", "turn": from 0}, which is answered with {"type": "told", "turn", "text",
    "note": [[name, value]]} and an image file per image that the model was shown.

    The browser empties its line when it asks, and asks nothing more until `take` or `put_back` has answered it.
    """

    _esm = module("conversation_tools.js", "model_input.js", "conversation.js")
    _css = style("conversation.css")

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
    inspectable = traitlets.Bool(True).tag(sync=True)
    earlier = traitlets.Bool(False).tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self._put = ""  # what `put_line` put into the line last

    def set_history(self, history: Iterable[Turn]) -> None:
        """Show these turns, oldest first."""
        turns: list[dict[str, Any]] = []
        regions = 0
        for turn in history:
            regions += len(turn.regions)
            answer = turn.answer
            turns.append(
                {"question": turn.question, "answer": answer.text, "stopped": answer.stopped, "regions": regions}
            )
        self.turns = turns

    # Messages and not a trait: typed text reaches the kernel late, and a trait would send an old state back.

    def put_line(self, text: str) -> None:
        """Put a text into the question line, unless somebody is typing there."""
        self.send({"type": "line", "text": text, "instead_of": ["", self._put.strip()]})
        self._put = text

    def take(self, text: str) -> None:
        """Tell the browser that the typed question is being answered."""
        self.send({"type": "taken", "text": text})

    def put_back(self, text: str) -> None:
        """Return a typed question that was not asked or not answered to its line, before any text typed since."""
        self.send({"type": "back", "text": text})

    def hand_out(self, name: str, mime: str, data: bytes) -> None:
        """Have the browser download a file."""
        self.send({"type": "file", "name": name, "mime": mime}, [data])
