"""What every region model has, so that a session, a chat or a benchmark can take any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from numpy.typing import ArrayLike
from PIL import Image

from gpt4roi_nb.images import ImageLike
from gpt4roi_nb.session.conversation import Answer


@dataclass(frozen=True)
class Capabilities:
    """What a model can do. Asking for anything else raises an error that says why, before the model runs.

    Attributes:
        free_question: it takes any question, not tasks alone.
        several_regions: a question may name more than one.
        follow_ups: a conversation may have more than one question.
        likelihood: options can be compared by their log-probabilities.
        attention: an answer's attention can be recorded.
        attention_map: it is known where the image's tokens lie in the image, so that attention can be laid over it.
        roi_features: it pools features of a region, which can be shown.
    """

    free_question: bool
    several_regions: bool
    follow_ups: bool
    likelihood: bool
    attention: bool
    attention_map: bool
    roi_features: bool

    def __str__(self) -> str:
        return ", ".join(
            f"{'' if getattr(self, one.name) else 'no '}{one.name.replace('_', ' ')}" for one in fields(self)
        )


@dataclass(frozen=True)
class Question:
    """A question about an image, for `answers`, which answers many in batches.

    Attributes:
        image: as `session` takes it.
        text: with `<regionN>` for each box.
        boxes: (N, 4) pixel xyxy in the original image.

    Examples:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> from gpt4roi_nb.session import Question
        >>> scene = make_scene(5)
        >>> questions = [Question(scene.image, "What colour is <region1>?", [thing.box]) for thing in scene.objects[:3]]
        >>> answers = GPT4RoI.from_pretrained(device="cpu").answers(questions, max_new_tokens=4)
        >>> print(answers[0], len(answers))
        red 3
    """

    image: ImageLike
    text: str
    boxes: ArrayLike = ()

    def rereadable(self) -> Question:
        """Return the question with an image that can be loaded again: an open file is replaced by its bytes."""
        image: Any = self.image
        return replace(self, image=image.read()) if hasattr(image, "read") else self


@contextmanager
def numbered(number: int) -> Iterator[None]:
    """Say in a ValueError which of many questions it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"question {number}: {error}") from error


@dataclass(frozen=True)
class Rendered:
    """What a model really reads.

    Attributes:
        images: RGB, as the model's processor gets them.
        text: the question, with what replaces `<regionN>`; for Kosmos-2, Florence-2 and PaliGemma, whose prompts have
            a format of their own, the whole prompt without its image.
        note: what a card says of it: the way of pointing, its convention, and whether real weights have confirmed it.
    """

    images: tuple[Image.Image, ...]
    text: str
    note: Mapping[str, str | int | float]


class RegionModel(Protocol):
    """A model that can be asked about regions of images."""

    @property
    def way(self) -> str:
        """How boxes are presented to it: "region tokens" for a GPT4RoI."""

    @property
    def about(self) -> str:
        """What this model is, and how boxes are presented to it."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""

    def fingerprint(self) -> str:
        """Return a hash of the weights as they are in memory."""

    def session(self, image: ImageLike) -> Any:
        """Begin a conversation: `ask`, `stream`, `describe`, `undo`, `reset`, `save`, `render`, `history`."""

    def render(self, image: ImageLike, text: str, boxes: ArrayLike = ()) -> Rendered:
        """Return what the model would read."""

    def answers(
        self, questions: Sequence[Question], *, max_new_tokens: int = 256, batch_size: int = 16
    ) -> list[Answer]:
        """Answer many questions greedily, in batches."""

    def likelihoods(
        self, image: ImageLike, text: str, boxes: ArrayLike, options: Sequence[str], *, batch_size: int = 16
    ) -> list[float]:
        """Return the natural log-probability of each option as the whole answer."""


def needs_gpt4roi(loaded: object, what: str) -> None:
    """Check that a model is a GPT4RoI, where only one will do.

    Args:
        loaded: the model.
        what: the function that needs it, in the message.

    Raises:
        TypeError: if it is another region model.
    """
    capabilities = getattr(loaded, "capabilities", None)
    if isinstance(capabilities, Capabilities) and not capabilities.roi_features:
        raise TypeError(
            f"{what} takes a GPT4RoI, but {loaded!r} came; ask such a model with its session(), answers() and "
            "likelihoods()"
        )
