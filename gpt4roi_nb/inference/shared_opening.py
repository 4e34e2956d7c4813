"""Prompts about some images, read together: their common opening is read once per image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache

from gpt4roi_nb.inference.cache import gather, new_cache
from gpt4roi_nb.inference.decode import decode, detokenizers, masked_positions
from gpt4roi_nb.inference.detokenizer import StreamingDetokenizer
from gpt4roi_nb.inference.likelihoods import ContinuationScorer
from gpt4roi_nb.inference.loaded_model import LoadedModel
from gpt4roi_nb.inference.padding import common_length, mask_after, pad
from gpt4roi_nb.model import ImageEncoding
from gpt4roi_nb.prompt import Prompt


@dataclass(frozen=True)
class PromptBatch:
    """B prompts, ready for the language model.

    Attributes:
        inputs_embeds: (B, T, D), each prompt without the common opening, padded on the left.
        attention_mask: (B, cached + T) int64, 0 for padding; None without padding.
        cache: keys and values of the common opening, one row per prompt.
    """

    inputs_embeds: Tensor
    attention_mask: Tensor | None
    cache: Cache


class SharedOpening:
    """The encodings of some images, and the keys and values of the opening that all prompts about them share."""

    def __init__(self, loaded: LoadedModel, pixel_values: Tensor) -> None:
        """Encode the images. pixel_values: (images, 3, S, S) float32."""
        self._loaded = loaded
        with loaded.inference() as model, torch.inference_mode():
            self._encoding: ImageEncoding = model.encode_image(pixel_values)
        one, other = (loaded.processor.prompt([("user", text)]).input_ids for text in ("What?", "<region1>"))
        self._ids = one[: common_length([one, other])]
        self._cache: Cache | None = None

    @torch.inference_mode()
    def read(self, prompts: Sequence[Prompt], images: Sequence[int], boxes: Sequence[Tensor]) -> PromptBatch:
        """Embed what follows the prompts' common opening.

        Args:
            prompts: B prompts.
            images: per prompt, the row of its image in `pixel_values`.
            boxes: per prompt, (n, 4) float32 xyxy in [0, 1], in the order of its `<bbox>` tokens.
        """
        length = common_length([self._ids, *(prompt.input_ids for prompt in prompts)])
        own = [prompt.input_ids[length:] for prompt in prompts]
        filler = self._loaded.processor.tokenizer.pad_token_id or 0
        with self._loaded.inference() as model:
            ids, mask = pad(own, self._loaded.device, side="left", value=filler)
            embeddings = model.embed(ids, None, self._regions(images, boxes))
            cache = gather(self._read_opening(), length, torch.tensor(images))
        # The gap between the opening and the rest of a short prompt is masked out, so it takes no position.
        return PromptBatch(embeddings, mask_after(length, mask), cache)

    def write(self, batch: PromptBatch, max_new_tokens: int) -> list[StreamingDetokenizer]:
        """Write an answer to each prompt of a batch, greedily; return one row per prompt."""
        rows = detokenizers(self._loaded, len(batch.inputs_embeds))
        for _ in decode(
            self._loaded,
            rows,
            batch.inputs_embeds,
            batch.cache,
            max_new_tokens=max_new_tokens,
            attention_mask=batch.attention_mask,
        ):
            pass
        return rows

    def scorer(self, batch: PromptBatch) -> ContinuationScorer:
        """Read the prompts of a batch; return what scores continuations of them. It copies keys and values for each."""
        model, prompts, mask = self._loaded.model, batch.inputs_embeds, batch.attention_mask

        def read(ids: Tensor, rows: Tensor, valid: Tensor) -> Tensor:
            before = valid.new_ones(len(rows), length) if mask is None else mask[rows]
            with self._loaded.inference():
                return model.language_model(
                    inputs_embeds=model.get_input_embeddings()(ids),
                    past_key_values=gather(batch.cache, length, rows),
                    use_cache=True,
                    **masked_positions(torch.cat([before, valid], dim=1), ids.shape[1]),
                ).logits

        with self._loaded.inference(), torch.inference_mode():
            first = model.language_model(
                inputs_embeds=prompts,
                past_key_values=batch.cache,
                use_cache=True,
                logits_to_keep=1,
                **masked_positions(mask, prompts.shape[1]),
            ).logits[:, -1]
        length = batch.cache.get_seq_length()
        return ContinuationScorer(model, first, read)

    def _read_opening(self) -> Cache:
        """Return the keys and values of the opening, one row per image."""
        if self._cache is None:
            features = self._encoding.image_features
            ids = torch.tensor([self._ids] * len(features), device=self._loaded.device)
            model, cache = self._loaded.model, new_cache()
            model.language_model(
                inputs_embeds=model.embed(ids, features, None), past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            self._cache = cache
        return self._cache

    def _regions(self, images: Sequence[int], boxes: Sequence[Tensor]) -> Tensor | None:
        """Compute (all regions, D), in the order of the prompts' `<bbox>` tokens; equal boxes are computed once."""
        count = len(self._encoding.image_features)
        known: list[dict[tuple[float, ...], int]] = [{} for _ in range(count)]
        places = [
            (image, known[image].setdefault(tuple(box), len(known[image])))
            for image, several in zip(images, boxes, strict=True)
            for box in several.tolist()
        ]
        if not places:
            return None
        per_image = [torch.tensor(list(several), dtype=torch.float32).reshape(-1, 4) for several in known]
        vectors = self._loaded.model.encode_regions(self._encoding.fused_maps, per_image)
        starts = np.cumsum([0, *map(len, per_image)])
        return vectors[[int(starts[image]) + row for image, row in places]]
