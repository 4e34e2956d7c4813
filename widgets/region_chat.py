"""`RegionChat`: draw boxes on an image and talk about them with the model."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ipywidgets import HBox, VBox, Widget
from numpy.typing import ArrayLike
from PIL import Image

from gpt4roi_nb import Answer, Region, RegionSession, Turn
from gpt4roi_nb.boxes import checked_boxes
from gpt4roi_nb.draw import REGION_COLORS
from gpt4roi_nb.images import ImageLike
from gpt4roi_nb.session.export import as_document, as_html, as_markdown, as_text
from gpt4roi_nb.session.references import spelled
from gpt4roi_nb.session.region_model import RegionModel
from gpt4roi_nb.widgets.attention_inspector import AttentionInspector
from gpt4roi_nb.widgets.cells import after_each_cell
from gpt4roi_nb.widgets.conversation import Conversation
from gpt4roi_nb.widgets.display_image import display_image
from gpt4roi_nb.widgets.errors import in_words
from gpt4roi_nb.widgets.examples import example_questions, example_tasks
from gpt4roi_nb.widgets.image_picker import ImagePicker, gallery_scene, open_upload, show_more_scenes, why_unreadable
from gpt4roi_nb.widgets.inspections import Inspections
from gpt4roi_nb.widgets.questions import check_named
from gpt4roi_nb.widgets.region_canvas import RegionCanvas
from gpt4roi_nb.widgets.regions import DrawnRegion, listed, unnamed_notice
from gpt4roi_nb.widgets.roi_inspector import RoIInspector
from gpt4roi_nb.widgets.static_copy import StaticCopy
from gpt4roi_nb.widgets.worker import Worker, problems_shown

# How often per second new words are shown: people read no faster, and each update is a message to the browser.
UPDATES_PER_SECOND = 20
_OPENING = "Looking at the image…"
_RENDERING = "Rendering scenes…"
_INSPECT, _SCENE = "inspect", "scene"  # topics of the worker's jobs
_ONE_QUESTION = "This model was made for one question at a time: press New conversation to ask another."
_SAVED_AS = "conversation"  # name of the files that the browser's buttons make
_MIME = {"md": "text/markdown", "html": "text/html"}


@dataclass(frozen=True)
class _Left:
    """A conversation that another one replaced. shown: all regions on the image, with their names."""

    image: Image.Image
    regions: tuple[Region, ...]
    turns: tuple[Turn, ...]
    shown: tuple[DrawnRegion, ...]


class RegionChat:
    """An image to draw boxes on, and beside it the conversation about them. Show it as the last line of a cell.

    Boxes are numbered region1, region2, … A question names them `<region1>` or "region 1". A region that was asked
    about cannot change, so that its number keeps its meaning; a new one can be moved, resized and removed. A
    conversation numbers regions in the order in which they are asked about: if a question names region 3, and region 2
    was never asked about, the two swap numbers, and a message says so. A question that names none of the new regions
    is asked only after a second Enter; later ones say which regions they were asked without.

    Everything works from Python as well, and what Python does shows in the notebook:

    - `session`: the `RegionSession` behind the image; `answers`: its answers so far; `regions`: those on the image.
    - `ask`, `stop`, `undo`, `new_conversation`, `set_boxes`, `set_image`, `inspect_answer`, `inspect_region`, `save`.

    A saved notebook contains image, boxes and conversation as HTML, readable without a kernel.

    Args:
        gpt4roi: a loaded model, a `GPT4RoI` or what `load_model` returns; or a session of one, for example from a
            file, whose conversation continues. Buttons for what the model cannot do are absent.
        image: whatever `GPT4RoI.session` takes; None begins with a generated scene. A session has its own image.
        remember: whether `undo` brings back the conversation that a new one or another image replaced.

    Raises:
        TypeError: the first argument is neither, or an image came with a session.

    Example:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> from gpt4roi_nb.widgets import RegionChat
        >>> scene = make_scene(5)
        >>> chat = RegionChat(GPT4RoI.from_pretrained(), scene.image)  # as the last line of a cell: the view
        >>> chat.set_boxes([thing.box for thing in scene.objects[:2]], names=["first thing", ""])
        >>> answer = chat.ask("What colour is the first thing?", max_new_tokens=4)
        >>> len(chat.answers), [region.asked for region in chat.regions]
        (1, [True, False])
        >>> chat.close()
    """

    def __init__(
        self, gpt4roi: RegionModel | RegionSession, image: ImageLike | None = None, *, remember: bool = True
    ) -> None:
        session: RegionSession | None = None
        model: Any = gpt4roi
        if isinstance(gpt4roi, RegionSession):
            if image is not None:
                raise TypeError("a RegionSession has its own image; leave the image out")
            session, model = gpt4roi, gpt4roi.loaded
        if not hasattr(model, "session"):
            raise TypeError(
                f"expected a loaded model first, then the image, but got a {type(model).__name__} first; "
                "load_model(…) loads one"
            )
        self.gpt4roi: RegionModel = model
        self._can = self.gpt4roi.capabilities
        # What a region is made of only a GPT4RoI can show; where an answer looked, each whose image tokens have places.
        inspect_region = self._on_inspect_region if self._can.roi_features else None
        self.canvas = RegionCanvas(self._regions_changed, on_inspect=inspect_region)
        self.conversation = Conversation(
            about=self.gpt4roi.about, colors=list(REGION_COLORS), inspectable=self._can.attention_map
        )
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
        self._warned: frozenset[int] = frozenset()  # keys of the unnamed regions that the user was told about
        self._copy = StaticCopy("gpt4roi-chat", self._to_read)
        self._opened = 0  # number of images so far
        self._remembers = remember  # whether Undo brings back what another image or a new conversation replaced
        self._left: _Left | None = None  # what Undo returns to once nothing else is left to undo
        self._seen: tuple[Turn, ...] = ()  # the conversation as this view shows it
        self._show(session or self.gpt4roi.session(gallery_scene() if image is None else image))
        self.conversation.on_msg(self._on_conversation_message)
        self.picker.on_msg(self._on_picker_message)
        after_each_cell(self._follow_cell)

    def _ipython_display_(self) -> None:
        self._copy.show(self.widget, "A RegionChat")

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
        """The regions on the image by number, with `number`, `box` (pixel xyxy in the original image) and `asked`."""
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
        """Ask a question as if it had been typed; the answer streams into the notebook.

        Args:
            text: the question. New regions on the image become part of the conversation if the text names them.
            boxes: (N, 4) pixel xyxy of new regions, which the text must name; they come before those drawn by hand.
            wait: wait for the answer and return it; False returns None at once.
            max_new_tokens, temperature, seed: as in `RegionSession.ask`; None takes the values in the settings.

        Returns:
            The answer; None without `wait`, or if it was stopped before its first word.

        Raises:
            ValueError: bad boxes, an empty text, or references that do not fit; nothing has changed then.
            RuntimeError: another answer is being written, or the model was unloaded.
        """
        drawn = [region.box for region in self.canvas.book.new]
        given = 0
        if boxes is not None:
            checked = checked_boxes(boxes, *self._session.image.size)
            given = len(checked)
            self._check_idle()
            self.canvas.set_boxes([*checked, *drawn])
        try:
            answering = self._start(text, given, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        except (ValueError, RuntimeError, TypeError, FloatingPointError) as error:
            if given:
                self.canvas.set_boxes(drawn)
            self.conversation.problem = in_words(error)
            raise
        return self._wait(answering) if wait else None

    def stop(self) -> None:
        """Stop the answer that is being written; the text so far stays."""
        self._stop.set()

    def undo(self) -> None:
        """Remove the last question and its answer.

        Its regions can be changed again, and the question returns to its line, unless somebody is typing there. Without
        a question, the conversation before a new one, or before another image, comes back.
        """
        self._check_idle()
        if self._left is not None and not self._session.history:
            self._return()
            return
        turn = self._session.undo()
        self.conversation.problem = self.conversation.notice = ""
        self.conversation.put_line(turn.question)
        self.refresh()

    def new_conversation(self) -> None:
        """Begin again without regions, until `undo` brings them back. The image stays, and stays encoded."""
        self._check_idle()
        self._leave()
        self._session.reset()
        self.conversation.problem, self.conversation.notice = "", self._how_to_return()
        self.refresh()
        self.canvas.set_boxes([])

    def set_boxes(self, boxes: ArrayLike, names: Sequence[str] | None = None) -> None:
        """Replace the regions that were not asked about, for example with a detector's boxes.

        Args:
            boxes: (N, 4) pixel xyxy in the original image.
            names: N names that questions can use instead of "region 1", "" for none.

        Raises:
            ValueError: bad boxes, or names that two regions would share or that read like numbers of regions.
        """
        self.canvas.set_boxes(boxes, names)

    def set_image(self, image: ImageLike) -> None:
        """Start a conversation about another image, whatever `GPT4RoI.session` takes."""
        with self._worker.lock:
            self._check_idle()
            opening = self._worker.submit(_OPENING, lambda: self._open(image))
        opening.result()

    def inspect_answer(self, number: int = -1) -> AttentionInspector:
        """Show where an answer looked, below the image.

        Args:
            number: index into `answers`; the last one by default.

        Raises:
            IndexError: there is no such answer.
            RuntimeError, ValueError: as `AttentionInspector` raises them.
        """
        answers = self.answers
        if not -len(answers) <= number < len(answers):
            raise IndexError(f"there are {len(answers)} answers, numbered from 0, but number is {number}")
        if not self._can.attention_map:
            raise RuntimeError(
                "an AttentionInspector lays attention over the image, but it is not known where this model's image "
                "tokens lie in it; look at ablate() and occlusion() of the answer"
                + (", and at attention().mass()" if self._can.attention else "")
            )
        inspector = AttentionInspector(answers[number])
        self._show_inspector(f"Inside answer {number % len(answers) + 1}", inspector, inspector.view)
        return inspector

    def inspect_region(self, number: int) -> RoIInspector:
        """Show what a region is made of, below the image.

        Args:
            number: of the region, from 1.

        Raises:
            ValueError: there is no such region.
            RuntimeError: the model is not a GPT4RoI.
        """
        if not self._can.roi_features:
            raise RuntimeError("a RoIInspector shows features of a region, which only a GPT4RoI has")
        inspector = RoIInspector(self._session, [region.box for region in self.regions], region=number)
        self._show_inspector(f"Inside region {number}", inspector, inspector.widget)
        return inspector

    def save(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Save the conversation as `RegionSession.save` does.

        `RegionChat(RegionSession.load(path, gpt4roi))` opens it again, without the users' names for regions.
        `session.export` writes Markdown or HTML.

        Args:
            path: of a JSON file; None takes a new name in the working folder, beside the notebook.

        Returns:
            The path of the file.
        """
        file = _new_file() if path is None else Path(path)
        self._session.save(file)
        return file

    def refresh(self) -> None:
        """Show the session's current state, for example after `chat.session.ask(...)`. Automatic after each cell."""
        self._seen = self._session.history
        self.canvas.set_asked([region.box for region in self._session.regions])
        self.conversation.set_history(self._seen)
        self._say_if_over()

    def close(self) -> None:
        """Remove the widget from the page and end its thread; an answer that is being written stops there."""
        self.stop()
        self._copy.close()
        self._worker.close()
        self.inspections.close()
        self.widget.close()

    # --------------------------------------------------------------------------------------------- answering

    @property
    def _is_over(self) -> bool:
        """Whether the model takes no further question in this conversation."""
        return not self._can.follow_ups and bool(self._session.history)

    def _say_if_over(self) -> None:
        if self._is_over and _ONE_QUESTION not in self.conversation.notice:
            self.conversation.notice = f"{self.conversation.notice} {_ONE_QUESTION}".lstrip()

    def _check_idle(self) -> None:
        if self._worker.working:
            raise RuntimeError("an answer is being written; wait for it, or stop it first")

    def _start(self, text: str, given: int = 0, *, typed: str = "", **options: Any) -> Future[Answer | None]:
        """Start an answer.

        Args:
            typed: the question as it was in its line, if it comes from there.
            options: of `RegionSession.stream`; those that are None or absent come from the settings.
        """
        conversation = self.conversation
        settings: dict[str, Any] = {
            "max_new_tokens": conversation.max_new_tokens,
            "temperature": conversation.temperature,
            "seed": conversation.seed,
        }
        settings |= {name: value for name, value in options.items() if value is not None}
        with self._worker.lock:
            self._check_idle()
            text = spelled(text)
            check_named(text, max(len(self.regions), len(self._session.regions)))
            question = self.canvas.book.question(text, given)
            stop = threading.Event()
            pieces = self._session.stream(question.text, question.boxes, stop=stop, **settings)
            self._stop = stop
            self.canvas.reorder(question.order)
            conversation.problem = ""
            conversation.notice = " ".join(
                f"Region {old} is now region {new}, and region {new} is region {old}: regions are numbered in the "
                "order in which they are asked about."
                for old, new in question.moved
            )
            conversation.streaming, conversation.pending, conversation.stoppable = "", question.text, True
            if typed:
                conversation.take(typed)  # before the worker begins: a failure returns the question to its line
            written = partial(self._written, question.text, len(self._session.history))
            return self._worker.submit("Answering…", lambda: self._write(pieces), written, failed=written)

    def _write(self, pieces: Iterator[str]) -> Answer | None:
        """Stream the answer, in the worker. Returns None if it was stopped before its first word."""
        before = len(self._session.history)
        text, shown = "", 0.0
        for piece in pieces:
            text += piece
            now = time.monotonic()
            if now - shown >= 1 / UPDATES_PER_SECOND and not self._worker.closed:
                self.conversation.streaming, shown = text, now
        return self._session.history[-1].answer if len(self._session.history) > before else None

    def _written(self, question: str, before: int, outcome: Answer | Exception | None) -> None:
        """Show how the answer ended. before: how many turns there were when it was asked."""
        conversation = self.conversation
        if isinstance(outcome, Exception):
            conversation.problem = in_words(outcome, expected=False)
        elif outcome is None:
            conversation.notice = "Stopped before the first word; the question is back in its line."
        if len(self._session.history) == before:
            conversation.put_back(question)
        self.refresh()
        conversation.pending = conversation.streaming = ""
        conversation.stoppable = False

    def _wait(self, answering: Future[Answer | None]) -> Answer | None:
        try:
            return answering.result()
        except KeyboardInterrupt:
            self.stop()
            answering.exception()  # the text so far is kept before the cell ends
            raise

    # ----------------------------------------------------------------------------------- from the browser

    def _on_conversation_message(self, _: Any, content: dict[str, Any], buffers: list[Any]) -> None:
        kind = content.get("type")
        if kind == "ask":
            self._ask_typed(str(content.get("text", "")))
        elif kind == "stop":
            self.stop()
        elif kind == "undo":
            if not self._is_up_to_date():
                pass  # the person has not seen what would be undone
            elif self._left is not None and not self._session.history:
                self._in_background(_OPENING, self._return)
            else:
                self._at_once(self.undo)
        elif kind == "new":
            self._at_once(self.new_conversation)
        elif kind == "inspect":
            turn = int(content["turn"])
            self._look_inside(f"Looking inside answer {turn + 1}…", lambda: self.inspect_answer(turn))
        elif kind == "told":
            self._at_once(lambda: self._tell(int(content["turn"])))
        elif kind == "export":
            self._at_once(lambda: self._hand_out(str(content["format"])))
        elif kind == "save":
            self._at_once(self._save_beside)
        elif kind == "image":
            if self.picker.opened:
                self.picker.opened = False
            else:
                self._open_picker()

    def _on_picker_message(self, _: Any, content: dict[str, Any], buffers: list[Any]) -> None:
        kind = content.get("type")
        if kind in ("file", "unreadable"):
            self.picker.problem = ""  # the browser has removed the last words: equal ones must be sent again
        if kind == "more":
            self._in_background(_RENDERING, lambda: show_more_scenes(self.picker))
        elif kind == "scene":
            seed = int(content["seed"])
            waits = self.conversation.busy != _OPENING  # a double click opens it once
            self._worker.drop(_SCENE)
            self._in_background(_OPENING, lambda: self._open(gallery_scene(seed)), waits=waits, topic=_SCENE)
        elif kind == "file":
            data = bytes(buffers[0])
            self._in_background(_OPENING, lambda: self._open_file(content, data), waits=True)
        elif kind == "unreadable":
            self._open_picker(why_unreadable(str(content["name"]), bytes(buffers[0])))

    def _open_picker(self, problem: str = "") -> None:
        """Show the picker. problem: of a file that was chosen there, or dropped on the chat."""
        self.picker.opened = True
        self.picker.problem = problem
        if not self.picker.thumbnails:
            self._in_background(_RENDERING, lambda: show_more_scenes(self.picker), waits=bool(problem))

    def _on_inspect_region(self, number: int) -> None:
        self._look_inside(f"Looking inside region {number}…", lambda: self.inspect_region(number))

    def _look_inside(self, words: str, action: Callable[[], object]) -> None:
        """Open an inspector; while something else runs, once that is done. Only the last of several clicks counts."""
        with self._worker.lock:
            if self._worker.newest(_INSPECT) == words:
                return  # a double click opens it once: a second view would take the focus away with the first
            self._worker.drop(_INSPECT)
            self._in_background(words, action, waits=True, topic=_INSPECT)

    def _at_once(self, action: Callable[[], object]) -> None:
        """Run a quick action; failures are shown as messages."""
        self.conversation.problem = self.conversation.notice = ""
        with problems_shown(self.conversation):
            action()
        self._say_if_over()

    def _in_background(self, words: str, action: Callable[[], object], *, waits: bool = False, topic: str = "") -> None:
        """Run an action in the worker, with a text about it; ignored while another one runs.

        waits: instead of being ignored, say so and run it afterwards, such as opening a file that was chosen while the
        first scenes are rendered. topic: of the job.
        """
        conversation = self.conversation

        def act() -> None:
            conversation.notice = ""  # that it comes next
            action()

        with self._worker.lock:
            if waits or not self._worker.working:
                conversation.problem = ""
                conversation.notice = f"{words.removesuffix('…')} comes next." if self._worker.working else ""
                self._worker.submit(words, act, topic=topic)

    def _ask_typed(self, text: str) -> None:
        """Ask a typed question. On any error, or if the user should be told something first, it returns to its line."""
        self.conversation.notice = ""
        if not self._is_up_to_date():
            self.conversation.put_back(text)
            return
        taken = False
        with problems_shown(self.conversation), self._worker.lock:
            overlooked = self._overlooked(text)
            # The question must neither silently ignore a new box nor silently include it.
            if self._warned.issuperset(region.key for region in overlooked):
                self._start(text, typed=text)
                taken = True
                self._warned = frozenset()  # the next question must not overlook them silently either
                if overlooked:
                    numbers = [region.number for region in overlooked]
                    self.conversation.notice = f"Asked without {listed(numbers)}, which the question does not name."
            else:
                self._warned = frozenset(region.key for region in overlooked)
                self.conversation.problem = ""
                self.conversation.notice = unnamed_notice([region.number for region in overlooked])
        if not taken:
            self.conversation.put_back(text)

    def _is_up_to_date(self) -> bool:
        """Whether the view shows the session's conversation; if not, because another view has continued it, show it."""
        if self._worker.working or self._session.history == self._seen:
            return True
        self.refresh()
        self.conversation.problem = ""
        self.conversation.notice = (
            "The conversation went on in another view; here it is now. Do it again if you still mean it."
        )
        return False

    def _overlooked(self, text: str) -> tuple[DrawnRegion, ...]:
        """The new regions, if a question names none of them."""
        new = self.canvas.book.new
        named = self.canvas.book.mentions(spelled(text))
        names_one = any(region.number in named for region in new)
        unknown = any(not 1 <= number <= len(self.regions) for number in named)  # another error says so
        return () if names_one or unknown or not text.strip() else new

    def _hand_out(self, format: str) -> None:
        """Have the browser download the conversation as a Markdown or HTML file."""
        parts = (self._session.image, [region.box for region in self._session.regions], self._session.history)
        make = as_markdown if format == "md" else as_html
        page = make(*parts, self.conversation.about, [region.name for region in self.regions])
        whole = page if format == "md" else as_document(page)
        self.conversation.hand_out(f"{_SAVED_AS}.{format}", _MIME[format], whole.encode())

    def _tell(self, turn: int) -> None:
        """Send the browser what the model read in a turn."""
        rendered = self._session.render(turn)
        note = [[name, str(value)] for name, value in rendered.note.items()]
        images = [display_image(image).data for image in rendered.images]
        self.conversation.send({"type": "told", "turn": turn, "text": rendered.text, "note": note}, images)

    def _save_beside(self) -> None:
        name = str(self.save())
        opens = f'RegionChat(RegionSession.load("{name}", gpt4roi))'
        self.conversation.send({"type": "saved", "text": f"Saved as {name}. To open it again, run in a cell: {opens}"})

    # --------------------------------------------------------------------------------------------- what shows

    def _open(self, image: ImageLike) -> None:
        """Encode an image and start a conversation about it."""
        session = self.gpt4roi.session(image)
        self._leave()
        self._show(session)

    def _leave(self) -> None:
        """Remember the conversation that another one replaces now, unless it is empty."""
        kept = self._left is not None and self._left.turns
        if self._remembers and (self._session.history or (self.regions and not kept)):
            session = self._session
            self._left = _Left(session.image, tuple(session.regions), tuple(session.history), self.regions)
            self.conversation.earlier = True

    def _how_to_return(self) -> str:
        return "Undo brings the last conversation back." if self._left is not None and self._left.turns else ""

    def _return(self) -> None:
        """Bring back the conversation that was left."""
        left = self._left
        if left is None:
            return
        # One that was left for another image is encoded again: kept, it would need memory all the time.
        session = self._session if self._session.image is left.image else self.gpt4roi.session(left.image)
        session.restore(left.regions, left.turns)
        self._left, self.conversation.earlier = None, False  # not before: encoding may fail, and be tried again
        self._show(session, left.shown)

    def _show(self, session: RegionSession, regions: Sequence[DrawnRegion] = ()) -> None:
        """Show another session from now on. regions: on its image."""
        self._session = session
        self._opened += 1
        self.canvas.set_image(session.image, regions)
        self.conversation.ratio = session.image.width / session.image.height
        self.conversation.problem, self.conversation.notice = "", self._how_to_return()
        self.picker.opened = False
        self.inspections.close()
        self.refresh()

    def _open_file(self, content: dict[str, Any], data: bytes) -> None:
        """Open the file that the picker sent; the picker shows what is wrong with it."""
        name = str(content["name"])
        try:
            image = open_upload(name, data)
        except ValueError as error:
            self._open_picker(str(error))
            return
        self._open(image)
        words = []
        if content.get("others"):
            words.append(f"Only {name} was opened: a chat shows one image.")
        if content.get("shrunk"):
            was, now = ("{} × {}".format(*content["shrunk"][i : i + 2]) for i in (0, 2))
            words.append(f"{name} was shrunk from {was} to {now} pixels; boxes refer to the latter.")
        self.canvas.table.notice = " ".join(words)

    def _show_inspector(self, title: str, inspector: AttentionInspector | RoIInspector, view: Widget) -> None:
        if self._worker.closed:  # closed while the inspector was being made
            inspector.close()
        else:
            self.inspections.open(title, inspector, view)

    def _regions_changed(self) -> None:
        asked, new = self.canvas.book.asked, self.canvas.book.new
        self.conversation.regions = [
            {name: region[name] for name in ("number", "color", "name")} for region in self.canvas.table.regions
        ]
        old, fresh = [region.number for region in asked], [region.number for region in new]
        if not self._can.several_regions:
            old, fresh = ([], fresh[:1]) if fresh else (old[-1:], [])
        if self._is_over:
            self.conversation.examples = []
        elif self._can.free_question:
            self.conversation.examples = example_questions(old, fresh, self._opened - 1 + len(self._session.history))
        else:
            self.conversation.examples = example_tasks(getattr(self.gpt4roi, "tasks", ()), (fresh or old or [1])[0])
        shown = tuple((region.box, region.name) for region in asked + new)
        self._copy.changed((id(self._session), shown, self._session.history))

    def _to_read(self) -> tuple[str, str]:
        """Image, boxes and conversation as HTML, and the conversation as text."""
        boxes = [region.box for region in self.regions]
        names = [region.name for region in self.regions]
        page = as_html(self._session.image, boxes, self._session.history, self.conversation.about, names)
        return page, as_text(self._session.history, names)

    def _follow_cell(self) -> bool:
        """Show what a cell did with the session, once it has run. Returns whether to be called again."""
        if not (self._worker.working or self._worker.closed):
            self.refresh()
        return not self._worker.closed


def _new_file() -> Path:
    """An unused file name in the working folder."""
    names = (f"{_SAVED_AS}{number}.json" for number in itertools.chain([""], (f"-{n}" for n in itertools.count(2))))
    return next(file for file in map(Path, names) if not file.exists())
