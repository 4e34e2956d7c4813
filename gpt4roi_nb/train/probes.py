"""A few regions of one image that a model is asked about while it learns, to see its answers change."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from numpy.typing import ArrayLike

from gpt4roi_nb.boxes import check_boxes
from gpt4roi_nb.draw import REGION_COLORS
from gpt4roi_nb.images import ImageLike, load_image
from gpt4roi_nb.prompt import DEFAULT_QUESTION
from gpt4roi_nb.session.gpt4roi import GPT4RoI

MAX_NEW_TOKENS = 32


class Probes:
    """The regions, and what is asked about each by itself.

    Args:
        image: as `GPT4RoI.session` takes it.
        boxes: (N, 4) pixel xyxy in the original image; four are seen at a glance, ten at most.
        truths: what is right, one text a box; shown beside the answers.
        question: names `<region1>` and no other.
        max_new_tokens: of an answer.

    Raises:
        ValueError: bad boxes, none or too many, or not one truth a box.
    """

    def __init__(
        self,
        image: ImageLike,
        boxes: ArrayLike,
        truths: Sequence[str] = (),
        *,
        question: str = DEFAULT_QUESTION,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> None:
        self.image = load_image(image)
        self.boxes = check_boxes(boxes, *self.image.size)
        if not 1 <= len(self.boxes) <= len(REGION_COLORS):
            raise ValueError(f"probes need 1 to {len(REGION_COLORS)} boxes, but {len(self.boxes)} came")
        if truths and len(truths) != len(self.boxes):
            raise ValueError(f"give one truth a box, or none: there are {len(self.boxes)} boxes, {len(truths)} truths")
        self.truths = tuple(truths)
        self.question = question
        self.max_new_tokens = max_new_tokens

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the answers are about, as JSON has it."""
        picture = hashlib.sha256(f"{self.image.size}".encode() + self.image.tobytes()).hexdigest()[:16]
        return {"question": self.question, "boxes": self.boxes.tolist(), "picture": picture}

    def ask(self, gpt4roi: GPT4RoI) -> list[str]:
        """The model's present answers, greedy; it goes on training as it was."""
        session = gpt4roi.session(self.image)
        answers = session.describe(self.boxes, self.question, max_new_tokens=self.max_new_tokens, progress=False)
        return [answer.text for answer in answers]

    def share(self, answers: Sequence[str]) -> float:
        """How much of the truths the answers say: the share of their words. Raises ValueError without truths."""
        if not self.truths or len(answers) != len(self.truths):
            raise ValueError(f"expected one answer for each of {len(self.truths)} truths, but {len(answers)} came")
        words = [truth.lower().split() for truth in self.truths]
        said = [set(answer.lower().replace(",", " ").replace(".", " ").split()) for answer in answers]
        found = sum(word in those for truth, those in zip(words, said, strict=True) for word in truth)
        return found / sum(map(len, words))
