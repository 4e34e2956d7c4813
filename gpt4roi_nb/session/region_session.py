"""A conversation about regions of one image: encode once, ask many."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from numpy.typing import ArrayLike
from torch import Tensor
from tqdm.auto import tqdm

from gpt4roi_nb.arguments import check_stop, whole_number
from gpt4roi_nb.boxes import Box, checked_boxes
from gpt4roi_nb.capture.roi_features import RoIFeatures, record_roi_features
from gpt4roi_nb.images import ImageLike, load_image
from gpt4roi_nb.inference.cache import branch, new_cache
from gpt4roi_nb.inference.decode import Read, Sampling, decode, detokenizers
from gpt4roi_nb.inference.detokenizer import StreamingDetokenizer
from gpt4roi_nb.inference.encoded_image import EncodedImage
from gpt4roi_nb.inference.loaded_model import LoadedModel, WeightsChangedError
from gpt4roi_nb.inference.padding import common_length
from gpt4roi_nb.prompt import DEFAULT_QUESTION, Prompt, check_references, references
from gpt4roi_nb.session.conversation import Answer, Region, Turn
from gpt4roi_nb.session.describe import describe_batches
from gpt4roi_nb.session.export import export_conversation
from gpt4roi_nb.session.references import read_references
from gpt4roi_nb.session.region_model import Rendered
from gpt4roi_nb.session.rendering import rendered
from gpt4roi_nb.session.saving import read_conversation, write_conversation

BUSY = (
    "another answer is being written in this session; wait for it or stop it first (read a stream to its end, or call "
    "its close())"
)

_Key = tuple[int, Box | str | None]


class RegionSession:
    """A conversation about one image, made by `GPT4RoI.session(image)`.

    The image is encoded here, once. A new box costs RoIAlign and a small head. A follow-up question costs its new
    tokens, since keys and values are kept and cut back to the longest common prefix.

    Attributes:
        image: the upright image, PIL RGB.
        source: absolute path of the image's file; None if it did not come from one.

    Examples:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> scene = make_scene(5)
        >>> session = GPT4RoI.from_pretrained(device="cpu").session(scene.image)
        >>> print(session.ask("What colour is <region1>?", [scene.objects[0].box]))
        red
        >>> [region.number for region in session.regions], len(session.history)
        ([1], 1)
    """

    def __init__(self, loaded: LoadedModel, image: ImageLike) -> None:
        self._loaded = loaded
        self.source = os.path.abspath(os.path.expanduser(image)) if isinstance(image, str | os.PathLike) else None
        self.image = load_image(image)
        self._encoded = self._encode()
        self._turns: list[Turn] = []
        self._regions: list[Region] = []
        self._cached_version: int | None = None  # of the weights that the cache was computed with
        self._history_version = 0  # grows with every turn that is added or removed
        self._busy = threading.Lock()
        self._forget()
        loaded.remember(self)

    def _encode(self) -> EncodedImage:
        return EncodedImage(self._loaded, self.image)

    def _forget(self) -> None:
        """Empty the key/value cache."""
        self._cache = new_cache()
        self._cached: list[_Key] = []

    def _check_weights(self) -> None:
        """Empty the cache if the weights have changed since it was filled."""
        version = self._loaded.weights_version
        if version != self._cached_version:
            self._forget()
            self._cached_version = version

    def hold_weights(self) -> AbstractContextManager[None]:
        """Keep training waiting, so that all answers within the block come from the same weights."""
        return self._loaded.hold_weights()

    @property
    def loaded(self) -> LoadedModel:
        """The model that answers."""
        return self._loaded

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions of the conversation, in the order of their numbers."""
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
        """Ask a question and wait for the whole answer.

        Args:
            text: the question. `<regionN>` names a region; it must name every new one. `<Region 1>`, and "region 1" if
                the conversation has no such region yet, mean the same.
            boxes: (N, 4) pixel xyxy in the original (EXIF-oriented) image: the new regions, whose numbers follow those
                that the session already has. Boxes partly outside are clipped, with a warning.
            max_new_tokens: the most tokens to write.
            temperature: 0 takes the likeliest token each time; above 0 samples from the `top_p` nucleus.
            top_p: probability mass of the nucleus, above 0 and at most 1.
            seed: makes sampling repeatable.
            stop: an event that ends the answer early; what was written is kept.

        Returns:
            The answer, which is also `history[-1].answer`.

        Raises:
            ValueError: for bad boxes, an empty text, references that do not fit the boxes, or a prompt that is longer
                than the model's context. The session is unchanged then.
            TypeError: for an argument of a wrong type.
            RuntimeError: after `unload()`, or while another answer is being written.
            FloatingPointError: if the model computes NaN; the message names the cause, as far as it can be found.
        """
        with self._loaded.hold_weights():  # the whole answer comes from the same weights, also while the model trains
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
        """Ask as `ask` does, but yield the answer piece by piece; afterwards it is `history[-1].answer`.

        Bad input raises at the call, before the first piece. If the iteration is left early, the answer so far is kept,
        as after a Stop. The same happens if the reader pauses for more than a second while the model trains: the
        iteration ends with a `WeightsChangedError`, since the rest would come from other weights.

        Args:
            text, boxes, max_new_tokens, temperature, top_p, seed, stop: as in `ask`.

        Yields:
            Pieces of the text.

        Raises:
            WeightsChangedError: see above.
            Exception: as `ask`.
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
        """Yield pieces of text and return the `Answer`."""
        with self._alone():
            started = time.perf_counter()
            version, new, prompt, room = asked
            if version != self._history_version:  # a turn was added or undone since the question was checked
                new, prompt, room = self._prepare(text, boxes, max_new_tokens)
            return (yield from self._write(text, new, prompt, room, sampling, stop, started))

    def _prepare(self, text: str, boxes: ArrayLike, max_new_tokens: int) -> tuple[list[Region], Prompt, int]:
        """Check a question; return its new regions, the whole prompt, and how many tokens can be written."""
        self._loaded.check_loaded()
        new = self._new_regions(text, boxes)
        prompt = self._loaded.processor.prompt([*self._spoken(), ("user", text)])
        return new, prompt, self._room(prompt, max_new_tokens)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Give the conversation and the cache to one caller at a time, in whatever thread."""
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
        new = [Region(number, box) for number, box in enumerate(checked_boxes(boxes, *self.image.size), known + 1)]
        check_references(references(text), [region.number for region in new], known)
        return new

    @staticmethod
    def _check_text(text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"the question must be a string, but is a {type(text).__name__}")

    def _spoken(self) -> list[tuple[str, str]]:
        return [turn for past in self._turns for turn in (("user", past.question), ("assistant", past.answer.text))]

    def _room(self, prompt: Prompt, max_new_tokens: int) -> int:
        """Return how many tokens can be written; raise ValueError if the prompt alone fills the model's context."""
        max_new_tokens = whole_number(max_new_tokens, "max_new_tokens", least=1)
        context = self._loaded.context_length
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
        (row,) = rows = detokenizers(self._loaded, 1)
        keys = self._keys(prompt, regions)
        reused = 0

        def keep() -> Answer:
            answer = self._as_answer(row, prompt, regions, reused, time.perf_counter() - started)
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
                embeddings, read = self._begin(prompt, regions, reused)
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
                read=read,
            ):
                if piece:
                    yield piece
            return keep()
        except BaseException as error:
            if not isinstance(error, GeneratorExit):
                self._forget()  # in the middle of a step, the keys and values of only some layers may have grown
            # The reader left or paused, or the kernel was interrupted: as after a Stop, what was written is kept.
            if isinstance(error, GeneratorExit | KeyboardInterrupt | WeightsChangedError):
                row.stopped = True
                keep()
            raise
        finally:
            known = [*keys, *((token_id, None) for token_id in row.ids)]
            self._cached = known[: self._cache.get_seq_length()]

    def _keys(self, prompt: Prompt, regions: Sequence[Region]) -> list[_Key]:
        """Return what each token's keys and values depend on, besides the tokens before it: its id, a region's box."""
        keys: list[_Key] = [(token_id, None) for token_id in prompt.input_ids]
        for number in prompt.regions:
            position = prompt.spans[f"region{number}"][0]
            keys[position] = (prompt.input_ids[position], regions[number - 1].box)
        return keys

    def _begin(self, prompt: Prompt, regions: Sequence[Region], reused: int) -> tuple[Tensor, Read | None]:
        """Return what `decode` takes: the prompt from token `reused` on, and how the model reads."""
        return self._encoded.embed(prompt, [regions[number - 1].box for number in prompt.regions], reused), None

    def _as_answer(
        self, row: StreamingDetokenizer, prompt: Prompt, regions: Sequence[Region], reused: int, seconds: float
    ) -> Answer:
        boxes = [regions[number - 1].box for number in prompt.regions]
        return Answer.of(row, self._encoded, prompt, boxes, reused_tokens=reused, seconds=seconds)

    def _cut_back(self, keys: list[_Key]) -> int:
        """Cut the cache back to what it has in common with a prompt; return how many tokens that is."""
        # The last token is always computed: the answer begins with its logits.
        common = common_length([self._cached, keys[:-1]])
        if excess := self._cache.get_seq_length() - common:
            self._cache.crop(-excess)
        self._cached = keys[:common]
        return common

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
        """Ask the same question about each of many boxes, in batches that share the image and the prompt's beginning.

        Each box is `<region1>` of its own conversation; the session's conversation and regions do not change.

        Args:
            boxes: (N, 4) pixel xyxy in the original image.
            text: a question that names `<region1>` and no other region.
            batch_size: boxes at a time; fewer, with a warning, if memory is short or runs out.
            max_new_tokens: the most tokens to write per answer.
            temperature, top_p, seed: as in `ask`.
            stop: an event that ends the work early.
            progress: whether to show a progress bar; None shows one if there is more than one batch.

        Returns:
            One answer per box, in the order of the boxes. After a stop or an interrupt there are fewer, with a warning:
            those of the batches that were begun; the last batch may hold unfinished answers (`Answer.stopped`).
            `seconds` is each batch's time divided by its boxes.

        Raises:
            ValueError: for bad boxes, a question that names other regions, or one that is too long.
            RuntimeError: after `unload()`, or while an answer is being written in this session.
            MemoryError: if a single box does not fit; the message says what helps.
        """
        batch_size = whole_number(batch_size, "batch_size", least=1)
        check_stop(stop)
        text = self._about_each(text)
        checked = checked_boxes(boxes, *self.image.size)
        sampling = Sampling(temperature, top_p, seed)
        prompt = self._loaded.processor.prompt([("user", text)])
        max_new_tokens = self._room(prompt, max_new_tokens)
        before_region = [(token_id, None) for token_id in prompt.input_ids[: prompt.spans["region1"][0]]]

        def batches() -> Iterator[list[Answer]]:
            self._check_weights()
            known = branch(self._cache, common_length([self._cached, before_region]))
            yield from describe_batches(
                self._encoded, prompt, checked, batch_size, max_new_tokens, sampling, known, stop
            )

        return self._gather(batches(), len(checked), len(checked) > batch_size if progress is None else progress)

    def _about_each(self, text: str) -> str:
        """Check a question that `describe` asks about each box; return it with its references in brackets."""
        self._check_text(text)
        text = read_references(text, 0)
        if references(text) != [1]:
            raise ValueError(f"the question must name <region1>, and no other region, but is {text!r}")
        return text

    def _gather(self, batches: Iterator[list[Answer]], total: int, progress: bool) -> list[Answer]:
        """Return the answers of all batches, or after a stop or an interrupt, with a warning, of those that were begun.

        Args:
            batches: begun under the session's lock, while the weights are held.
            total: the number of regions.
            progress: whether to show a progress bar.
        """
        answers: list[Answer] = []
        try:
            with (
                self._alone(),
                self._loaded.hold_weights(),
                tqdm(total=total, disable=not progress, unit="region") as bar,
            ):
                for batch in batches:
                    answers.extend(batch)
                    bar.update(len(batch))
        except KeyboardInterrupt:
            pass  # finished answers are kept, and the warning below says that some are missing
        unfinished = sum(answer.stopped for answer in answers)
        if unfinished or len(answers) < total:
            warnings.warn(
                f"stopped after {len(answers) - unfinished} of {total} regions"
                + (f"; {unfinished} more were begun" if unfinished else ""),
                stacklevel=3,
            )
        return answers

    def roi_features(self, boxes: ArrayLike, *, rounds: bool = False) -> RoIFeatures:
        """Record what the region encoder computes for some boxes, step by step; see `capture.RoIFeatures`.

        Args:
            boxes: (N, 4) pixel xyxy in the original image.
            rounds: whether to keep the fused maps after each round as well.

        Raises:
            ValueError: for bad boxes.
            RuntimeError: after `unload()`.
        """
        checked = checked_boxes(boxes, *self.image.size)
        with self._loaded.inference():
            return record_roi_features(self._encoded, checked, rounds=rounds)

    def render(self, turn: int = -1) -> Rendered:
        """Return what the model read for a question of this conversation.

        Args:
            turn: index into `history`; the last one by default.

        Raises:
            IndexError: if there is no such turn.
        """
        spoken = self._spoken()[: 2 * self._turn_index(turn) + 1]
        return rendered(self._loaded.processor, self.image, spoken)

    def _turn_index(self, turn: int) -> int:
        """Check an index into `history`, which may be negative; return it from 0."""
        if not -len(self._turns) <= turn < len(self._turns):
            raise IndexError(f"the conversation has {len(self._turns)} turns, numbered from 0, but turn is {turn}")
        return turn % len(self._turns)

    def undo(self) -> Turn:
        """Remove the last turn, with the regions that it introduced, and return it.

        Raises:
            ValueError: if nothing has been asked.
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
        """Begin a new conversation about the same image, without turns and regions.

        The image stays encoded, and the new conversation uses the keys and values of the prompt's beginning.

        Raises:
            RuntimeError: while an answer is being written.
        """
        with self._alone():
            self._turns.clear()
            self._regions.clear()
            self._history_version += 1

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the image's path, the regions, the turns and the way in which regions were told as JSON.

        An image that did not come from a file is written beside it, as PNG.

        Args:
            path: the JSON file.

        Raises:
            ValueError: if it is not the name of a file.
            FileNotFoundError: if its folder does not exist.
        """
        write_conversation(path, self.image, self.source, self._regions, self._turns, self._loaded.way)

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write the conversation for people to read: image, numbered regions and turns in one file.

        For a file that `load` reads, use `save`.

        Args:
            path: ends with `.html`, or with `.md` for Markdown.

        Raises:
            ValueError: for a name with another ending.
            FileNotFoundError: if its folder does not exist.
        """
        boxes = [region.box for region in self._regions]
        export_conversation(path, self.image, boxes, self._turns, self._loaded.about)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], gpt4roi: LoadedModel, *, image: ImageLike | None = None
    ) -> RegionSession:
        """Load a saved conversation, to continue it.

        Args:
            path: a file that `save` wrote.
            gpt4roi: the model to continue with.
            image: the image, if it has moved since.

        Raises:
            FileNotFoundError: if the file or its image is missing.
            ValueError: if the file is not a saved conversation, or the image has another size.

        Warns:
            UserWarning: if the image has the right size, but other pixels than the conversation's; or if the model is
                told regions in another way than the one whose answers were saved.
        """
        saved = read_conversation(path)
        given = saved.find_image() if image is None else image
        opens = getattr(gpt4roi, "session", None)  # of whichever kind the model's sessions are
        session: RegionSession = cls(gpt4roi, given) if opens is None else opens(given)
        saved.check_image(session.image)
        saved.check_way(gpt4roi.way)
        session.restore(saved.regions, saved.turns)
        return session

    def restore(self, regions: Sequence[Region], turns: Sequence[Turn]) -> None:
        """Replace the conversation by another one, which the model reads with the next question."""
        self.reset()
        self._regions.extend(regions)
        self._turns.extend(turns)

    def __repr__(self) -> str:
        size = f"{self.image.width} × {self.image.height}"
        return f"RegionSession({self.source or size}, {len(self._regions)} regions, {len(self._turns)} turns)"

    def release(self) -> None:
        """Free the memory; the session cannot be used afterwards. `GPT4RoI.unload` calls this."""
        self._forget()
        self._encoded.release()
