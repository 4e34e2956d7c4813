"""Any image-text-to-text model of transformers behind the session of this package."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import torch
from numpy.typing import ArrayLike

from gpt4roi_nb.finite import log_probabilities
from gpt4roi_nb.images import ImageLike, load_image
from gpt4roi_nb.inference.cache import branch
from gpt4roi_nb.memory import clear_frames
from gpt4roi_nb.models.families import pieces_of
from gpt4roi_nb.models.loaded_family import LoadedFamily
from gpt4roi_nb.models.prompted_session import PromptedSession
from gpt4roi_nb.models.reading import cache_for, reader_of
from gpt4roi_nb.session.region_model import Rendered


class PromptedModel(LoadedFamily):
    """A model of transformers that is told a box by text, by a drawing or by a crop; made by `load_model`.

    Attributes:
        model: the model, in evaluation mode.
        processor: its own.
        source: where it was loaded from.
        family: what is known of models of its kind.
        way: how a box is told to it.
    """

    def session(self, image: ImageLike) -> PromptedSession:
        """A conversation about an image.

        image: as `GPT4RoI.session` takes it; boxes refer to the upright image at its original size.
        """
        return PromptedSession(self, image)

    def render(self, image: ImageLike, text: str, boxes: ArrayLike = ()) -> Rendered:
        """What the model would really be told; nothing is computed but the image's preparation.

        Args:
            image: as `session` takes it.
            text: a question with `<regionN>`.
            boxes: (N, 4) pixel xyxy in the original image.

        Raises:
            ValueError: bad boxes, references that do not fit them, or a question that the model cannot take.
        """
        whole = load_image(image)
        regions = self.checked_regions(whole, text, boxes)
        pointing = self.point(self.images(), whole, regions)
        told = "".join(words for words, _ in pieces_of(text, pointing, self.way, self.model_type))
        return Rendered(pointing.images, told, pointing.note)

    @torch.inference_mode()
    def likelihoods(self, image: ImageLike, text: str, boxes: ArrayLike, options: Sequence[str]) -> list[float]:
        """Natural log-probabilities of each option as the whole answer, with the token that ends it.

        The prompt is read once for all options.

        Args:
            image: as `session` takes it.
            text: a question with `<regionN>`.
            boxes: (N, 4) pixel xyxy in the original image.
            options: answers to compare.

        Raises:
            ValueError: as `render`, or an empty option.
        """
        if not all(isinstance(option, str) and option.strip() for option in options):
            raise ValueError(f"each option must be a text that is not empty, but they are {list(options)!r}")
        whole, images = load_image(image), self.images()
        regions = self.checked_regions(whole, text, boxes)
        asked = self.prompt(images, whole, [("user", text)], regions)
        answers = [
            self.prompt(images, whole, [("user", text), ("assistant", option)], regions).answer for option in options
        ]
        features = images.features(asked.shown)
        found = []
        with self.hold_weights(), self.inference() as model:
            reader = reader_of(model, asked, 0, asked.shown, features)
            cache = cache_for(self.model_type)
            first = reader(model, reader.begin, cache)[:, -1:]
            length = cache.get_seq_length()
            for answer in answers:
                ids = torch.tensor([answer], device=model.device)
                logits = first
                if len(answer) > 1:
                    if self.model_type == "florence2":  # its cache has two halves, which do not branch
                        again = torch.cat([reader.begin, ids[:, :-1]], dim=1)
                        logits = reader(model, again, cache_for(self.model_type))
                    else:
                        rest = reader(model, ids[:, :-1], branch(cache, length))
                        logits = torch.cat([first, rest], dim=1)
                likely = log_probabilities(logits, model).gather(-1, ids[..., None])
                found.append(float(likely.double().sum()))
        return found

    def __enter__(self) -> PromptedModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.unload()
        if error is not None:
            clear_frames(error)

    def __repr__(self) -> str:
        if not self.is_loaded:
            return f"PromptedModel({self.source!r}, unloaded)"
        size = f"{self.model.num_parameters():,} parameters"
        return f"PromptedModel({self.source!r}, {self.model_type}, {size}, regions={self.way!r}, {self.device})"
