"""A model that needs no weights: it answers each question with its own words, one by one, at a pace of choice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from PIL import Image

from gpt4roi_nb import Answer, Region, Turn
from gpt4roi_nb.boxes import check_boxes
from gpt4roi_nb.images import load_image
from gpt4roi_nb.prompt import check_references, references
from gpt4roi_nb.session.references import read_references
from gpt4roi_nb.session.region_model import Capabilities, Rendered


class FakeSession:
    """`RegionSession`'s public behaviour, without a model."""

    def __init__(self, gpt4roi: FakeGPT4RoI, image: Any) -> None:
        self._gpt4roi = gpt4roi
        self.image: Image.Image = load_image(image)
        self.regions: tuple[Region, ...] = ()
        self.history: tuple[Turn, ...] = ()

    def stream(
        self,
        text: str,
        boxes: Any = (),
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[str]:
        if not text.strip():
            raise ValueError("the question is empty")
        known = len(self.regions)
        text = read_references(text, known)
        self._gpt4roi.settings.append((max_new_tokens, temperature, seed))
        checked = check_boxes(boxes, *self.image.size).tolist()
        new = tuple(Region(known + 1 + i, tuple(box)) for i, box in enumerate(checked))
        check_references(references(text), [region.number for region in new], known)
        self._gpt4roi.asked.append((text, tuple(region.box for region in new)))
        return self._write(text, new, stop or threading.Event())

    def ask(self, text: str, boxes: Any = (), **options: Any) -> Answer:
        for _ in self.stream(text, boxes, **options):
            pass
        return self.history[-1].answer

    def _write(self, text: str, new: tuple[Region, ...], stop: threading.Event) -> Iterator[str]:
        said = ""
        for word in self._gpt4roi.reply(text).split(" "):
            time.sleep(self._gpt4roi.pause)
            if stop.is_set():
                break
            piece = word if not said else f" {word}"
            said += piece
            yield piece
        if said or not stop.is_set():
            answer = Answer(said, [], [], [], 0, 0, 0.0, stopped=stop.is_set())
            self.history += (Turn(text, answer, tuple(region.number for region in new)),)
            self.regions += new

    def render(self, turn: int) -> Rendered:
        return Rendered((self.image,), self.history[turn].question, {"way": "a stand-in's"})

    def undo(self) -> Turn:
        if not self.history:
            raise ValueError("there is no turn to undo; nothing has been asked yet")
        turn, self.history = self.history[-1], self.history[:-1]
        self.regions = tuple(region for region in self.regions if region.number not in turn.regions)
        return turn

    def restore(self, regions: Sequence[Region], turns: Sequence[Turn]) -> None:
        self.regions, self.history = tuple(regions), tuple(turns)

    def reset(self) -> None:
        self.regions, self.history = (), ()


class FakeGPT4RoI:
    """reply: question -> answer, may raise. pause: seconds before each word. asked: what sessions were asked.

    settings: longest answer, temperature and seed of each question."""

    is_demo = True
    way = "region tokens"
    about = "A stand-in that repeats the question."
    capabilities = Capabilities(True, True, True, True, True, True, True)

    def __init__(self, reply: Callable[[str], str] | None = None, pause: float = 0.0) -> None:
        self.reply = reply or (lambda text: f"You asked: {text}")
        self.pause = pause
        self.asked: list[tuple[str, tuple[Any, ...]]] = []
        self.settings: list[tuple[int, float, int | None]] = []

    def session(self, image: Any) -> FakeSession:
        return FakeSession(self, image)

    def render(self, image: Any, text: str, boxes: Any = ()) -> Rendered:
        return Rendered((load_image(image),), text, {"way": "a stand-in's"})
