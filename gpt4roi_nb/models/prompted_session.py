"""A conversation about regions of one image with any model of transformers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from gpt4roi_nb.arguments import check_stop, whole_number
from gpt4roi_nb.boxes import Box, checked_boxes
from gpt4roi_nb.images import ImageLike
from gpt4roi_nb.inference.decode import Read, Sampling
from gpt4roi_nb.inference.detokenizer import StreamingDetokenizer
from gpt4roi_nb.inference.padding import common_length
from gpt4roi_nb.models.batching import write_batches
from gpt4roi_nb.models.families import check_askable, default_question
from gpt4roi_nb.models.images import SessionImages
from gpt4roi_nb.models.loaded_family import LoadedFamily
from gpt4roi_nb.models.prompts import PromptedPrompt
from gpt4roi_nb.models.reading import StateCache, cache_for, reader_of
from gpt4roi_nb.models.replay import PromptedReplay
from gpt4roi_nb.session.conversation import Answer, Region
from gpt4roi_nb.session.references import in_brackets
from gpt4roi_nb.session.region_model import Rendered
from gpt4roi_nb.session.region_session import RegionSession


class PromptedSession(RegionSession):
    """A conversation about one image, made by `PromptedModel.session(image)`.

    It is asked as a `RegionSession` is, with the same grammar, checks and locks. The image is encoded once where the
    model takes features. Keys and values are kept for a follow-up as long as what the model is shown stays the same: a
    new region that is drawn or cut out makes another prompt from its first image on.

    Examples:
        >>> from gpt4roi_nb import load_model
        >>> session = load_model("Qwen/Qwen3-VL-2B-Instruct").session("kitchen.jpg")  # doctest: +SKIP
        >>> answer = session.ask("What is <region1>?", boxes=[(40, 30, 210, 180)])  # doctest: +SKIP
        >>> print(answer.told)  # doctest: +SKIP
        What is [63, 63, 328, 375]?
    """

    _loaded: LoadedFamily

    def __init__(self, loaded: LoadedFamily, image: ImageLike, images: SessionImages | None = None) -> None:
        """Begin a conversation.

        Args:
            loaded: the model.
            image: as `PromptedModel.session` takes it.
            images: those of another session about the same image, to share what was encoded.
        """
        self._images = loaded.images() if images is None else images
        super().__init__(loaded, image)

    def _encode(self) -> Any:
        return self._images

    def _forget(self) -> None:
        super()._forget()
        self._cache = cache_for(self._loaded.model.config)

    def _prepare(self, text: str, boxes: ArrayLike, max_new_tokens: int) -> tuple[list[Region], Any, int]:
        self._loaded.check_loaded()
        new = self._new_regions(text, boxes)
        self._check_turn(text, len(self._regions) + len(new))
        turns = [(role, self._in_brackets(said) if role == "user" else said) for role, said in self._spoken()]
        regions = {one.number: one.box for one in (*self._regions, *new)}
        prompt = self._loaded.prompt(self._images, self.image, [*turns, ("user", self._in_brackets(text))], regions)
        return new, prompt, self._room(prompt, max_new_tokens)  # type: ignore[arg-type]  # has what that reads

    def _check_turn(self, text: str, regions: int) -> None:
        """Raises ValueError for what the model cannot do."""
        loaded = self._loaded
        if self._turns and not loaded.capabilities.follow_ups:
            raise ValueError(
                f"{loaded.model_type} was made for one question at a time, and this conversation has one; begin a new "
                "conversation (reset() in Python), or ask about many regions with describe()"
            )
        check_askable(text, regions, loaded.way, loaded.model_type)

    def _in_brackets(self, text: str) -> str:
        """A question in which "region 1", of a region that the conversation has, is the reference that it means."""
        return in_brackets(text, range(1, len(self._regions) + 1).__contains__)

    def _keys(self, prompt: Any, regions: Sequence[Region]) -> list[Any]:
        return prompt.keys()

    def _cut_back(self, keys: list[Any]) -> int:
        common = common_length([self._cached, keys[:-1]])
        cut = isinstance(self._cache, StateCache) and common < self._cache.get_seq_length()
        if cut or not self._loaded.family.keeps_prefixes or any(shown for _, shown in keys[common:]):
            self._forget()  # states cannot be cut back; images are read together, from the beginning
            return 0
        return super()._cut_back(keys)

    @torch.inference_mode()
    def _begin(self, prompt: Any, regions: Sequence[Region], reused: int) -> tuple[Tensor, Read | None]:
        features = self._images.features(prompt.shown)
        with self._loaded.inference() as model:
            reader = reader_of(model, [prompt], reused, features)
        return reader.begin, reader

    def _as_answer(
        self, row: StreamingDetokenizer, prompt: Any, regions: Sequence[Region], reused: int, seconds: float
    ) -> Answer:
        replay = self._replay(row, prompt, {one.number: one.box for one in regions})
        return self._loaded.as_answer(row, prompt, reused, seconds, replay)

    def _replay(self, row: StreamingDetokenizer, prompt: Any, regions: dict[int, Box]) -> PromptedReplay:
        """Return what runs an answer again."""
        first, last = row.kept
        return PromptedReplay(
            self._loaded, self._images, self.image, prompt, regions, row.ids[:last], first, row.tokens
        )

    def describe(  # type: ignore[override]  # the question's default is the model's
        self,
        boxes: ArrayLike,
        text: str | None = None,
        *,
        batch_size: int = 16,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: threading.Event | None = None,
        progress: bool | None = None,
    ) -> list[Answer]:
        """Ask the same question about each of many boxes, in batches; see `RegionSession.describe`.

        Args:
            boxes: (N, 4) pixel xyxy in the original image.
            text: a question that names `<region1>` and no other region; None takes "What is <region1>?", or the first
                of the model's tasks.
            batch_size: boxes at a time; fewer if memory runs out, or if the family takes prompts of equal length only.
            max_new_tokens, temperature, top_p, seed, stop, progress: as in `RegionSession.describe`.

        Returns:
            One answer per box, in the order of the boxes; fewer, with a warning, after a stop or an interrupt.

        Raises:
            ValueError: for bad boxes, or a question that the model cannot take.
            RuntimeError: after `unload()`, or while an answer is being written in this session.
        """
        loaded = self._loaded
        loaded.check_loaded()
        text = default_question(loaded.way, loaded.model_type) if text is None else text
        text = self._about_each(text)
        batch_size = whole_number(batch_size, "batch_size", least=1)
        check_stop(stop)
        check_askable(text, 1, loaded.way, loaded.model_type)
        sampling = Sampling(temperature, top_p, seed)
        checked = checked_boxes(boxes, *self.image.size)
        prompts = [loaded.prompt(self._images, self.image, [("user", text)], {1: box}) for box in checked]
        box_of = {id(prompt): box for prompt, box in zip(prompts, checked, strict=True)}

        def keep(row: StreamingDetokenizer, prompt: PromptedPrompt, reused: int, seconds: float) -> Answer:
            replay = self._replay(row, prompt, {1: box_of[id(prompt)]})
            return loaded.as_answer(row, prompt, reused, seconds, replay)

        room: Any = max(prompts, key=lambda prompt: len(prompt.input_ids), default=None)
        max_new_tokens = self._room(room, max_new_tokens) if room else max_new_tokens
        batches = write_batches(
            loaded,
            self._images,
            prompts,
            keep,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            stop=stop,
            partial=True,
        )
        return self._gather(batches, len(checked), len(checked) > batch_size if progress is None else progress)

    def render(self, turn: int = -1) -> Rendered:
        index = self._turn_index(turn)
        known = sum(len(one.regions) for one in self._turns[: index + 1])
        turns = [(role, self._in_brackets(said) if role == "user" else said) for role, said in self._spoken()]
        regions = {one.number: one.box for one in self._regions[:known]}
        return self._loaded.rendered(self._images, self.image, turns[: 2 * index + 1], regions)

    def roi_features(self, boxes: ArrayLike, *, rounds: bool = False) -> Any:
        """Raises ValueError: only GPT4RoI pools features of a region."""
        raise ValueError(f"{self._loaded.model_type} pools no features of a region; only a GPT4RoI does")

    def __repr__(self) -> str:
        return super().__repr__().replace("RegionSession", "PromptedSession", 1)
