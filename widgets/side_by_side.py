"""One failure under several models: their stored answers side by side, and a question line that asks all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import traitlets

from gpt4roi_nb import Answer, RegionSession
from gpt4roi_nb.draw import draw_regions
from gpt4roi_nb.prompt import enumeration
from gpt4roi_nb.session.references import spelled
from gpt4roi_nb.session.region_model import RegionModel
from gpt4roi_nb.widgets.compared import Compared
from gpt4roi_nb.widgets.conversation import MAX_NEW_TOKENS
from gpt4roi_nb.widgets.display_image import display_image
from gpt4roi_nb.widgets.errors import in_words, strip_traceback
from gpt4roi_nb.widgets.esm import module
from gpt4roi_nb.widgets.failure_card import stored
from gpt4roi_nb.widgets.questions import check_named
from gpt4roi_nb.widgets.regions import RegionBook
from gpt4roi_nb.widgets.worker import Worker, WorkingView, problems_shown

_HERE = Path(__file__).parent
UPDATES_PER_SECOND = 10
# States of an answer.
WAITING, WRITING, DONE, STOPPED, CANNOT = "waiting", "writing", "done", "stopped", "cannot"
NO_MODEL = "Only its answers are here, and no model to ask."
STOPPED_BEFORE = "Stopped before it was asked."


class SideBySideView(WorkingView):
    """An image, and a column per model. It holds only values; `SideBySide` acts.

    image: a PNG or JPEG file with the regions drawn; empty for none.
    columns: [{"letter", "name", "way", "notes": [text], "can": whether there is a model to ask}].
    stored: per column {"answer", "verdict", "wrong", "facts", "question": "" if it is that of the line}, or {"absent":
    why there is none}.
    line: the question as it was stored, which the question line begins with.
    turns: [{"question", "answers": [{"text", "state", "question": "" if it is the turn's}]}], oldest first. state:
    "waiting", "writing", "done", "stopped", or "cannot", whose text says why.
    stoppable: whether answers are being written. busy, problem: texts, "" for none.

    Messages from the browser: {"type": "ask", "text"}, {"type": "stop"}, and {"type": "told", "turn": "turn.column"},
    where turn -1 is the stored answer; it is answered as in `Conversation`.
    """

    _esm = module("model_input.js", "side_by_side.js")
    _css = _HERE / "side_by_side.css"

    image = traitlets.Bytes().tag(sync=True)
    columns: traitlets.List[Any] = traitlets.List().tag(sync=True)
    stored: traitlets.List[Any] = traitlets.List().tag(sync=True)
    line = traitlets.Unicode().tag(sync=True)
    turns: traitlets.List[Any] = traitlets.List().tag(sync=True)
    stoppable = traitlets.Bool(False).tag(sync=True)


class SideBySide:
    """The failure that several models are asked about, each in a conversation of its own.

    Attributes:
        view: the widget.
        max_new_tokens: the most tokens per answer.
    """

    def __init__(self, compared: Sequence[Compared]) -> None:
        self.view = SideBySideView(columns=[_column(one) for one in compared])
        self.max_new_tokens = MAX_NEW_TOKENS
        self._compared = tuple(compared)
        self._item = ""
        self._row: dict[str, Any] = {}
        self._sessions: dict[str, RegionSession] = {}  # by letter, about the image that is shown
        self._asked: list[list[str]] = []  # per turn and column
        self._worker = Worker(self.view)
        self._stop = threading.Event()
        self.view.on_msg(self._on_message)

    def show(self, item: str) -> None:
        """Show a failure and the stored answers.

        Raises:
            RuntimeError: answers are being written.
        """
        with self._worker.lock:
            self._check_idle()
            row = self._compared[0].rows[item]
            boxes = [list(box) for box in row["boxes"]]
            self._item, self._row, self._sessions, self._asked = item, row, {}, []
            self.view.turns = []
            self.view.image = display_image(draw_regions(row["image"], boxes)).data
            self.view.stored = [stored(one.rows.get(item), row["question"]) for one in self._compared]
            self.view.line = ""  # text typed in the browser is not known here, and would otherwise stay
            self.view.line = row["question"]

    def ask(self, question: str | None = None) -> list[Answer | None]:
        """See `FailureBrowser.ask_all`."""
        asking = self._start(question)
        try:
            return asking.result() or []
        except KeyboardInterrupt:
            self.stop()
            asking.exception()  # the text so far is kept before the cell ends
            raise

    def stop(self) -> None:
        """Stop the answer that is being written, and ask no further model; the text so far stays."""
        self._stop.set()

    def close(self) -> None:
        """Remove the view and end its thread; an answer that is being written stops."""
        self.stop()
        self._worker.close()
        self._sessions = {}
        self.view.close()

    # ---------------------------------------------------------------------------------------------- answering

    def _check_idle(self) -> None:
        if self._worker.working:
            raise RuntimeError("answers are being written; wait for them, or stop them first")

    def _start(self, question: str | None) -> Future[list[Answer | None] | None]:
        with self._worker.lock:
            self._check_idle()
            if not self._row:
                raise RuntimeError("no failure is shown to ask about")
            text = str(self._row["question"] if question is None else question).strip()
            if not text:
                raise ValueError("the question is empty; type one first")
            check_named(text, len(self._row["boxes"]))
            as_measured = text == self._row["question"].strip()
            asked = [one.rows.get(self._item, self._row)["question"] if as_measured else text for one in self._compared]
            self._asked.append(asked)
            answers = [
                {"text": "", "state": WAITING, "question": own if own.strip() != text else ""}
                if one.model is not None
                else {"text": NO_MODEL, "state": CANNOT, "question": ""}
                for one, own in zip(self._compared, asked, strict=True)
            ]
            self.view.problem = ""
            self.view.turns = [*self.view.turns, {"question": text, "answers": answers}]
            self.view.stoppable = True
            self._stop = threading.Event()
            return self._worker.submit("Answering…", lambda: self._answer_all(asked), self._ended, failed=self._failed)

    def _answer_all(self, asked: Sequence[str]) -> list[Answer | None]:
        return [self._answer(column, question) for column, question in enumerate(asked)]

    def _answer(self, column: int, question: str) -> Answer | None:
        """Ask one model, in the worker. What it cannot do becomes words in its column, and the others are asked."""
        one = self._compared[column]
        if one.model is None:
            return None
        if self._stop.is_set():
            self._put(column, STOPPED_BEFORE, CANNOT)
            return None
        self._put(column, "", WRITING)
        try:
            session = self._session(one.letter, one.model)
            session.reset()
            text, shown = "", 0.0
            for piece in session.stream(*self._question(question), max_new_tokens=self.max_new_tokens, stop=self._stop):
                text += piece
                now = time.monotonic()
                if now - shown >= 1 / UPDATES_PER_SECOND:
                    self._put(column, text, WRITING)
                    shown = now
        except (ValueError, TypeError, RuntimeError, OSError, MemoryError, FloatingPointError) as error:
            self._sessions.pop(one.letter, None)
            self._put(column, in_words(error), CANNOT)
            strip_traceback(error)
            return None
        if not session.history:
            self._put(column, "Stopped before the first word.", CANNOT)
            return None
        answer = session.history[-1].answer
        self._put(column, answer.text, STOPPED if answer.stopped else DONE)
        return answer

    def _session(self, letter: str, model: RegionModel) -> RegionSession:
        """The model's conversation about the image, which is encoded with its first question."""
        if letter not in self._sessions:
            self._sessions[letter] = model.session(self._row["image"])
        return self._sessions[letter]

    def _question(self, text: str) -> tuple[str, Sequence[Any]]:
        """A question and the boxes that it names, numbered as a conversation that begins with it numbers them."""
        book = RegionBook()
        book.set_new([tuple(box) for box in self._row["boxes"]])
        question = book.question(spelled(text))
        return question.text, question.boxes

    def _put(self, column: int, text: str, state: str) -> None:
        """Show an answer of the last turn as it is now."""
        with self._worker.lock:
            if self._worker.closed:
                return
            *before, last = self.view.turns
            answers = list(last["answers"])
            answers[column] = {**answers[column], "text": text, "state": state}
            self.view.turns = [*before, {**last, "answers": answers}]

    def _ended(self, _: object) -> None:
        self.view.stoppable = False

    def _failed(self, error: Exception) -> None:
        for column, answer in enumerate(self.view.turns[-1]["answers"]):
            if answer["state"] in (WAITING, WRITING):
                self._put(column, answer["text"], STOPPED)
        self.view.stoppable = False
        self.view.problem = in_words(error, expected=False)

    # ---------------------------------------------------------------------------------------- from the browser

    def _on_message(self, _: Any, content: dict[str, Any], buffers: list[Any]) -> None:
        kind = content.get("type")
        with problems_shown(self.view):
            if kind == "ask":
                self._start(str(content["text"]))
            elif kind == "stop":
                self.stop()
            elif kind == "told":
                turn, column = map(int, str(content["turn"]).split("."))
                self._tell(turn, column)

    def _tell(self, turn: int, column: int) -> None:
        """Send the browser what a model reads. turn: -1 for the stored answer."""
        one = self._compared[column]
        if one.model is None:
            raise RuntimeError(NO_MODEL)
        question = one.rows[self._item]["question"] if turn < 0 else self._asked[turn][column]
        rendered = one.model.render(self._row["image"], *self._question(question))
        note = [[name, str(value)] for name, value in rendered.note.items()]
        images = [display_image(image).data for image in rendered.images]
        self.view.send({"type": "told", "turn": f"{turn}.{column}", "text": rendered.text, "note": note}, images)


def _column(one: Compared) -> dict[str, Any]:
    """The head of a model's column: its name, its way, and what it cannot do."""
    notes = []
    if one.model is None:
        notes.append(NO_MODEL)
    else:
        can = one.model.capabilities
        tasks: Sequence[str] = getattr(one.model, "tasks", ())
        if not can.free_question:
            notes.append(f"Takes no free question, only {enumeration([f'“{task}”' for task in tasks])}.")
        elif not can.several_regions:
            notes.append("Takes one region at a time.")
    if one.result.card.scorer == "likelihood":
        notes.append("Its stored answer is the likeliest of the options; asked again, it writes freely.")
    return {"letter": one.letter, "name": one.name, "way": one.way, "notes": notes, "can": one.model is not None}
