"""How models of transformers read prompts with images, and then continue token by token, as `decode` needs it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache

from gpt4roi_nb.inference.cache import gather, new_cache
from gpt4roi_nb.inference.decode import Read, masked_positions
from gpt4roi_nb.inference.padding import mask_after, pad
from gpt4roi_nb.models.families import family_of
from gpt4roi_nb.models.prompts import PromptedPrompt

_KINDS = ("token_type_ids", "mm_token_type_ids")
_LINEAR = "linear_attention"  # as `layer_types` of a configuration calls it


class Reader(Read, Protocol):
    """Reads B prompts, then what is written after each. Of one prompt it also reads many continuations side by side.

    begin: what `decode` is given first, (B, n) int64, padded on the left.
    attention_mask: what `decode` is given with it, (B, start + n) int64; None without padding.
    """

    begin: Tensor
    attention_mask: Tensor | None


def reader_of(model: Any, prompts: Sequence[PromptedPrompt], start: int, features: Any) -> Reader:
    """Make the reader of a model's family.

    Args:
        model: the model.
        prompts: B of them; of equal length unless the family takes padding.
        start: how much of each prompt the cache holds; all of its images, or none.
        features: from `SessionImages.features`, of all images of all prompts in order.
    """
    by_format: dict[str, Callable[..., Reader]] = {
        "gpt4roi": GPT4RoIReader,
        "kosmos-2": KosmosReader,
        "florence2": FlorenceReader,
        "paligemma": PrefixReader,
    }
    reader = by_format.get(family_of(model.config.model_type).format, CausalReader)
    return reader(model, prompts, start, features)


def has_states(config: Any) -> bool:
    """Whether a model has layers of linear attention: a state of all that was read, which cannot be cut back."""
    return _LINEAR in (getattr(config.get_text_config(decoder=True), "layer_types", None) or ())


class TwoCaches(EncoderDecoderCache):
    """Keys and values of a decoder, and those of what it attends to in the encoder; rows can leave it."""

    def batch_select_indices(self, indices: Tensor) -> None:
        self.self_attention_cache.batch_select_indices(indices)
        self.cross_attention_cache.batch_select_indices(indices)


class StateCache(DynamicCache):
    """Keys and values, and the states of layers of linear attention; rows can leave it, tokens cannot."""

    def batch_select_indices(self, indices: Tensor) -> None:
        self.reorder_cache(indices)  # type: ignore[arg-type]  # int64 is what it needs


def cache_for(config: Any) -> Cache:
    """Make an empty cache for the model of a configuration."""
    if has_states(config):
        return StateCache(config=config)
    return TwoCaches(new_cache(), new_cache()) if config.is_encoder_decoder else new_cache()


def rows_of(cache: Cache, length: int, rows: Tensor) -> Cache:
    """Make a cache whose row k is a copy of row `rows[k]`, (B,) int64, of another, which holds `length` tokens."""
    if not isinstance(cache, StateCache):
        return gather(cache, length, rows)
    grown = copy.deepcopy(cache)
    grown.reorder_cache(rows)  # type: ignore[arg-type]
    return grown


class CausalReader:
    """A language model that looks back only, with features in the places of images."""

    def __init__(self, model: Any, prompts: Sequence[PromptedPrompt], start: int, features: Any) -> None:
        filler = 0 if getattr(model.config, "image_token_id", None) != 0 else 1
        own = [prompt.input_ids[start:] for prompt in prompts]
        self.begin, mask = pad(own, model.device, side="left", value=filler)
        self.attention_mask = mask_after(start, mask)
        images = [image for prompt in prompts for image in prompt.shown]
        has_images = any(place >= 0 for prompt in prompts for place in prompt.images[start:])
        self._shown = _of_images(features, images) if has_images else {}
        # A model whose prompt attends both ways within an image (Gemma 3) needs to know which tokens are an image's.
        has_positions = hasattr(getattr(model, "model", None), "get_rope_index")
        own_kinds = [name for name in _KINDS if name in inspect.signature(type(model).forward).parameters]
        self._kinds = own_kinds[:1] if has_images and not has_positions else []
        self._length = start + self.begin.shape[1]
        # Positions in three dimensions, as in Qwen2-VL and what came after it: an image takes fewer than it has tokens.
        self._positions: Tensor | None = None
        if has_positions:
            rows = [_positions(model, prompt) for prompt in prompts]
            self._after = torch.stack([row.max() + 1 for row in rows])  # (B,) positions of what is written first
            gaps = [self._length - row.shape[1] for row in rows]
            self._positions = torch.stack(
                [
                    torch.cat([row[:, :start], row.new_zeros(3, gap), row[:, start:]], dim=1)
                    for row, gap in zip(rows, gaps, strict=True)
                ],
                dim=1,
            )

    def __call__(self, model: Any, input_ids: Tensor, cache: Cache, attention_mask: Tensor | None = None) -> Tensor:
        known = cache.get_seq_length()
        options: dict[str, Any] = masked_positions(attention_mask, input_ids.shape[1])
        if self._positions is not None:
            options["position_ids"] = self._placed(known, *input_ids.shape)
        if known < self._length:
            options |= self._prompt_options(model, input_ids)
        return model(input_ids=input_ids, past_key_values=cache, use_cache=True, **options).logits

    def keep(self, rows: Tensor) -> None:
        if self._positions is not None:
            self._positions, self._after = self._positions[:, rows], self._after[rows]

    def _prompt_options(self, model: Any, input_ids: Tensor) -> dict[str, Any]:
        kinds = {name: (input_ids == model.config.image_token_id).long() for name in self._kinds}
        return {name: _on(model, value) for name, value in self._shown.items()} | kinds

    def _placed(self, known: int, rows: int, count: int) -> Tensor:
        """(3, B, count) positions of the tokens from `known` on."""
        positions: Tensor = self._positions  # type: ignore[assignment]
        written = torch.arange(count, device=positions.device) + known - self._length
        after = self._after[:, None] + written[written >= 0]
        placed = torch.cat([positions[..., known : known + count], after.expand(3, -1, -1)], dim=-1)
        return placed.expand(-1, rows, -1)


def _of_images(features: Any, images: Sequence[Any]) -> dict[str, Any]:
    """What shows the images to a model: their features, or if it takes none, their pixels."""
    if features is not None:
        return {"mm_encoder_outputs": {"image": features}}
    return {name: torch.cat([image.values[name] for image in images]) for name in images[0].values}


def _on(model: Any, value: Any) -> Any:
    """Pixels on a model's device, in its dtype."""
    if not isinstance(value, Tensor):
        return value
    return value.to(model.device, model.dtype) if value.is_floating_point() else value.to(model.device)


def _positions(model: Any, prompt: PromptedPrompt) -> Tensor:
    """(3, T) positions of a prompt's tokens."""
    ids = torch.tensor([prompt.input_ids], device=model.device)
    grids = [image.values["image_grid_thw"] for image in prompt.shown]
    kinds = (ids == model.config.image_token_id).int()
    positions, _ = model.model.get_rope_index(
        ids, image_grid_thw=torch.cat(grids).to(model.device), mm_token_type_ids=kinds
    )
    return positions[:, 0]


class GPT4RoIReader(CausalReader):
    """A GPT4RoI that is asked without region tokens."""

    def _prompt_options(self, model: Any, input_ids: Tensor) -> dict[str, Any]:
        shown = self._shown.get("mm_encoder_outputs")
        return {} if shown is None else {"image_features": shown["image"].pooler_output}


class PrefixReader(CausalReader):
    """PaliGemma: each prompt token sees the whole prompt; answer tokens only look back."""

    def _prompt_options(self, model: Any, input_ids: Tensor) -> dict[str, Any]:
        kinds = torch.zeros_like(input_ids)
        kinds[:, self._length :] = 1
        return {**super()._prompt_options(model, input_ids), "token_type_ids": kinds}


class KosmosReader:
    """Kosmos-2: its text model takes features and their places."""

    attention_mask: Tensor | None = None

    def __init__(self, model: Any, prompts: Sequence[PromptedPrompt], start: int, features: Any) -> None:
        self.begin = torch.tensor([prompt.input_ids[start:] for prompt in prompts], device=model.device)
        self._features = features.pooler_output
        self._mask = torch.zeros_like(self.begin, dtype=torch.bool)
        count = self._features.shape[1]
        for row, prompt in enumerate(prompts):
            # The first and the last token of an image's place are its marks, not its features.
            if places := [place for place, image in enumerate(prompt.images[start:]) if image >= 0]:
                self._mask[row, places[-1] - count : places[-1]] = True

    def __call__(self, model: Any, input_ids: Tensor, cache: Cache, attention_mask: Tensor | None = None) -> Tensor:
        options: dict[str, Any] = {}
        if cache.get_seq_length() == 0:
            after = input_ids.shape[1] - self._mask.shape[1]
            options = {"image_embeds": self._features, "image_embeds_position_mask": F.pad(self._mask, (0, after))}
        return model.text_model(input_ids=input_ids, past_key_values=cache, use_cache=True, **options).logits

    def keep(self, rows: Tensor) -> None:
        """Nothing that it holds is read again."""


class FlorenceReader:
    """Florence-2: an encoder reads image and task, a decoder begins its own text."""

    attention_mask: Tensor | None = None

    def __init__(self, model: Any, prompts: Sequence[PromptedPrompt], start: int, features: Any) -> None:
        first = model.config.text_config.decoder_start_token_id
        self.begin = torch.full((len(prompts), 1), first, device=model.device)
        ids = torch.tensor([prompt.input_ids for prompt in prompts], device=model.device)
        embeddings = model.get_input_embeddings()(ids)
        mask = torch.tensor([prompt.images for prompt in prompts], device=model.device)[..., None] >= 0
        merged = embeddings.masked_scatter(mask, features.pooler_output.to(embeddings.dtype))
        self._encoded = model.model.language_model.encoder(inputs_embeds=merged)

    def __call__(self, model: Any, input_ids: Tensor, cache: Cache, attention_mask: Tensor | None = None) -> Tensor:
        encoded = type(self._encoded)(last_hidden_state=self._encoded.last_hidden_state.expand(len(input_ids), -1, -1))
        return model(decoder_input_ids=input_ids, encoder_outputs=encoded, past_key_values=cache, use_cache=True).logits

    def keep(self, rows: Tensor) -> None:
        states = self._encoded.last_hidden_state
        self._encoded = type(self._encoded)(last_hidden_state=states[rows.to(states.device)])
