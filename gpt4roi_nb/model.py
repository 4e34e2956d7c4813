"""GPT4RoI as an ordinary transformers model: tower, projector, region encoder, splice, language model."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationMixin,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_outputs import ModelOutput

from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.logs import no_progress_bar
from gpt4roi_nb.roi import RegionEncoder

# Inputs of the prompt only; later steps of `generate` go without them.
PROMPT_INPUTS = ("pixel_values", "boxes", "image_features", "region_features")


@dataclass
class GPT4RoIOutput(ModelOutput):
    """What `forward` returns.

    Attributes:
        loss: () mean cross-entropy over the labelled tokens, if labels are given.
        logits: (B, T, V).
        past_key_values: the cache.
        hidden_states, attentions: of the language model, on request.
        image_features: (B, grid², D).
        region_features: (number of boxes, D).
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    image_features: Tensor | None = None
    region_features: Tensor | None = None


@dataclass(frozen=True)
class ImageEncoding:
    """All that the model needs of an image, whatever is asked about it.

    Attributes:
        image_features: (B, grid², D) image tokens in the language model's width.
        levels: one (B, grid², C) hidden state of the tower per level, shallowest first.
        fused_maps: one (B, C_region, S_l, S_l) float32 map per level.
    """

    image_features: Tensor
    levels: list[Tensor]
    fused_maps: list[Tensor]


class GPT4RoIPreTrainedModel(PreTrainedModel):
    """What transformers needs to know of a GPT4RoI, and how new weights begin."""

    config_class = GPT4RoIConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")  # type: ignore[assignment]
    supports_gradient_checkpointing = True
    _no_split_modules = ["RegionEncoder"]  # noqa: RUF012 (as transformers declares it); its levels are summed
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012 (as transformers declares it)
    region_encoder: RegionEncoder

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # Deep ReLU convolutions start from PyTorch's fan-in scale; with a flat 0.02 the maps would fade away. Set layer
        # by layer, since transformers skips modules without weights of their own, such as the encoder itself.
        if isinstance(module, nn.Conv2d | nn.Linear) and any(module is part for part in self.region_encoder.modules()):
            init.kaiming_uniform_(module.weight, a=5**0.5)


def _autocasts(device: torch.device) -> bool:
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


class GPT4RoIForConditionalGeneration(GPT4RoIPreTrainedModel, GenerationMixin):
    """The whole model: image, boxes and text to text.

    `vision_tower` computes hidden states. `multi_modal_projector` turns one of them into the image tokens;
    `region_encoder` turns several of them into one vector per box. Both replace the embeddings of their placeholder
    tokens in the prompt of `language_model`.

    Examples:
        >>> import torch
        >>> from gpt4roi_nb import GPT4RoI, GPT4RoIForConditionalGeneration
        >>> gpt4roi = GPT4RoI.from_pretrained(device="cpu")
        >>> model, config = gpt4roi.model, gpt4roi.model.config
        >>> isinstance(model, GPT4RoIForConditionalGeneration)
        True
        >>> side = config.vision_config.image_size
        >>> encoding = model.encode_image(torch.zeros(1, 3, side, side))
        >>> encoding.image_features.shape == (1, config.num_image_tokens, config.text_config.hidden_size)
        True
        >>> boxes = [torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0]])]
        >>> model.encode_regions(encoding.fused_maps, boxes).shape == (2, config.text_config.hidden_size)
        True
    """

    def __init__(self, config: GPT4RoIConfig) -> None:
        super().__init__(config)
        self.vision_tower = AutoModel.from_config(config.vision_config, trust_remote_code=False)
        self.multi_modal_projector = nn.Linear(config.vision_config.hidden_size, config.text_config.hidden_size)
        self.region_encoder = RegionEncoder(config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config, trust_remote_code=False)
        self.post_init()

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Save as transformers does, without a progress bar for a small model."""
        with no_progress_bar(self.get_memory_footprint()):
            super().save_pretrained(*args, **kwargs)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def get_decoder(self) -> nn.Module:
        return self.language_model

    def hidden_levels(self, pixel_values: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute the tower's hidden states that are used, without leading tokens such as CLS.

        Args:
            pixel_values: (B, 3, S, S) float, normalised.

        Returns:
            The hidden state of the image tokens and one per region level, each (B, grid², C).
        """
        return self._levels(self._used_states(pixel_values))

    def tower_states(self, pixel_values: Tensor) -> Tensor:
        """Compute the same as one tensor, to be kept: (B, L, grid², C), each of `config.used_layers` once."""
        return torch.stack(self._used_states(pixel_values), dim=1)

    def _used_states(self, pixel_values: Tensor) -> list[Tensor]:
        weight = next(self.vision_tower.parameters())
        half = weight.dtype != torch.float32 and _autocasts(weight.device)
        # A tower in half precision computes in its own dtype: autocast to the other half precision cannot mix the two.
        with torch.autocast(weight.device.type, enabled=False) if half else contextlib.nullcontext():
            hidden_states = self.vision_tower(
                pixel_values.to(weight.device, weight.dtype), output_hidden_states=True
            ).hidden_states
        return [hidden_states[layer][:, -self.config.num_image_tokens :] for layer in self.config.used_layers]

    def _levels(self, used: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        by_layer = dict(zip(self.config.used_layers, used, strict=True))
        return by_layer[self.config.image_layer], [by_layer[layer] for layer in self.config.feature_layers]

    def encode_image(self, pixel_values: Tensor | None = None, tower_states: Tensor | None = None) -> ImageEncoding:
        """Compute all that does not depend on the boxes.

        Args:
            pixel_values: (B, 3, S, S) float, normalised.
            tower_states: (B, L, grid², C) instead, from the method of this name.

        Raises:
            ValueError: if neither is given.
        """
        weight = self.multi_modal_projector.weight
        if tower_states is not None:
            last, levels = self._levels(tower_states.to(weight.device).unbind(dim=1))
        elif pixel_values is not None:
            last, levels = self.hidden_levels(pixel_values)
        else:
            raise ValueError("an image is encoded from pixel_values or tower_states, but neither was given")
        # Parts that train may have another dtype than the frozen parts before them. Autocast mixes float32 with either
        # half precision.
        region_dtype = torch.float32 if _autocasts(weight.device) else next(self.region_encoder.parameters()).dtype
        levels = [level.to(region_dtype) for level in levels]
        image_features = self.multi_modal_projector(last.to(weight.dtype))
        return ImageEncoding(image_features, levels, self.region_encoder.fusion(levels))

    def encode_regions(self, fused_maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Compute one vector per box.

        Args:
            fused_maps: one (B, C_region, S_l, S_l) map per level, from `encode_image`.
            boxes: per image, (n_i, 4) xyxy in [0, 1].

        Returns:
            (sum of n_i, D), in order.
        """
        return self.region_encoder.head(fused_maps, [image_boxes.to(fused_maps[0].device) for image_boxes in boxes])

    def embed(self, input_ids: Tensor, image_features: Tensor | None, region_features: Tensor | None) -> Tensor:
        """Embed a prompt, with image tokens and region vectors in place of their placeholder tokens.

        Args:
            input_ids: (B, T) int64.
            image_features, region_features: fill their placeholders in order, row after row; None keeps these.

        Returns:
            (B, T, D).
        """
        embeddings = self.get_input_embeddings()(input_ids)
        for features, token_id in (
            (image_features, self.config.image_token_id),
            (region_features, self.config.region_token_id),
        ):
            if features is not None:
                rows = features.reshape(-1, features.shape[-1])
                if _autocasts(embeddings.device):  # in float16, small updates of the features would vanish
                    embeddings = embeddings.to(torch.promote_types(embeddings.dtype, rows.dtype))
                rows = rows.to(embeddings.device, embeddings.dtype)
                embeddings = embeddings.masked_scatter((input_ids == token_id)[..., None].to(rows.device), rows)
        return embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        boxes: Sequence[Tensor] | None = None,
        image_features: Tensor | None = None,
        region_features: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        tower_states: Tensor | None = None,
        **kwargs: Any,
    ) -> GPT4RoIOutput:
        """Run one pass over a batch.

        Args:
            input_ids: (B, T) int64; either all rows have an image (`num_image_tokens` times `<im_patch>`), or none has.
            attention_mask: (B, T), 0 for padding, on either side.
            pixel_values: (B, 3, S, S) float, normalised, one image per row.
            boxes: per row, (n_i, 4) float, xyxy in [0, 1]; row i holds n_i `<bbox>` tokens, in this order.
            image_features: (B, grid², D) instead of `pixel_values`, from `encode_image`.
            region_features: (sum of n_i, D) instead of `boxes`, from `encode_regions`.
            labels: (B, T) int64, -100 outside the loss.
            inputs_embeds: (B, T, D) instead of `input_ids`; nothing is spliced into it.
            logits_to_keep: compute only this many logits at the end (0: all), or those at these positions.
            tower_states: (B, L, grid², C) instead of `pixel_values`, from the method of this name.

        Raises:
            ValueError: if the numbers of placeholder tokens and features differ.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        if input_ids is not None:
            fused_maps = None
            if pixel_values is not None or tower_states is not None:
                encoding = self.encode_image(pixel_values, tower_states)
                image_features, fused_maps = encoding.image_features, encoding.fused_maps
            self._check_placeholders(input_ids, image_features, boxes, region_features, past_key_values)
            if boxes is not None and region_features is None:
                if fused_maps is None:
                    raise ValueError("boxes need pixel_values; with image_features alone, give region_features")
                region_features = self.encode_regions(fused_maps, boxes)
            inputs_embeds = self.embed(input_ids, image_features, region_features)

        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            labels=labels,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        return GPT4RoIOutput(
            loss=outputs.loss,
            logits=outputs.logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_features=image_features,
            region_features=region_features,
        )

    def _check_placeholders(
        self,
        input_ids: Tensor,
        image_features: Tensor | None,
        boxes: Sequence[Tensor] | None,
        region_features: Tensor | None,
        past_key_values: Cache | None,
    ) -> None:
        continued = past_key_values is not None and past_key_values.get_seq_length() > 0
        if continued and image_features is None and boxes is None and region_features is None:
            return  # a later step of generation: only new tokens
        image_tokens = (input_ids == self.config.image_token_id).sum(dim=1).tolist()
        region_tokens = (input_ids == self.config.region_token_id).sum(dim=1).tolist()
        if image_features is not None or not continued:
            per_image = 0 if image_features is None else image_features.shape[1]
            for row, count in enumerate(image_tokens):
                if count != per_image:
                    raise ValueError(
                        f"row {row} of input_ids holds {count} image tokens, but there are {per_image} image features "
                        f"for it; give one image per row ({self.config.num_image_tokens} <im_patch> tokens)"
                    )
        if boxes is not None:
            counts = [len(image_boxes) for image_boxes in boxes]
            if counts != region_tokens:
                raise ValueError(
                    f"the rows of input_ids hold {region_tokens} <bbox> tokens, but {counts} boxes were given; "
                    "give each row as many boxes as it has <bbox> tokens"
                )
        elif region_features is not None or not continued:
            given = 0 if region_features is None else len(region_features)
            if given != sum(region_tokens):
                raise ValueError(
                    f"input_ids hold {sum(region_tokens)} <bbox> tokens, but {given} region features were given; "
                    "give boxes or region_features, one per <bbox> token"
                )

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Tensor, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        prompt_inputs = {name: kwargs.pop(name, None) for name in PROMPT_INPUTS}
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(  # type: ignore[misc]
            input_ids,  # type: ignore[arg-type]
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        # Without a cache, every step reads the whole prompt again, so it needs the image and the boxes again.
        if is_first_iteration or not kwargs.get("use_cache", True):
            inputs.update(prompt_inputs)
        return inputs

    def _expand_inputs_for_generation(  # type: ignore[override]  # static in transformers 5.17, a method later
        self, expand_size: int = 1, input_ids: Tensor | None = None, **model_kwargs: Any
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """Expand for beams or several samples, as transformers does; images and regions are encoded once, before."""
        if expand_size > 1 and model_kwargs.get("region_features") is not None:
            raise ValueError("beams and several samples need boxes instead of region_features")
        boxes = model_kwargs.pop("boxes", None)
        regions: tuple[Tensor, ...] | None = None
        if expand_size > 1 and model_kwargs.get("pixel_values") is not None:
            encoding = self.encode_image(model_kwargs.pop("pixel_values"))
            model_kwargs["image_features"] = encoding.image_features
            if boxes is not None:
                counts = [len(image_boxes) for image_boxes in boxes]
                regions = self.encode_regions(encoding.fused_maps, boxes).split(counts)
        input_ids, model_kwargs = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size=expand_size,
            input_ids=input_ids,  # type: ignore[arg-type]
            **model_kwargs,
        )
        if regions is not None:
            model_kwargs["region_features"] = torch.cat([row for row in regions for _ in range(expand_size)])
        elif boxes is not None:
            model_kwargs["boxes"] = [image_boxes for image_boxes in boxes for _ in range(expand_size)]
        return input_ids, model_kwargs


AutoModel.register(GPT4RoIConfig, GPT4RoIForConditionalGeneration)
AutoModelForImageTextToText.register(GPT4RoIConfig, GPT4RoIForConditionalGeneration)
