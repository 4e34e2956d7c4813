"""An image as the model knows it: encoded once, and every box of it once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from gpt4roi_nb.boxes import normalise
from gpt4roi_nb.capture.replay import Replay
from gpt4roi_nb.capture.roi_features import RoIFeatures, record_roi_features
from gpt4roi_nb.inference.decode import AnswerText
from gpt4roi_nb.model import ImageEncoding
from gpt4roi_nb.prompt import Prompt
from gpt4roi_nb.session.conversation import Answer, Box

if TYPE_CHECKING:
    from gpt4roi_nb.session.gpt4roi import GPT4RoI


class EncodedImage:
    """What a model computed of one image, and the region tokens of the boxes that were asked about.

    The tower and the fusion ran here, once; a box costs RoIAlign and a small head, once.
    """

    @torch.inference_mode()
    def __init__(self, gpt4roi: GPT4RoI, image: Image.Image) -> None:
        self.gpt4roi = gpt4roi
        self.image = image
        self.size = image.size
        pixel_values = gpt4roi.processor.image_processor.picture(image)[None]
        self._encoding: ImageEncoding | None = gpt4roi.model.encode_image(pixel_values)
        self._known: dict[Box, Tensor] = {}

    @property
    def encoding(self) -> ImageEncoding:
        self.gpt4roi.check_loaded()
        return self._encoding  # type: ignore[return-value]

    @torch.inference_mode()
    def region_tokens(self, boxes: Sequence[Box]) -> Tensor:
        """boxes: pixel xyxy, checked → (n, D)."""
        missing = [box for box in dict.fromkeys(boxes) if box not in self._known]
        if missing:
            normalised = torch.from_numpy(normalise(missing, *self.size))
            tokens = self.gpt4roi.model.encode_regions(self.encoding.fused_maps, [normalised])
            self._known.update(zip(missing, tokens, strict=True))
        if not boxes:
            return self.encoding.image_features.new_empty(0, self.encoding.image_features.shape[-1])
        return torch.stack([self._known[box] for box in boxes])

    @torch.inference_mode()
    def embed(self, prompt: Prompt, boxes: Sequence[Box], start: int = 0) -> Tensor:
        """(1, T - start, D) embeddings of a prompt from position `start` on.

        boxes: of the prompt's `<bbox>` tokens, in order; pixel xyxy, checked.
        """
        model = self.gpt4roi.model
        ids = prompt.input_ids[start:]
        patches = ids.count(model.config.image_token_id)
        regions = ids.count(model.config.region_token_id)
        image_features = self.encoding.image_features
        return model.embed(
            torch.tensor([ids], device=self.gpt4roi.device),
            image_features[:, image_features.shape[1] - patches :],
            self.region_tokens(boxes[len(boxes) - regions :]),
        )

    def answer(
        self,
        writing: AnswerText,
        prompt: Prompt,
        boxes: Sequence[Box],
        *,
        reused_tokens: int,
        seconds: float,
        stopped: bool = False,
    ) -> Answer:
        """What was written as an `Answer` that can be looked into."""
        first, last = writing.kept
        ids, tokens = writing.ids[:last], writing.tokens
        return Answer(
            text=writing.text,
            tokens=tokens,
            token_ids=ids[first:],
            logprobs=writing.logprobs[first:last],
            prompt_tokens=len(prompt.input_ids),
            reused_tokens=reused_tokens,
            seconds=seconds,
            stopped=stopped,
            replay=Replay(self, prompt, tuple(boxes), ids, first, tokens),
        )

    def roi_features(self, boxes: Sequence[Box], *, rounds: bool = False) -> RoIFeatures:
        """boxes: pixel xyxy, checked. See `RegionSession.roi_features`."""
        return record_roi_features(self, boxes, rounds=rounds)

    def of(self, image: Image.Image) -> EncodedImage:
        """Another image, as the same model knows it."""
        self.gpt4roi.check_loaded()
        return EncodedImage(self.gpt4roi, image)

    def release(self) -> None:
        """Gives the memory back."""
        self._encoding = None
        self._known.clear()
