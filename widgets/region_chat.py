"""`RegionChat`: draw boxes on an image and talk about them with the model."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from IPython.display import display
from ipywidgets import HBox, VBox, Widget
from numpy.typing import ArrayLike

from gpt4roi_nb import Answer, GPT4RoI, RegionSession
from gpt4roi_nb.boxes import check_boxes
from gpt4roi_nb.draw import REGION_COLORS
from gpt4roi_nb.images import ImageLike
from gpt4roi_nb.session.export import as_document, as_html, as_markdown, as_text
from gpt4roi_nb.session.references import spelled
from gpt4roi_nb.widgets.attention_inspector import AttentionInspector
from gpt4roi_nb.widgets.cells import after_each_cell
from gpt4roi_nb.widgets.conversation import Conversation
from gpt4roi_nb.widgets.errors import in_words
from gpt4roi_nb.widgets.examples import example_questions
from gpt4roi_nb.widgets.image_picker import ImagePicker, gallery_scene, open_upload, show_more_scenes, why_unreadable
from gpt4roi_nb.widgets.inspections import Inspections
from gpt4roi_nb.widgets.questions import check_named
from gpt4roi_nb.widgets.region_canvas import RegionCanvas
from gpt4roi_nb.widgets.regions import DrawnRegion, unnamed_notice
from gpt4roi_nb.widgets.roi_inspector import RoIInspector
from gpt4roi_nb.widgets.static_copy import StaticCopy
from gpt4roi_nb.widgets.worker import Worker, problems_shown

# As often a second new words are shown: more is not read, and each is a message to the browser.
UPDATES_PER_SECOND = 20
_OPENING = "Looking at the image…"
_RENDERING = "Setting scenes up…"
_SAVED_AS = "conversation"  # name of the files that the browser's buttons make
_MIME = {"md": "text/markdown", "html": "text/html"}


class RegionChat:
    """An image to draw boxes on, and beside it the conversation about them. Show it as the last line of a cell.

    Boxes number themselves region1, region2, … A question names them `<region1>` or "region 1". A region that was
    asked about stays as it is, so that its number keeps its meaning; a new one can be moved, resized and removed. A
    conversation numbers regions in the order in which they are asked about: if a question names region 3 and region 2
    was never asked about, the two change places, and the image says so.

    All of it works from Python as well, and what Python does shows in the notebook:

    - `session`: the `RegionSession` behind the image; `answers`: its answers so far; `regions`: those on the image.
    - `ask`, `stop`, `undo`, `new_conversation`, `set_boxes`, `set_image`, `inspect_answer`, `inspect_region`, `save`.

    A notebook that is saved keeps image, boxes and conversation as HTML, to be read without a kernel.

    Args:
        gpt4roi: a loaded model; or a `RegionSession`, for instance a loaded one, whose conversation goes on.
        image: whatever `GPT4RoI.session` takes; None begins with a generated scene. A session has its own.
    """

    def __init__(self, gpt4roi: GPT4RoI | RegionSession, image: ImageLike | None = None) -> None:
        session: RegionSession | None = None
        model: Any = gpt4roi
        if isinstance(gpt4roi, RegionSession):
            if image is not None:
                raise TypeError("a RegionSession has its own image; leave the image out")
            session, model = gpt4roi, gpt4roi.loaded
        if not hasattr(model, "session"):
            raise TypeError(f"expected a GPT4RoI first, then the image, but a {type(model).__name__} came first")
        self.gpt4roi: GPT4RoI = model
        self.canvas = RegionCanvas(self._regions_changed, on_inspect=self._on_inspect_region)
        self.conversation = Conversation(about=self.gpt4roi.about, colors=list(REGION_COLORS))
        self.picker = ImagePicker()
        self.canvas.widget.layout.width = "auto"
        talk = VBox([self.conversation])
        talk.add_class("gpt4roi-talk")
        sides = HBox([self.canvas.widget, talk])
        sides.add_class("gpt4roi-sides")
        self.inspections = Inspections()
        self.widget = VBox([self.picker, sides, self.inspections.widget])
        self.widget.add_class("gpt4roi-chat")
        self._stop = threading.Event()
        self._worker = Worker(self.conversation)
        self._warned: tuple[int, ...] = ()  # keys of the regions that the user knows to be unnamed
        self._copy = StaticCopy("gpt4roi-chat", self._to_read)
        self._opened = 0  # images so far
        self._show(session or self.gpt4roi.session(gallery_scene() if image is None else image))
        self.conversation.on_msg(self._on_conversation_message)
        self.picker.on_msg(self._on_picker_message)
        after_each_cell(self._follow_cell)

    def _ipython_display_(self) -> None:
        bundle = self.widget._repr_mimebundle_()
        display({**bundle, "text/plain": "A RegionChat; run this cell again to go on."}, raw=True)
        self._copy.show()

    # ------------------------------------------------------------------------------------------- from Python

    @property
    def session(self) -> RegionSession:
        """The conversation behind the image."""
        return self._session

    @property
    def answers(self) -> list[Answer]:
        """The answers so far, oldest first."""
        return [turn.answer for turn in self._session.history]

    @property
    def regions(self) -> tuple[DrawnRegion, ...]:
        """The regions on the image by number: `number`, `box` (pixel xyxy in the original image), `asked`."""
        return self.canvas.regions

    def ask(
        self,
        text: str,
        boxes: ArrayLike | None = None,
        *,
        wait: bool = True,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> Answer | None:
        """Asks as if it had been typed; the answer streams into the notebook.

        Args:
            text: the question. A region that is on the image and new is taken along when the text names it.
            boxes: (N, 4) pixel xyxy of new regions, which the text must name; they come before those drawn by hand.
            wait: wait for the answer and return it; else return None at once.
            max_new_tokens, temperature, seed: as in `RegionSession.ask`; None takes what the settings say.

        Raises:
            ValueError: for bad boxes, an empty text, or references that do not fit; nothing has changed then.
            RuntimeError: while another answer is being written, or after `unload()`.
        """
        drawn = [region.box for region in self.canvas.book.new]
        given = 0
        if boxes is not None:
            checked = check_boxes(boxes, *self._session.image.size)
            given = len(checked)
            self._check_idle()
            self.canvas.set_boxes([*checked.tolist(), *drawn])
        try:
            answering = self._start(text, given, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        except (ValueError, RuntimeError, TypeError, FloatingPointError) as error:
            if given:
                self.canvas.set_boxes(drawn)
            self.conversation.problem = in_words(error)
            raise
        return self._wait(answering) if wait else None

    def stop(self) -> None:
        """Ends the answer that is being written; what there is of it stays."""
        self._stop.set()

    def undo(self) -> None:
        """Takes the last question back; its regions can be changed again, and it returns to the question line, unless
        somebody is typing there."""
        self._check_idle()
        turn = self._session.undo()
        self.conversation.problem = self.conversation.notice = ""
        self.conversation.put_line(turn.question)
        self.refresh()

    def new_conversation(self) -> None:
        """Forgets what was said, and the regions. The image stays, and stays encoded."""
        self._check_idle()
        self._session.reset()
        self.conversation.problem = self.conversation.notice = ""
        self.refresh()
        self.canvas.set_boxes([])

    def set_boxes(self, boxes: ArrayLike, names: Sequence[str] | None = None) -> None:
        """Replaces the regions that were not asked about, for instance by what a detector found.

        Args:
            boxes: (N, 4) pixel xyxy in the original image.
            names: N names that questions may use instead of "region 1", "" for none.

        Raises:
            ValueError: for bad boxes, and for names that two regions would share or that read like numbers of regions.
        """
        self.canvas.set_boxes(boxes, names)

    def set_image(self, image: ImageLike) -> None:
        """Begins a conversation about another image."""
        with self._worker.lock:
            self._check_idle()
            opening = self._worker.submit(_OPENING, lambda: self._open(image))
        opening.result()

    def inspect_answer(self, number: int = -1) -> AttentionInspector:
        """Shows below the image where an answer looked. number: index into `answers`; the last one by default.

        Raises IndexError where there is no such answer, and what `AttentionInspector` raises.
        """
        answers = self.answers
        if not -len(answers) <= number < len(answers):
            raise IndexError(f"there are {len(answers)} answers, numbered from 0, but number is {number}")
        inspector = AttentionInspector(answers[number])
        self._show_inspector(f"Inside answer {number % len(answers) + 1}", inspector, inspector.view)
        return inspector

    def inspect_region(self, number: int) -> RoIInspector:
        """Shows below the image what a region on the image holds. number: of the region, from 1.

        Raises ValueError where there is no such region.
        """
        inspector = RoIInspector(self._session, [region.box for region in self.regions], region=number)
        self._show_inspector(f"Inside region {number}", inspector, inspector.widget)
        return inspector

    def save(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Saves the conversation as `RegionSession.save` does, and returns where.

        path: of a JSON file; None takes a new name in the working folder, beside the notebook.
        `RegionChat(RegionSession.load(path, gpt4roi))` opens it again. `session.export` writes Markdown or HTML.
        """
        file = _new_file() if path is None else Path(path)
        self._session.save(file)
        return file

    def refresh(self) -> None:
        """Shows the session as it is, for instance after `chat.session.ask(...)`. Happens by itself after a cell."""
        self.canvas.set_asked([region.box for region in self._session.regions])
        self.conversation.set_history(self._session.history)

    def close(self) -> None:
        """Takes the widget off the page and ends its thread; an answer that is being written ends there."""
        self.stop()
        self._copy.close()
        self._worker.close()
        self.inspections.close()
        self.widget.close()

    # --------------------------------------------------------------------------------------------- answering

    def _check_idle(self) -> None:
        if self._worker.working:
            raise RuntimeError("an answer is being written; wait for it, or stop it first")

    def _start(self, text: str, given: int = 0, *, typed: bool = False, **options: Any) -> Future[Answer | None]:
        """options: of `RegionSession.stream`; those that are None, and others, are as the settings say."""
        talk = self.conversation
        settings: dict[str, Any] = {"max_new_tokens": talk.max_new_tokens, "temperature": talk.temperature}
        settings["seed"] = talk.seed
        settings |= {name: value for name, value in options.items() if value is not None}
        with self._worker.lock:
            self._check_idle()
            text = spelled(text)
            check_named(text, max(len(self.regions), len(self._session.regions)))
            question = self.canvas.book.question(text, given)
            stop = threading.Event()
            pieces = self._session.stream(question.text, question.boxes, stop=stop, **settings)
            self._stop = stop
            moved = [(old, new) for old, new in question.moved if old > new]
            self.canvas.reorder(question.order)
            talk.problem = ""
            talk.notice = " ".join(
                f"Region {old} is now region {new}: regions are numbered in the order in which they are asked about."
                for old, new in moved
            )
            talk.streaming, talk.pending, talk.stoppable = "", question.text, True
            if typed:
                talk.take()  # before the worker begins: a failure puts the question back
            written = partial(self._written, question.text, len(self._session.history))
            return self._worker.submit("Answering…", lambda: self._write(pieces), written, failed=written)

    def _write(self, pieces: Iterator[str]) -> Answer | None:
        """In the worker: streams the answer. Returns None where it was stopped before its first word."""
        before = len(self._session.history)
        text, shown = "", 0.0
        for piece in pieces:
            text += piece
            now = time.monotonic()
            if now - shown >= 1 / UPDATES_PER_SECOND and not self._worker.closed:
                self.conversation.streaming, shown = text, now
        return self._session.history[-1].answer if len(self._session.history) > before else None

    def _written(self, question: str, before: int, outcome: Answer | Exception | None) -> None:
        """Shows how the answer ended. before: how many turns there were when it was asked."""
        talk = self.conversation
        if isinstance(outcome, Exception):
            talk.problem = in_words(outcome, expected=False)
        elif outcome is None:
            talk.notice = "Stopped before the first word; the question is back in its line."
        if len(self._session.history) == before:
            talk.put_back(question)
        self.refresh()
        talk.pending = talk.streaming = ""
        talk.stoppable = False

    def _wait(self, answering: Future[Answer | None]) -> Answer | None:
        try:
            return answering.result()
        except KeyboardInterrupt:
            self.stop()
            answering.exception()  # what was written is kept before the cell ends
            raise

    # ----------------------------------------------------------------------------------- from the browser

    def _on_conversation_message(self, _: Any, content: dict[str, Any], buffers: list[Any]) -> None:
        kind = content.get("type")
        if kind == "ask":
            self._ask_typed(str(content.get("text", "")))
        elif kind == "stop":
            self.stop()
        elif kind == "undo":
            self._at_once(self.undo)
        elif kind == "new":
            self._at_once(self.new_conversation)
        elif kind == "inspect":
            turn = int(content["turn"])
            self._in_background("Looking inside the answer…", lambda: self.inspect_answer(turn))
        elif kind == "export":
            self._at_once(lambda: self._hand_out(str(content["format"])))
        elif kind == "save":
            self._at_once(self._save_beside)
        elif kind == "image":
            self.picker.opened = not self.picker.opened
            if self.picker.opened and not self.picker.thumbnails:
                self._in_background(_RENDERING, lambda: show_more_scenes(self.picker))

    def _on_picker_message(self, _: Any, content: dict[str, Any], buffers: list[Any]) -> None:
        kind = content.get("type")
        if kind == "more":
            self._in_background(_RENDERING, lambda: show_more_scenes(self.picker))
        elif kind == "scene":
            seed = int(content["seed"])
            self._in_background(_OPENING, lambda: self._open(gallery_scene(seed)))
        elif kind == "file":
            data = bytes(buffers[0])
            self._in_background(_OPENING, lambda: self._open_file(content, data), waits=True)
        elif kind == "unreadable":
            self.picker.problem = why_unreadable(str(content["name"]), bytes(buffers[0]))

    def _on_inspect_region(self, number: int) -> None:
        self._in_background("Looking inside the region…", lambda: self.inspect_region(number))

    def _at_once(self, action: Callable[[], object]) -> None:
        """Runs what is quick; what goes wrong is shown in words."""
        self.conversation.notice = ""
        with problems_shown(self.conversation):
            action()

    def _in_background(self, words: str, action: Callable[[], object], *, waits: bool = False) -> None:
        """Runs an action in the worker, with words for what is going on; nothing happens while something else does.

        waits: the action is run afterwards instead, as a file that was chosen while the first scenes are drawn.
        """
        with self._worker.lock:
            if waits or not self._worker.working:
                self.conversation.problem = self.conversation.notice = ""
                self._worker.submit(words, action)

    def _ask_typed(self, text: str) -> None:
        """Asks what was typed. On any error, and where there is something to ask first, it goes back into its line."""
        self.conversation.notice = ""
        taken = False
        with problems_shown(self.conversation):
            if not self._overlooks(text):
                self._start(text, typed=True)
                taken = True
        if not taken:
            self.conversation.put_back(text)

    def _overlooks(self, text: str) -> bool:
        """Whether a question names none of the regions that were drawn since the last one; the user is told once."""
        new = self.canvas.book.new
        unnamed = tuple(region.key for region in new)
        named = self.canvas.book.mentions(spelled(text))
        told = not unnamed or unnamed == self._warned
        names_one = any(region.number in named for region in new)
        unknown = any(number > len(self.regions) for number in named)  # which is refused in its own words
        if told or names_one or unknown or not text.strip():
            return False
        # Neither silently about something else, nor silently about the box.
        self._warned = unnamed
        self.conversation.problem = ""
        self.conversation.notice = unnamed_notice([region.number for region in new])
        return True

    def _hand_out(self, format: str) -> None:
        """Gives the browser the conversation as a Markdown or HTML file."""
        parts = (self._session.image, [region.box for region in self._session.regions], self._session.history)
        make = as_markdown if format == "md" else as_html
        page = make(*parts, self.conversation.about)
        whole = page if format == "md" else as_document(page)
        self.conversation.hand_out(f"{_SAVED_AS}.{format}", _MIME[format], whole.encode())

    def _save_beside(self) -> None:
        name = str(self.save())
        opens = f'RegionChat(RegionSession.load("{name}", gpt4roi))'
        self.conversation.send({"type": "saved", "text": f"Saved as {name}. In a cell, {opens} opens it again."})

    # --------------------------------------------------------------------------------------------- what shows

    def _open(self, image: ImageLike) -> None:
        """Encodes an image and begins a conversation about it."""
        self._show(self.gpt4roi.session(image))

    def _show(self, session: RegionSession) -> None:
        """Shows a session from now on."""
        self._session = session
        self._opened += 1
        self.canvas.set_image(session.image)
        self.conversation.ratio = session.image.width / session.image.height
        self.conversation.problem = self.conversation.notice = ""
        self.picker.opened = False
        self.inspections.close()
        self.refresh()

    def _open_file(self, content: dict[str, Any], data: bytes) -> None:
        """Opens what the picker sent; what is wrong with it is said there."""
        name = str(content["name"])
        try:
            image = open_upload(name, data)
        except ValueError as error:
            self.picker.problem = str(error)
            return
        self._open(image)
        if content.get("shrunk"):
            was, now = ("{} × {}".format(*content["shrunk"][i : i + 2]) for i in (0, 2))
            self.canvas.table.notice = f"{name} of {was} pixels came at {now}, in whose pixels boxes are counted."

    def _show_inspector(self, title: str, inspector: AttentionInspector | RoIInspector, view: Widget) -> None:
        if self._worker.closed:  # while it was being made
            inspector.close()
        else:
            self.inspections.open(title, inspector, view)

    def _regions_changed(self) -> None:
        asked, new = self.canvas.book.asked, self.canvas.book.new
        self.conversation.regions = [
            {"number": region["number"], "color": region["color"]} for region in self.canvas.table.regions
        ]
        self.conversation.examples = example_questions(
            [region.number for region in asked],
            [region.number for region in new],
            self._opened - 1 + len(self._session.history),
        )
        self._copy.changed((id(self._session), tuple(region.box for region in asked + new), self._session.history))

    def _to_read(self) -> tuple[str, str]:
        """Image, boxes and conversation as HTML, and the conversation as text."""
        boxes = [region.box for region in self.regions]
        page = as_html(self._session.image, boxes, self._session.history, self.conversation.about)
        return page, as_text(self._session.history)

    def _follow_cell(self) -> bool:
        """Shows what a cell did with the session, once it has run. Returns whether to go on."""
        if not (self._worker.working or self._worker.closed):
            self.refresh()
        return not self._worker.closed


def _new_file() -> Path:
    """A name in the working folder that no file has."""
    names = (f"{_SAVED_AS}{number}.json" for number in itertools.chain([""], (f"-{n}" for n in itertools.count(2))))
    return next(file for file in map(Path, names) if not file.exists())
