"""A few regions of one image that a model is asked about while it trains, to see its answers change."""

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
    """Regions of an image, and one question that is asked about each of them by itself.

    Args:
        image: as `GPT4RoI.session` takes it.
        boxes: (N, 4) pixel xyxy in the original image; at most ten, and four are easy to follow.
        truths: the right answers, one text per box; shown beside the model's.
        question: names `<region1>` and no other region.
        max_new_tokens: of an answer.

    Raises:
        ValueError: bad boxes, none or too many, or not one truth per box.

    Example:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> from gpt4roi_nb.train import Probes
        >>> scene = make_scene(5)
        >>> boxes = [thing.box for thing in scene.objects[:2]]
        >>> probes = Probes(scene.image, boxes, ["a red cube", "a blue ball"], max_new_tokens=4)
        >>> len(probes.ask(GPT4RoI.from_pretrained(device="cpu")))
        2
        >>> probes.share(["red cube", "blue"])  # 3 of 6 words
        0.5
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
            raise ValueError(f"probes take 1 to {len(REGION_COLORS)} boxes, but got {len(self.boxes)}")
        if truths and len(truths) != len(self.boxes):
            raise ValueError(f"give one truth per box, or none: got {len(truths)} truths for {len(self.boxes)} boxes")
        self.truths = tuple(truths)
        self.question = question
        self.max_new_tokens = max_new_tokens

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the answers are about, as JSON: question, boxes, and a hash of the image."""
        digest = hashlib.sha256(f"{self.image.size}".encode() + self.image.tobytes()).hexdigest()[:16]
        return {"question": self.question, "boxes": self.boxes.tolist(), "picture": digest}

    def ask(self, gpt4roi: GPT4RoI) -> list[str]:
        """Ask the model about each region; its training mode is not changed.

        Returns:
            Its greedy answers, one per box.
        """
        session = gpt4roi.session(self.image)
        answers = session.describe(self.boxes, self.question, max_new_tokens=self.max_new_tokens, progress=False)
        return [answer.text for answer in answers]

    def share(self, answers: Sequence[str]) -> float:
        """Compute the share of all words of the truths that are in the answers to them.

        Raises:
            ValueError: there are no truths, or not one answer per truth.
        """
        if not self.truths or len(answers) != len(self.truths):
            raise ValueError(f"expected one answer for each of {len(self.truths)} truths, but got {len(answers)}")
        words = [truth.lower().split() for truth in self.truths]
        said = [set(answer.lower().replace(",", " ").replace(".", " ").split()) for answer in answers]
        found = sum(word in those for truth, those in zip(words, said, strict=True) for word in truth)
        return found / sum(map(len, words))
