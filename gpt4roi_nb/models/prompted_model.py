"""Any image-text-to-text model of transformers behind the session of this package."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Self, overload

from numpy.typing import ArrayLike

from gpt4roi_nb.arguments import whole_number
from gpt4roi_nb.boxes import Box
from gpt4roi_nb.images import ImageLike, load_image
from gpt4roi_nb.models.batching import option_likelihoods, write_batches
from gpt4roi_nb.models.families import way_of
from gpt4roi_nb.models.images import SessionImages
from gpt4roi_nb.models.loaded_family import LoadedFamily
from gpt4roi_nb.models.prompted_session import PromptedSession
from gpt4roi_nb.models.prompts import PromptedPrompt
from gpt4roi_nb.models.ways.settings import settings_of
from gpt4roi_nb.session.conversation import Answer
from gpt4roi_nb.session.gpt4roi import GPT4RoI
from gpt4roi_nb.session.options import check_options
from gpt4roi_nb.session.region_model import Question, Rendered, numbered


class PromptedModel(LoadedFamily):
    """A model that gets a box as text, as a drawing or as a crop; made by `load_model`.

    Attributes:
        model: the model, in evaluation mode.
        processor: its own.
        source: where it was loaded from.
        family: what is known of models of its kind.
        way: how boxes are presented to it.
        pen: colour and width of the line of `draw`.
        margin: what `context` adds on each side, as a share of the box's side.

    Examples:
        >>> from gpt4roi_nb import load_model
        >>> model = load_model("Qwen/Qwen3-VL-2B-Instruct", regions="draw")  # doctest: +SKIP
        >>> model.render("kitchen.jpg", "What is <region1>?", [(40, 30, 210, 180)]).text  # doctest: +SKIP
        'What is the object within the red rectangle?'

        Rendering a question needs no weights:

        >>> from PIL import Image
        >>> from gpt4roi_nb.models import render_without_weights
        >>> image = Image.new("RGB", (64, 64))
        >>> told = render_without_weights(None, "full+crop", image, "What is <region1>?", [(8, 8, 48, 56)])
        >>> told.text, [shown.size for shown in told.images]
        ('What is the object in image 2?', [(64, 64), (40, 48)])
    """

    @classmethod
    def of(cls, gpt4roi: GPT4RoI, regions: str) -> Self:
        """Return a GPT4RoI that is asked without its region tokens. It shares the weights and their lock.

        Args:
            gpt4roi: the model.
            regions: how boxes are presented to it: "draw", "marks", "crop" or "context".

        Raises:
            ValueError: for another way.

        Examples:
            >>> from PIL import Image
            >>> from gpt4roi_nb import GPT4RoI
            >>> from gpt4roi_nb.models import PromptedModel
            >>> cropped = PromptedModel.of(GPT4RoI.from_pretrained(device="cpu"), "crop")
            >>> told = cropped.render(Image.new("RGB", (96, 96)), "What is <region1>?", [(8, 8, 48, 56)])
            >>> told.text, told.images[0].size
            ('What is the object in the image?', (40, 48))
        """
        made = cls(gpt4roi.model, gpt4roi.processor, regions, gpt4roi.source)
        made.forward_lock, made.revision = gpt4roi.forward_lock, gpt4roi.revision
        made.check_free_memory = gpt4roi.check_free_memory
        return made

    def with_regions(
        self,
        regions: str | None,
        *,
        colour: str | None = None,
        width: float | None = None,
        margin: float | None = None,
    ) -> PromptedModel:
        """Return the same model, to which boxes are presented in another way. It shares the weights and their lock.

        Args:
            regions, colour, width, margin: as `load_model` takes them; None takes the default.

        Raises:
            ValueError: if the way does not suit the model, for a setting of another way, or for a value that it cannot
                have.

        Examples:
            >>> from gpt4roi_nb import load_model
            >>> model = load_model("Qwen/Qwen3-VL-2B-Instruct")  # doctest: +SKIP
            >>> blue = model.with_regions("draw", colour="blue", width=5)  # doctest: +SKIP
        """
        other = copy.copy(self)
        other.way = way_of(self.model_type, regions)
        other.pen, other.margin = settings_of(other.way, colour=colour, width=width, margin=margin)
        return other

    def session(self, image: ImageLike) -> PromptedSession:
        """Begin a conversation about an image.

        Args:
            image: as `GPT4RoI.session` takes it; boxes refer to the upright image at its original size.
        """
        return PromptedSession(self, image)

    def render(self, image: ImageLike, text: str, boxes: ArrayLike = ()) -> Rendered:
        """Return what the model would read; only the image is prepared, and the model does not run.

        Args:
            image: as `session` takes it.
            text: a question with `<regionN>`.
            boxes: (N, 4) pixel xyxy in the original image.

        Raises:
            ValueError: for bad boxes, references that do not fit them, or a question that the model cannot take.
        """
        whole = load_image(image)
        text, regions = self.checked(whole, text, boxes)
        return self.rendered(self.images(), whole, [("user", text)], regions)

    def answers(
        self,
        questions: Sequence[Question],
        *,
        max_new_tokens: int = 256,
        batch_size: int = 16,
        images: SessionImages | None = None,
    ) -> list[Answer]:
        """Answer many questions greedily, in batches, each as in a conversation of its own.

        The texts and boxes of all questions are checked before the first is answered; images are prepared batch by
        batch. Questions about the same image share what the model reads of it, if they are in the same batch and the
        model gets the same images.

        Args:
            questions: about any images.
            max_new_tokens: the most tokens per answer; fewer where the model's context is full.
            batch_size: questions at a time; fewer if memory runs out, or if the family takes prompts of equal length
                only.
            images: `images()` that several calls share, so that an image is encoded once for all of them.

        Returns:
            One answer per question, in their order.

        Raises:
            ValueError: for a question that the model cannot take; the message begins with its number. One that is too
                long only with its image is found when its batch is reached.
        """
        max_new_tokens = whole_number(max_new_tokens, "max_new_tokens", least=1)
        batch_size = whole_number(batch_size, "batch_size", least=1)
        prompts = _Prompts(self, self.images() if images is None else images, questions)
        with self.hold_weights():
            batches = write_batches(
                self, prompts.images, prompts, self.as_answer, batch_size=batch_size, max_new_tokens=max_new_tokens
            )
            return [answer for batch in batches for answer in batch]

    def likelihoods(
        self,
        image: ImageLike,
        text: str,
        boxes: ArrayLike,
        options: Sequence[str],
        *,
        batch_size: int = 16,
        images: SessionImages | None = None,
    ) -> list[float]:
        """Return the natural log-probability of each option as the whole answer, with the token that ends it.

        The prompt is read once for all options, and the options are read together.

        Args:
            image: as `session` takes it.
            text: a question with `<regionN>`.
            boxes: (N, 4) pixel xyxy in the original image.
            options: answers to compare.
            batch_size: options at a time.
            images: `images()` that several calls share, so that an image is encoded once for all of them.

        Raises:
            ValueError: as `render`, or for an empty option.
        """
        check_options(options)
        whole, images = load_image(image), self.images() if images is None else images
        text, regions = self.checked(whole, text, boxes)
        asked = self.prompt(images, whole, [("user", text)], regions)
        answered = [self.prompt(images, whole, [("user", text), ("assistant", option)], regions) for option in options]
        answers = [one.answer for one in answered]
        for one in answered[:1]:  # all have the same opening
            asked = replace(asked, input_ids=asked.input_ids[: one.before], images=asked.images[: one.before])
        self.check_tokens(len(asked.input_ids), max(map(len, answers), default=0))
        return option_likelihoods(self, images, asked, answers, whole_number(batch_size, "batch_size", least=1))

    def __repr__(self) -> str:
        if not self.is_loaded:
            return f"PromptedModel({self.source!r}, unloaded)"
        size = f"{self.model.num_parameters():,} parameters"
        return f"PromptedModel({self.source!r}, {self.model_type}, {size}, regions={self.way!r}, {self.device})"


class _Prompts(Sequence[PromptedPrompt]):
    """Prompts of many questions, each made when it is wanted, so that no more images are held than a batch has.

    images: the images of the latest.
    """

    def __init__(self, loaded: LoadedFamily, images: SessionImages, questions: Sequence[Question]) -> None:
        """Check the questions: all that needs no prepared image.

        Raises:
            ValueError: for the first that the model cannot take.
        """
        self._loaded, self.images = loaded, images
        self._given = [one.rereadable() for one in questions]
        self._asked: list[tuple[str, dict[int, Box]]] = []
        for number, question in enumerate(self._given):
            with numbered(number):
                text, regions = loaded.checked(load_image(question.image), question.text, question.boxes)
                ids = loaded.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
                loaded.check_tokens(len(ids), 1)
                self._asked.append((text, regions))

    def __len__(self) -> int:
        return len(self._asked)

    @overload
    def __getitem__(self, index: int) -> PromptedPrompt: ...

    @overload
    def __getitem__(self, index: slice) -> list[PromptedPrompt]: ...

    def __getitem__(self, index: int | slice) -> PromptedPrompt | list[PromptedPrompt]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        with numbered(index):
            text, regions = self._asked[index]
            prompt = self._loaded.prompt(self.images, load_image(self._given[index].image), [("user", text)], regions)
            self._loaded.check_tokens(len(prompt.input_ids), 1)
            return prompt
