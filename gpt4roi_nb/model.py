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

# What belongs to the prompt alone: later steps of `generate` go without.
PROMPT_INPUTS = ("pixel_values", "boxes", "image_features", "region_features")


@dataclass
class GPT4RoIOutput(ModelOutput):
    """What `forward` returns.

    loss: () mean cross-entropy over the labelled tokens, where labels are given.
    logits: (B, T, V). past_key_values: the cache. hidden_states, attentions: of the language model, on request.
    image_features: (B, grid², D). region_features: (number of boxes, D).
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
    """All that a model needs to know of an image, whatever is asked about it.

    image_features: (B, grid², D) image tokens in the language model's width.
    levels: one (B, grid², C) hidden state of the tower a level, shallowest first.
    fused_maps: one (B, C_region, S_l, S_l) float32 a level.
    """

    image_features: Tensor
    levels: list[Tensor]
    fused_maps: list[Tensor]


class GPT4RoIPreTrainedModel(PreTrainedModel):
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
        # Deep ReLU convolutions start from PyTorch's fan-in scale; a flat 0.02 would let the maps fade away. Layer by
        # layer, since transformers passes over a module that has no weights of its own, as the encoder itself.
        if isinstance(module, nn.Conv2d | nn.Linear) and any(module is part for part in self.region_encoder.modules()):
            init.kaiming_uniform_(module.weight, a=5**0.5)


def _autocasts(device: torch.device) -> bool:
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


class GPT4RoIForConditionalGeneration(GPT4RoIPreTrainedModel, GenerationMixin):
    """Image, boxes and text to text.

    `vision_tower` gives hidden states; one of them, through `multi_modal_projector`, becomes the image tokens; several
    of them, through `region_encoder`, become one vector a box. Both replace the embeddings of their placeholder tokens
    in the prompt of `language_model`.
    """

    def __init__(self, config: GPT4RoIConfig) -> None:
        super().__init__(config)
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.multi_modal_projector = nn.Linear(config.vision_config.hidden_size, config.text_config.hidden_size)
        self.region_encoder = RegionEncoder(config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """As transformers does, without a progress bar where it takes a moment."""
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
        """The tower's hidden states that are used, without leading tokens such as CLS.

        pixel_values: (B, 3, S, S) float, normalised → the image tokens' one, (B, grid², C), and one a region level.
        """
        return self._levels(self._used_states(pixel_values))

    def tower_states(self, pixel_values: Tensor) -> Tensor:
        """The same as one tensor, to be kept: (B, L, grid², C), each of `config.used_layers` once."""
        return torch.stack(self._used_states(pixel_values), dim=1)

    def _used_states(self, pixel_values: Tensor) -> list[Tensor]:
        weight = next(self.vision_tower.parameters())
        half = weight.dtype != torch.float32 and _autocasts(weight.device)
        # A tower in half precision computes as it is: autocast to the other half precision refuses to join the two.
        with torch.autocast(weight.device.type, enabled=False) if half else contextlib.nullcontext():
            hidden_states = self.vision_tower(
                pixel_values.to(weight.device, weight.dtype), output_hidden_states=True
            ).hidden_states
        return [hidden_states[layer][:, -self.config.num_image_tokens :] for layer in self.config.used_layers]

    def _levels(self, used: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        by_layer = dict(zip(self.config.used_layers, used, strict=True))
        return by_layer[self.config.image_layer], [by_layer[layer] for layer in self.config.feature_layers]

    def encode_image(self, pixel_values: Tensor | None = None, tower_states: Tensor | None = None) -> ImageEncoding:
        """All that does not depend on the boxes.

        pixel_values: (B, 3, S, S) float, normalised; or what `tower_states` has made of them.
        """
        weight = self.multi_modal_projector.weight
        if tower_states is not None:
            last, levels = self._levels(tower_states.to(weight.device).unbind(dim=1))
        elif pixel_values is not None:
            last, levels = self.hidden_levels(pixel_values)
        else:
            raise ValueError("an image is encoded from pixel_values or tower_states, but neither was given")
        # What trains may be of another dtype than the frozen parts before it. Autocast joins float32 with either half.
        region_dtype = torch.float32 if _autocasts(weight.device) else next(self.region_encoder.parameters()).dtype
        levels = [level.to(region_dtype) for level in levels]
        image_features = self.multi_modal_projector(last.to(weight.dtype))
        return ImageEncoding(image_features, levels, self.region_encoder.fusion(levels))

    def encode_regions(self, fused_maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """One vector a box. boxes: one (n_i, 4) an image, xyxy in [0, 1] → (sum of n_i, D), in order."""
        return self.region_encoder.head(fused_maps, [image_boxes.to(fused_maps[0].device) for image_boxes in boxes])

    def embed(self, input_ids: Tensor, image_features: Tensor | None, region_features: Tensor | None) -> Tensor:
        """The prompt's embeddings, with image tokens and region vectors in the places of their placeholder tokens.

        input_ids: (B, T) → (B, T, D). Features fill the placeholders in order, row after row; None leaves them be.
        """
        embeddings = self.get_input_embeddings()(input_ids)
        for features, token_id in (
            (image_features, self.config.image_token_id),
            (region_features, self.config.region_token_id),
        ):
            if features is not None:
                rows = features.reshape(-1, features.shape[-1])
                if _autocasts(embeddings.device):  # in float16 what the features learn would vanish
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
        """One pass over a batch.

        Args:
            input_ids: (B, T) int64; every row has an image (`num_image_tokens` times `<im_patch>`), or none has.
            attention_mask: (B, T), 0 for padding, which may stand on either side.
            pixel_values: (B, 3, S, S) float, normalised, one image a row.
            boxes: for each row (n_i, 4) float, xyxy in [0, 1]; row i holds n_i `<bbox>` tokens, in this order.
            image_features: (B, grid², D) instead of `pixel_values`, from `encode_image`.
            region_features: (sum of n_i, D) instead of `boxes`, from `encode_regions`.
            labels: (B, T) int64, -100 outside the loss.
            inputs_embeds: (B, T, D) instead of `input_ids`; nothing is spliced into it.
            logits_to_keep: compute only the last so many logits (0: all), or those at these positions.
            tower_states: (B, L, grid², C) instead of `pixel_values`, from the method of this name.

        Raises:
            ValueError: where placeholder tokens and features do not match in number.
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
            return  # a later step of generation: new words only
        image_tokens = (input_ids == self.config.image_token_id).sum(dim=1).tolist()
        region_tokens = (input_ids == self.config.region_token_id).sum(dim=1).tolist()
        if image_features is not None or not continued:
            per_image = 0 if image_features is None else image_features.shape[1]
            for row, count in enumerate(image_tokens):
                if count != per_image:
                    raise ValueError(
                        f"row {row} of input_ids holds {count} image tokens, but there are {per_image} image features "
                        f"for it; give one image a row ({self.config.num_image_tokens} <im_patch> tokens)"
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
                    "give boxes or region_features, one for each <bbox> token"
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
        # Without a cache every step sees the whole prompt again, so it needs the image and the boxes again.
        if is_first_iteration or not kwargs.get("use_cache", True):
            inputs.update(prompt_inputs)
        return inputs

    def _expand_inputs_for_generation(  # type: ignore[override]  # static in transformers 5.17, a method later
        self, expand_size: int = 1, input_ids: Tensor | None = None, **model_kwargs: Any
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """As transformers does for beams and several samples. Image and regions are encoded once, before that."""
        if expand_size > 1 and model_kwargs.get("region_features") is not None:
            raise ValueError("beams and several samples need boxes rather than region_features")
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
