"""A conversation about regions of one image: encode once, ask many."""

from __future__ import annotations

import itertools
import os
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from gpt4roi_nb.arguments import check_stop, whole_number
from gpt4roi_nb.boxes import Box, check_boxes
from gpt4roi_nb.capture.roi_features import RoIFeatures, record_roi_features
from gpt4roi_nb.images import ImageLike, load_image
from gpt4roi_nb.inference.cache import branch, new_cache
from gpt4roi_nb.inference.decode import Sampling, decode, detokenizers
from gpt4roi_nb.inference.encoded_image import EncodedImage
from gpt4roi_nb.inference.loaded_model import LoadedModel, WeightsChangedError
from gpt4roi_nb.prompt import DEFAULT_QUESTION, Prompt, check_references, references
from gpt4roi_nb.session.conversation import Answer, Region, Turn
from gpt4roi_nb.session.describe import describe_batches
from gpt4roi_nb.session.export import export_conversation
from gpt4roi_nb.session.references import read_references
from gpt4roi_nb.session.saving import read_conversation, write_conversation

BUSY = (
    "another answer is being written in this session; wait for it or stop it first (a stream that was begun is read to "
    "its end, or ended with its close())"
)

_Key = tuple[int, Box | None]


class RegionSession:
    """A conversation about one image, made by `GPT4RoI.session(image)`.

    The image is encoded here, once. A new box costs RoIAlign and a small head; a follow-up costs its new tokens, since
    keys and values are kept and cut back to the longest common prefix.
    """

    def __init__(self, loaded: LoadedModel, image: ImageLike) -> None:
        self._loaded = loaded
        self.source = os.path.abspath(os.path.expanduser(image)) if isinstance(image, str | os.PathLike) else None
        self.image = load_image(image)
        self._encoded = EncodedImage(loaded, self.image)
        self._turns: list[Turn] = []
        self._regions: list[Region] = []
        self._cached_version: int | None = None  # of the weights that the cache was computed with
        self._history_version = 0  # grows with every turn that comes or goes
        self._busy = threading.Lock()
        self._forget()
        loaded.remember(self)

    def _forget(self) -> None:
        """Empty the key/value cache."""
        self._cache = new_cache()
        self._cached: list[_Key] = []

    def _check_weights(self) -> None:
        """Keys and values of other weights are of no use."""
        version = self._loaded.weights_version
        if version != self._cached_version:
            self._forget()
            self._cached_version = version

    def hold_weights(self) -> AbstractContextManager[None]:
        """Keep training waiting, so that all that is asked within the block comes from the same weights."""
        return self._loaded.hold_weights()

    @property
    def loaded(self) -> LoadedModel:
        """The model that it asks."""
        return self._loaded

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions that were talked about, in the order of their numbers."""
        return tuple(self._regions)

    @property
    def history(self) -> tuple[Turn, ...]:
        """The turns so far, oldest first."""
        return tuple(self._turns)

    def ask(
        self,
        text: str,
        boxes: ArrayLike = (),
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: threading.Event | None = None,
    ) -> Answer:
        """Asks, and waits for the whole answer.

        Args:
            text: the question. `<regionN>` names a region; each new one must be named. `<Region 1>`, and "region 1"
                where the conversation has no such region yet, mean the same.
            boxes: (N, 4) pixel xyxy in the original (EXIF-oriented) image: the new regions, numbered on from those
                that the session already has. Boxes partly outside are clipped with a warning.
            max_new_tokens: at most so many tokens are written.
            temperature: 0 takes the likeliest token each time; above 0 samples from the `top_p` nucleus, by `seed`.
            stop: an event that ends the answer early; what was written is kept.

        Raises:
            ValueError: for bad boxes, an empty text, references that do not fit the boxes, or a prompt that is longer
                than the model's context. Nothing has changed then.
            TypeError: for a number, an event or a text that is none.
            RuntimeError: after `unload()`, or while another answer is being written.
            FloatingPointError: the model computes NaN; the message says why, as far as that can be found out.
        """
        with self._loaded.hold_weights():  # the whole answer is of the same weights, also while the model trains
            answering = self.stream(
                text, boxes, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed, stop=stop
            )
            while True:
                try:
                    next(answering)
                except StopIteration as done:
                    return done.value

    def stream(
        self,
        text: str,
        boxes: ArrayLike = (),
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: threading.Event | None = None,
    ) -> Generator[str, None, Answer]:
        """As `ask`, but yields the answer piece by piece. Afterwards `history[-1].answer` is the whole of it.

        Bad input raises here, before the first piece. An iteration that is left early keeps the answer so far, as a
        Stop does. So does one that pauses for more than a second while the model trains: it ends with a
        `WeightsChangedError`, since the rest would come from other weights.
        """
        sampling = Sampling(temperature, top_p, seed)
        check_stop(stop)
        self._check_text(text)
        with self._alone():
            text = read_references(text, len(self._regions))
            asked = self._history_version, *self._prepare(text, boxes, max_new_tokens)
        return self._answer(text, boxes, max_new_tokens, asked, sampling, stop)

    def _answer(
        self,
        text: str,
        boxes: ArrayLike,
        max_new_tokens: int,
        asked: tuple[int, list[Region], Prompt, int],
        sampling: Sampling,
        stop: threading.Event | None,
    ) -> Generator[str, None, Answer]:
        """Yields pieces of text and returns the `Answer`."""
        with self._alone():
            started = time.perf_counter()
            version, new, prompt, room = asked
            if version != self._history_version:  # something was said or undone since it was asked
                new, prompt, room = self._prepare(text, boxes, max_new_tokens)
            return (yield from self._write(text, new, prompt, room, sampling, stop, started))

    def _prepare(self, text: str, boxes: ArrayLike, max_new_tokens: int) -> tuple[list[Region], Prompt, int]:
        """Checks a question: its new regions, the whole prompt, and how many tokens can be written."""
        self._loaded.check_loaded()
        new = self._new_regions(text, boxes)
        prompt = self._loaded.processor.prompt([*self._spoken(), ("user", text)])
        return new, prompt, self._room(prompt, max_new_tokens)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The conversation and the cache belong to one caller at a time, in whatever thread."""
        if not self._busy.acquire(blocking=False):
            raise RuntimeError(BUSY)
        try:
            yield
        finally:
            self._busy.release()

    def _new_regions(self, text: str, boxes: ArrayLike) -> list[Region]:
        if not text.strip():
            raise ValueError('the question is empty; write what you want to know, such as "What is <region1>?"')
        known = len(self._regions)
        checked = check_boxes(boxes, *self.image.size)
        new = [Region(known + 1 + index, tuple(box)) for index, box in enumerate(checked.tolist())]
        check_references(references(text), [region.number for region in new], known)
        return new

    @staticmethod
    def _check_text(text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"the question must be a string, but is a {type(text).__name__}")

    def _spoken(self) -> list[tuple[str, str]]:
        return [turn for past in self._turns for turn in (("user", past.question), ("assistant", past.answer.text))]

    def _room(self, prompt: Prompt, max_new_tokens: int) -> int:
        """How many tokens can be written; raises where the prompt alone fills the model's context."""
        max_new_tokens = whole_number(max_new_tokens, "max_new_tokens", least=1)
        context = self._loaded.model.config.text_config.max_position_embeddings
        room = context - len(prompt.input_ids)
        if room < 1:
            earlier = any(name.startswith("answer") for name in prompt.spans)
            raise ValueError(
                f"the {'conversation with this question' if earlier else 'prompt'} is {len(prompt.input_ids)} tokens "
                f"long, but the model can take {context} with the answer; shorten the question"
                + (", undo turns or begin a new conversation" if earlier else "")
            )
        return min(max_new_tokens, room)

    def _write(
        self,
        question: str,
        new: list[Region],
        prompt: Prompt,
        max_new_tokens: int,
        sampling: Sampling,
        stop: threading.Event | None,
        started: float,
    ) -> Generator[str, None, Answer]:
        regions = [*self._regions, *new]
        boxes = [regions[number - 1].box for number in prompt.regions]
        (row,) = rows = detokenizers(self._loaded, 1)
        keys = _keys(prompt, boxes)
        reused = 0

        def keep() -> Answer:
            answer = Answer.of(
                row,
                self._encoded,
                prompt,
                boxes,
                reused_tokens=reused,
                seconds=time.perf_counter() - started,
            )
            if answer.text or not answer.stopped:
                self._turns.append(Turn(question, answer, tuple(region.number for region in new)))
                self._regions = regions
                self._history_version += 1
            return answer

        try:
            with self._loaded.hold_weights():
                self._check_weights()
                training_steps = self._loaded.training_steps
                reused = self._cut_back(keys)
                embeddings = self._encoded.embed(prompt, boxes, reused)
            generator = sampling.generator(embeddings.device)
            for (piece,) in decode(
                self._loaded,
                rows,
                embeddings,
                self._cache,
                max_new_tokens=max_new_tokens,
                sampling=sampling,
                generator=generator,
                stop=stop,
                training_steps=training_steps,
            ):
                if piece:
                    yield piece
            return keep()
        except BaseException as error:
            if not isinstance(error, GeneratorExit):
                self._forget()  # in the middle of a step: some layers' keys and values may have grown, others not
            # The reader went away or paused, or the kernel was interrupted: as with a Stop, what was written is kept.
            if isinstance(error, GeneratorExit | KeyboardInterrupt | WeightsChangedError):
                row.stopped = True
                keep()
            raise
        finally:
            known = [*keys, *((token_id, None) for token_id in row.ids)]
            self._cached = known[: self._cache.get_seq_length()]

    def _cut_back(self, keys: list[_Key]) -> int:
        """Cuts the cache back to what it has in common with a prompt; returns how many tokens that is."""
        common = self._in_common(keys[:-1])  # the last is always computed: the answer begins from its logits
        if excess := self._cache.get_seq_length() - common:
            self._cache.crop(-excess)
        self._cached = keys[:common]
        return common

    def _in_common(self, keys: Sequence[_Key]) -> int:
        """With how many of these tokens the cache begins."""
        same = (cached == wanted for cached, wanted in zip(self._cached, keys, strict=False))
        return sum(itertools.takewhile(bool, same))

    def describe(
        self,
        boxes: ArrayLike,
        text: str = DEFAULT_QUESTION,
        *,
        batch_size: int = 16,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: threading.Event | None = None,
        progress: bool | None = None,
    ) -> list[Answer]:
        """The same question about each of many boxes, in batches that share the image and the prompt before the box.

        Each box is asked about by itself, as `<region1>` of a conversation of its own; the session's conversation and
        regions stay as they are.

        Args:
            boxes: (N, 4) pixel xyxy in the original image.
            text: a question that names `<region1>` and no other region.
            batch_size: boxes at a time; fewer, with a warning, where memory is short or runs out.
            progress: show a progress bar; None shows one where there is more than one batch.
            stop: an event that ends the work early.

        Raises:
            ValueError: for bad boxes, a question that names other regions, or one that is too long.
            RuntimeError: after `unload()`, or while an answer is being written in this session.
            MemoryError: not even one box at a time fits; the message says what helps.

        Returns:
            One answer a box, in the order of the boxes. After a stop or an interrupt fewer, with a warning: those of
            the batches that were begun, of which the last may hold unfinished ones (`Answer.stopped`). `seconds` is
            each batch's time shared among its boxes.
        """
        self._check_text(text)
        batch_size = whole_number(batch_size, "batch_size", least=1)
        check_stop(stop)
        text = read_references(text, 0)
        if references(text) != [1]:
            raise ValueError(f"the question must name <region1>, and no other region, but is {text!r}")
        checked: list[Box] = [tuple(box) for box in check_boxes(boxes, *self.image.size).tolist()]
        sampling = Sampling(temperature, top_p, seed)
        prompt = self._loaded.processor.prompt([("user", text)])
        max_new_tokens = self._room(prompt, max_new_tokens)
        before_region = [(token_id, None) for token_id in prompt.input_ids[: prompt.spans["region1"][0]]]
        if progress is None:
            progress = len(checked) > batch_size
        answers: list[Answer] = []
        try:
            with (
                self._alone(),
                self._loaded.hold_weights(),
                tqdm(total=len(checked), disable=not progress, unit="region") as bar,
            ):
                self._check_weights()
                known = branch(self._cache, self._in_common(before_region))
                for batch in describe_batches(
                    self._encoded, prompt, checked, batch_size, max_new_tokens, sampling, known, stop
                ):
                    answers.extend(batch)
                    bar.update(len(batch))
        except KeyboardInterrupt:
            pass  # what is finished is kept, and the warning below says that it is not all
        unfinished = sum(answer.stopped for answer in answers)
        if unfinished or len(answers) < len(checked):
            warnings.warn(
                f"stopped after {len(answers) - unfinished} of {len(checked)} regions"
                + (f"; {unfinished} more were begun" if unfinished else ""),
                stacklevel=2,
            )
        return answers

    def roi_features(self, boxes: ArrayLike, *, rounds: bool = False) -> RoIFeatures:
        """What the region encoder makes of some boxes, step by step; see `capture.RoIFeatures`.

        boxes: (N, 4) pixel xyxy in the original image. rounds: keep the fused maps after each round as well.
        """
        checked = check_boxes(boxes, *self.image.size)
        with self._loaded.inference():
            return record_roi_features(self._encoded, [tuple(box) for box in checked.tolist()], rounds=rounds)

    def undo(self) -> Turn:
        """Takes the last turn back, with the regions that it introduced, and returns it.

        Raises:
            ValueError: where nothing has been asked.
            RuntimeError: while an answer is being written.
        """
        with self._alone():
            if not self._turns:
                raise ValueError("there is no turn to undo; nothing has been asked yet")
            turn = self._turns.pop()
            self._history_version += 1
            self._regions = [region for region in self._regions if region.number not in turn.regions]
            return turn

    def reset(self) -> None:
        """Begins a new conversation about the same image: no turns, no regions.

        The image stays encoded, and the keys and values of the prompt's beginning serve the new conversation.
        """
        with self._alone():
            self._turns.clear()
            self._regions.clear()
            self._history_version += 1

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the image's reference, the regions and the turns as JSON.

        An image that did not come from a file is written beside it, as PNG.
        """
        write_conversation(path, self.image, self.source, self._regions, self._turns)

    def export(self, path: str | os.PathLike[str]) -> None:
        """Writes the conversation for people to read: image, numbered regions and turns in one file.

        path: ends with `.html`, or with `.md` for Markdown. What `load` reads is written by `save`.

        Raises:
            ValueError: for a name with another ending.
            FileNotFoundError: where there is no such folder.
        """
        boxes = [region.box for region in self._regions]
        export_conversation(path, self.image, boxes, self._turns, self._loaded.about)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], gpt4roi: LoadedModel, *, image: ImageLike | None = None
    ) -> RegionSession:
        """A saved conversation, to be continued.

        Args:
            path: what `save` wrote.
            image: the picture, where it has moved since.

        Raises:
            FileNotFoundError: where the file or its image is missing.
            ValueError: where the file is no saved conversation, or the image has another size.

        Warns:
            UserWarning: where the image has the right size, but other pixels than the conversation's.
        """
        saved = read_conversation(path)
        session = cls(gpt4roi, saved.find_image() if image is None else image)
        saved.check_image(session.image)
        session.restore(saved.regions, saved.turns)
        return session

    def restore(self, regions: Sequence[Region], turns: Sequence[Turn]) -> None:
        """Puts a conversation in the place of the present one; it is read by the model with the next question."""
        self.reset()
        self._regions.extend(regions)
        self._turns.extend(turns)

    def __repr__(self) -> str:
        size = f"{self.image.width} × {self.image.height}"
        return f"RegionSession({self.source or size}, {len(self._regions)} regions, {len(self._turns)} turns)"

    def release(self) -> None:
        """Gives the memory back; the session is of no further use. Called by `GPT4RoI.unload`."""
        self._forget()
        self._encoded.release()


def _keys(prompt: Prompt, boxes: Sequence[Box]) -> list[_Key]:
    """What each token's keys and values depend on beside the tokens before it: its id, and its box if a region."""
    keys: list[_Key] = [(token_id, None) for token_id in prompt.input_ids]
    for number, box in zip(prompt.regions, boxes, strict=True):
        position = prompt.spans[f"region{number}"][0]
        keys[position] = (prompt.input_ids[position], box)
    return keys
