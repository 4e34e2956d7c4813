"""An encoded image: the model encodes it once, and each of its boxes once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from gpt4roi_nb.boxes import Box, normalise
from gpt4roi_nb.inference.loaded_model import LoadedModel
from gpt4roi_nb.model import ImageEncoding
from gpt4roi_nb.prompt import Prompt


class EncodedImage:
    """What a model computed from one image, and the region tokens of the boxes used so far.

    The tower and the fusion run once; each box costs RoIAlign and a small head, once. If the model has been trained in
    the meantime, both run again.

    Attributes:
        loaded: the model.
        image: upright RGB.
        size: (width, height) in pixels.
    """

    def __init__(self, loaded: LoadedModel, image: Image.Image) -> None:
        self.loaded = loaded
        self.image = image
        self.size = image.size
        self._encoding: ImageEncoding | None = None
        self._known: dict[Box, Tensor] = {}
        self._weights_version: int | None = None
        self.refresh()

    def refresh(self) -> bool:
        """Encode the image with the current weights, unless this has been done; return whether it was necessary."""
        if self.loaded.weights_version == self._weights_version:
            return False
        with self.loaded.inference() as model, torch.inference_mode():
            self._weights_version = self.loaded.weights_version
            self._known.clear()
            self._encoding = model.encode_image(self.loaded.processor.image_processor.pixels(self.image)[None])
        return True

    @property
    def encoding(self) -> ImageEncoding:
        """The encoding with the current weights."""
        self.refresh()
        return self._encoding  # type: ignore[return-value]

    @torch.inference_mode()
    def region_tokens(self, boxes: Sequence[Box]) -> Tensor:
        """Compute (n, D) region tokens of n boxes, pixel xyxy, checked."""
        with self.loaded.inference():
            return self._region_tokens(self.encoding, boxes)

    def _region_tokens(self, encoding: ImageEncoding, boxes: Sequence[Box]) -> Tensor:
        missing = [box for box in dict.fromkeys(boxes) if box not in self._known]
        if missing:
            normalised = torch.from_numpy(normalise(missing, *self.size))
            tokens = self.loaded.model.encode_regions(encoding.fused_maps, [normalised])
            self._known.update(zip(missing, tokens, strict=True))
        if not boxes:
            return encoding.image_features.new_empty(0, encoding.image_features.shape[-1])
        return torch.stack([self._known[box] for box in boxes])

    @torch.inference_mode()
    def embed(self, prompt: Prompt, boxes: Sequence[Box], start: int = 0) -> Tensor:
        """Embed a prompt from position `start` on.

        Args:
            prompt: of T tokens.
            boxes: of all its `<bbox>` tokens, in order; pixel xyxy, checked.
            start: the first position.

        Returns:
            (1, T - start, D).
        """
        with self.loaded.inference() as model:
            ids = prompt.input_ids[start:]
            patches = ids.count(model.config.image_token_id)
            regions = ids.count(model.config.region_token_id)
            encoding = self.encoding
            return model.embed(
                torch.tensor([ids], device=self.loaded.device),
                encoding.image_features[:, encoding.image_features.shape[1] - patches :],
                self._region_tokens(encoding, boxes[len(boxes) - regions :]),
            )

    def of(self, image: Image.Image) -> EncodedImage:
        """Encode another image with the same model."""
        return EncodedImage(self.loaded, image)

    def release(self) -> None:
        """Free the memory."""
        self._encoding = None
        self._weights_version = None
        self._known.clear()
