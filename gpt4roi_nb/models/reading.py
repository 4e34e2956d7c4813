"""How models of transformers read a prompt with images, and go on token by token: what `decode` needs of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache, EncoderDecoderCache

from gpt4roi_nb.inference.cache import new_cache
from gpt4roi_nb.models.images import PreparedImage
from gpt4roi_nb.models.prompts import PromptedPrompt


class Reader(Protocol):
    """Reads one prompt, then what is written after it.

    begin: what `decode` is given first, (1, n) int64.
    """

    begin: Tensor

    def __call__(self, model: Any, input_ids: Tensor, cache: Cache) -> Tensor:
        """(B, n) ids after what the cache holds → logits, (B, m, V), of which the last are those of the last id."""


def reader_of(model: Any, prompt: PromptedPrompt, start: int, images: Sequence[PreparedImage], features: Any) -> Reader:
    """The reader of a model's family.

    Args:
        start: how much of the prompt the cache holds; all of its images, or none.
        images: of the prompt, in order.
        features: of `SessionImages.features`.
    """
    kinds: dict[str, Callable[..., Reader]] = {
        "kosmos-2": KosmosReader,
        "florence2": FlorenceReader,
        "paligemma": PrefixReader,
    }
    return kinds.get(model.config.model_type, CausalReader)(model, prompt, start, images, features)


def keeps_prefixes(model_type: str) -> bool:
    """Whether the keys and values of a prompt's beginning do not depend on what follows."""
    return model_type not in ("florence2", "paligemma")


def cache_for(model_type: str) -> Cache:
    """An empty cache."""
    return EncoderDecoderCache(new_cache(), new_cache()) if model_type == "florence2" else new_cache()


class CausalReader:
    """A language model that looks back only, with features in the places of images."""

    def __init__(
        self, model: Any, prompt: PromptedPrompt, start: int, images: Sequence[PreparedImage], features: Any
    ) -> None:
        self.begin = torch.tensor([prompt.input_ids[start:]], device=model.device)
        self._shown = self._of_images(features, images) if any(place >= 0 for place in prompt.images[start:]) else {}
        self._prompt, self._start = prompt, start
        self._length = len(prompt.input_ids)
        # Positions in three dimensions, as in Qwen2-VL and what came after it: an image takes fewer than it has tokens.
        self._positions: Tensor | None = None
        if hasattr(model.model, "get_rope_index"):
            self._positions = _positions(model, prompt, images)

    def __call__(self, model: Any, input_ids: Tensor, cache: Cache) -> Tensor:
        known = cache.get_seq_length()
        options: dict[str, Any] = {}
        if self._positions is not None:
            options["position_ids"] = self._placed(known, input_ids.shape[1])
        if known < self._length:
            options |= self._prompt_options(model, input_ids)
        return model(input_ids=input_ids, past_key_values=cache, use_cache=True, **options).logits

    def _prompt_options(self, model: Any, input_ids: Tensor) -> dict[str, Any]:
        return {name: _on(model, value) for name, value in self._shown.items()}

    @staticmethod
    def _of_images(features: Any, images: Sequence[PreparedImage]) -> dict[str, Any]:
        """What shows the images to a model: their features, or where it takes none, their pixels."""
        if features is not None:
            return {"mm_encoder_outputs": {"image": features}}
        return {name: torch.cat([image.values[name] for image in images]) for name in images[0].values}

    def _placed(self, known: int, count: int) -> Tensor:
        """(3, 1, count) positions of the tokens from `known` on."""
        positions: Tensor = self._positions  # type: ignore[assignment]
        written = torch.arange(count, device=positions.device) + known - self._length
        after = positions.max() + 1 + written[written >= 0]
        return torch.cat([positions[..., known : known + count], after.expand(3, 1, -1)], dim=-1)


def _on(model: Any, value: Any) -> Any:
    """Pixels on a model's device, in its dtype."""
    if not isinstance(value, Tensor):
        return value
    return value.to(model.device, model.dtype) if value.is_floating_point() else value.to(model.device)


def _positions(model: Any, prompt: PromptedPrompt, images: Sequence[PreparedImage]) -> Tensor:
    """(3, 1, T) positions of a prompt's tokens."""
    ids = torch.tensor([prompt.input_ids], device=model.device)
    grids = torch.cat([image.values["image_grid_thw"] for image in images]).to(model.device)
    kinds = (ids == model.config.image_token_id).int()
    positions, _ = model.model.get_rope_index(ids, image_grid_thw=grids, mm_token_type_ids=kinds)
    return positions


class PrefixReader(CausalReader):
    """PaliGemma: all of the prompt sees all of it."""

    def _prompt_options(self, model: Any, input_ids: Tensor) -> dict[str, Any]:
        return {**super()._prompt_options(model, input_ids), "token_type_ids": torch.zeros_like(input_ids)}


class KosmosReader:
    """Kosmos-2: its text model takes features and their places."""

    def __init__(
        self, model: Any, prompt: PromptedPrompt, start: int, images: Sequence[PreparedImage], features: Any
    ) -> None:
        self.begin = torch.tensor([prompt.input_ids[start:]], device=model.device)
        self._features = features.pooler_output
        inner = prompt.images[start:]
        # The first and the last token of an image's place are its marks, not its features.
        places = [place for place, image in enumerate(inner) if image >= 0]
        count = self._features.shape[1]
        self._mask = torch.zeros_like(self.begin, dtype=torch.bool)
        if places:
            last = places[-1]
            self._mask[0, last - count : last] = True

    def __call__(self, model: Any, input_ids: Tensor, cache: Cache) -> Tensor:
        options: dict[str, Any] = {}
        if cache.get_seq_length() == 0:
            after = input_ids.shape[1] - self._mask.shape[1]
            options = {"image_embeds": self._features, "image_embeds_position_mask": F.pad(self._mask, (0, after))}
        return model.text_model(input_ids=input_ids, past_key_values=cache, use_cache=True, **options).logits


class FlorenceReader:
    """Florence-2: an encoder reads image and task, a decoder begins its own text."""

    def __init__(
        self, model: Any, prompt: PromptedPrompt, start: int, images: Sequence[PreparedImage], features: Any
    ) -> None:
        self.begin = torch.tensor([[model.config.text_config.decoder_start_token_id]], device=model.device)
        ids = torch.tensor([prompt.input_ids], device=model.device)
        embeddings = model.get_input_embeddings()(ids)
        mask = torch.tensor([prompt.images], device=model.device)[..., None] >= 0
        merged = embeddings.masked_scatter(mask, features.pooler_output.to(embeddings.dtype))
        self._encoded = model.model.language_model.encoder(inputs_embeds=merged)

    def __call__(self, model: Any, input_ids: Tensor, cache: Cache) -> Tensor:
        return model(
            decoder_input_ids=input_ids, encoder_outputs=self._encoded, past_key_values=cache, use_cache=True
        ).logits
