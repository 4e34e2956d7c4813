"""The configuration of a GPT4RoI: a vision tower, a region encoder and a language model.

Every size in `roi.py` and `model.py` follows from here: grids, strides and map sizes are computed, never written down
twice. The defaults are those of GPT4RoI-7B (CLIP ViT-L/14 at 224 px, LLaMA-7B).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig
from transformers.activations import ACT2FN

from gpt4roi_nb.arguments import whole_number

# Lowest and highest value, both allowed. The highest are far beyond any published model: they stop a damaged or
# malicious config.json from building layers for hours, or from sizes that overflow in PyTorch.
LAYERS, WIDTH, SIDE = (1, 1000), (1, 2**24), (1, 2**16)
_PARTS = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": WIDTH}
LIMITS = {
    "text_config": {
        **_PARTS,
        "vocab_size": WIDTH,
        "num_key_value_heads": WIDTH,
        "head_dim": WIDTH,
        "max_position_embeddings": (1, 2**40),
    },
    "vision_config": {**_PARTS, "image_size": SIDE, "patch_size": SIDE, "num_channels": (3, 3)},
    "region_config": {
        "num_levels": (1, 10),  # the side of the maps doubles with each
        "hidden_size": SIDE,
        "num_fusion_rounds": (0, 1000),
        "num_groups": SIDE,
        "output_size": (1, 2**10),
        "sampling_ratio": (1, 64),
        "embed_dim": SIDE,
        "position_hidden_size": SIDE,
    },
}
# What the computation needs of any model family.
NEEDED = {
    "text_config": ("vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings"),
    "vision_config": ("hidden_size", "num_hidden_layers", "image_size", "patch_size"),
    "region_config": tuple(LIMITS["region_config"]),
}
_EPSILONS = frozenset(("eps", "epsilon"))  # words of their names; any that is published is far below 1
ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function")

# The hidden states that feed the region levels: `num_levels` of them, from the last but one back in steps of three.
LAST_LEVEL = -2
LEVEL_STEP = 3


class GPT4RoIRegionConfig(PreTrainedConfig):
    """Sizes of the region encoder (`roi.py`).

    Attributes:
        num_levels: number of the tower's hidden states that are fused.
        feature_layers: indices into the tower's hidden states (0 is the embedding output), shallowest first.
            None takes every third from the last but one backwards, as GPT4RoI does: 14, 17, 20, 23 of 24 layers.
        hidden_size: channels of the fused maps; divisible by 4 and by `num_groups`.
        num_fusion_rounds: rounds of mixing neighbouring levels.
        num_groups: groups of each round's GroupNorm.
        output_size: side of the RoIAlign grid.
        sampling_ratio: RoIAlign's samples per bin and axis.
        embed_dim: width of the region vector before it is projected to the language model.
        position_hidden_size: hidden width of the box position embedding.
        norm_eps: epsilon of the GroupNorms and LayerNorms.

    Raises:
        TypeError: if a size is not a whole number.
        ValueError: if a size is out of its limits, or sizes do not fit together.
    """

    model_type = "gpt4roi_region"
    base_config_key = "region_config"

    num_levels: int = 4
    feature_layers: list[int] | None = None
    hidden_size: int = 1024
    num_fusion_rounds: int = 5
    num_groups: int = 64
    output_size: int = 14
    sampling_ratio: int = 2
    embed_dim: int = 1024
    position_hidden_size: int = 256
    norm_eps: float = 1e-5

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        check_values("region_config", self)
        if self.hidden_size % 4 or self.hidden_size % self.num_groups:
            raise ValueError(
                f"region_config.hidden_size must be divisible by 4 and by num_groups ({self.num_groups}), "
                f"but it is {self.hidden_size}"
            )
        for layer in self.feature_layers or ():
            whole_number(layer, "each of region_config.feature_layers")
        if self.feature_layers is not None and len(self.feature_layers) != self.num_levels:
            raise ValueError(
                f"region_config names {len(self.feature_layers)} feature_layers, {self.feature_layers}, "
                f"but num_levels is {self.num_levels}; give one hidden state per level"
            )

    def layers_of(self, num_hidden_layers: int) -> list[int]:
        """Return the indices of the hidden states that become the levels, shallowest first.

        Args:
            num_hidden_layers: depth of the tower.

        Raises:
            ValueError: if the tower has too few layers, or a layer in `feature_layers` does not exist.
        """
        if self.feature_layers is not None:
            layers = list(self.feature_layers)
            outside = [layer for layer in layers if not 0 <= layer <= num_hidden_layers]
            if outside:
                raise ValueError(
                    f"region_config.feature_layers names {outside}, but a tower of {num_hidden_layers} layers has "
                    f"the hidden states 0 to {num_hidden_layers}"
                )
            return layers
        every_third = list(range(num_hidden_layers + 1))[LAST_LEVEL::-LEVEL_STEP][::-1]
        if len(every_third) < self.num_levels:
            raise ValueError(
                f"{self.num_levels} region levels need a deeper tower than {num_hidden_layers} layers, which offers "
                f"the hidden states {every_third}; lower num_levels or set region_config.feature_layers"
            )
        return every_third[-self.num_levels :]


class GPT4RoIConfig(PreTrainedConfig):
    """The configuration of a whole GPT4RoI: its three parts, and the ids of the added tokens.

    Attributes:
        text_config: of any causal language model that transformers knows; LLaMA by default.
        vision_config: of any vision tower that transformers knows whose hidden states are a square grid of patches,
            with or without leading tokens such as CLS; CLIP ViT-L/14 by default.
        region_config: see `GPT4RoIRegionConfig`.
        vision_feature_layer: index of the hidden state that becomes the image tokens.
        image_token_id: id of `<im_patch>`; a prompt has one per patch of the image.
        region_token_id: id of `<bbox>`; a prompt has one per region.
        about: one sentence on what this checkpoint is; the notebook's views show it.

    Raises:
        TypeError: if a size or an id is not a whole number.
        ValueError: if a size is missing or out of its limits, or sizes do not fit together.

    Examples:
        The default is GPT4RoI-7B: 16 × 16 patches, and four levels whose maps double in size.

        >>> from gpt4roi_nb import GPT4RoIConfig
        >>> config = GPT4RoIConfig()
        >>> config.num_image_tokens, config.level_sizes, config.feature_layers
        (256, [128, 64, 32, 16], [14, 17, 20, 23])
    """

    model_type = "gpt4roi"
    sub_configs: ClassVar[dict[str, Any]] = {
        "text_config": AutoConfig,
        "vision_config": AutoConfig,
        "region_config": GPT4RoIRegionConfig,
    }

    text_config: Any = None  # a configuration, a dictionary of its values, or None for the default
    vision_config: Any = None
    region_config: Any = None
    vision_feature_layer: int = -2
    image_token_id: int = 32001
    region_token_id: int = 32002
    about: str = ""
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        self.text_config = _sub_config("text_config", self.text_config, "llama", vocab_size=32006, rms_norm_eps=1e-6)
        self.vision_config = _sub_config(
            "vision_config",
            self.vision_config,
            "clip_vision_model",
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=224,
            patch_size=14,
            projection_dim=768,
        )
        if not isinstance(self.region_config, PreTrainedConfig):
            check_values("region_config", self.region_config or {}, partly=True)
            self.region_config = GPT4RoIRegionConfig(**(self.region_config or {}))
        if self.vision_config.image_size % self.vision_config.patch_size:
            raise ValueError(
                f"vision_config.image_size ({self.vision_config.image_size}) must be a multiple of patch_size "
                f"({self.vision_config.patch_size})"
            )
        states = self.vision_config.num_hidden_layers + 1
        if not -states <= whole_number(self.vision_feature_layer, "vision_feature_layer") < states:
            raise ValueError(
                f"vision_feature_layer must name one of the tower's {states} hidden states, from {-states} to "
                f"{states - 1}, but is {self.vision_feature_layer}"
            )
        for name in ("image_token_id", "region_token_id"):
            whole_number(getattr(self, name), name, least=0)
        self.tie_word_embeddings = bool(self.tie_word_embeddings or self.text_config.tie_word_embeddings)
        super().__post_init__(**kwargs)

    @classmethod
    def from_file(cls, values: dict[str, Any], source: str) -> GPT4RoIConfig:
        """Make a configuration from the content of a config.json.

        Args:
            values: the content.
            source: the checkpoint in messages.

        Raises:
            ValueError: if it does not describe a GPT4RoI.
        """
        try:
            config: GPT4RoIConfig = cls.from_dict(values)
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, StrictDataclassError) as error:
            raise ValueError(
                f"config.json of {source!r} does not describe a GPT4RoI ({type(error).__name__}: {error}); copy it "
                "again"
            ) from error
        return config

    @property
    def grid_size(self) -> int:
        """Patches along each side of the image."""
        return self.vision_config.image_size // self.vision_config.patch_size

    @property
    def num_image_tokens(self) -> int:
        """Image tokens in a prompt: one per patch."""
        return self.grid_size**2

    @property
    def level_sizes(self) -> list[int]:
        """Side of each level's map, shallowest (largest) first: the grid's, doubled with each level above the last."""
        levels = self.region_config.num_levels
        return [self.grid_size * 2 ** (levels - 1 - level) for level in range(levels)]

    @property
    def feature_layers(self) -> list[int]:
        """Indices of the tower's hidden states that feed the region levels, shallowest first."""
        return self.region_config.layers_of(self.vision_config.num_hidden_layers)

    @property
    def image_layer(self) -> int:
        """`vision_feature_layer` as an index from 0, the embedding output."""
        states = self.vision_config.num_hidden_layers + 1
        return self.vision_feature_layer % states

    @property
    def used_layers(self) -> list[int]:
        """Indices of the tower's hidden states that are used at all, each once, shallowest first."""
        return sorted({self.image_layer, *self.feature_layers})


def _sub_config(
    section: str, given: dict[str, Any] | PreTrainedConfig | None, model_type: str, **defaults: Any
) -> PreTrainedConfig:
    """Return a sub-configuration: as given, made from a dictionary (which is not changed), or the default."""
    if not isinstance(given, PreTrainedConfig):
        values = dict(defaults) if given is None else dict(given)
        check_values(section, values, partly=True)  # before transformers divides by them
        try:
            given = AutoConfig.for_model(values.pop("model_type", model_type), **values)
        except StrictDataclassError as error:  # from transformers' own checks; not a ValueError
            raise ValueError(f"{section} does not fit together: {error}") from error
    check_values(section, given)
    return given


def check_values(section: str, values: Mapping[str, Any] | PreTrainedConfig, *, partly: bool = False) -> None:
    """Check the sizes, constants and activations in the configuration of one part, of any model family.

    Args:
        section: "text_config", "vision_config" or "region_config".
        values: the configuration, or the dictionary that it is made from.
        partly: whether absent values have defaults.

    Raises:
        TypeError: if a size is not a whole number.
        ValueError: if a size is missing, too small or too large; transformers does not know the activation; or as
            `check_constants`.
    """
    for name, (least, most) in LIMITS[section].items():
        size = values.get(name) if isinstance(values, Mapping) else getattr(values, name, None)
        if size is None:
            if name in NEEDED[section] and (not partly or (isinstance(values, Mapping) and name in values)):
                raise ValueError(f"{section} must give {name}, a whole number from {least} to {most}, but does not")
            continue
        several = size if section == "text_config" and isinstance(size, list) else [size]  # one number per layer
        for each in several:
            if not least <= whole_number(each, f"{section}.{name}") <= most:
                allowed = f"a whole number from {least} to {most}" if least < most else str(least)
                raise ValueError(f"{section}.{name} must be {allowed}, but is {each}")
    given = values if isinstance(values, Mapping) else vars(values)
    check_constants(given, section)
    for name in ACTIVATIONS:
        activation = given.get(name)
        if isinstance(activation, str) and activation not in ACT2FN:
            raise ValueError(
                f"{section}.{name} must be an activation that transformers knows, such as gelu or silu, but is "
                f"{activation!r}"
            )


def check_constants(values: Mapping[str, Any], section: str = "") -> None:
    """Check the constants in a configuration of any model, also inside dictionaries such as the rotary embedding's.

    Args:
        values: the configuration, or a part of it.
        section: the part in messages.

    Raises:
        ValueError: if a number is NaN, or an epsilon is not from 0 to 1.
    """
    for name, value in values.items():
        place = f"{section}.{name}" if section else str(name)
        if isinstance(value, Mapping):
            check_constants(value, place)
        elif isinstance(value, int | float) and _EPSILONS & {*str(name).split("_")} and not 0 <= value <= 1:
            raise ValueError(f"{place} must be a number from 0 to 1, but is {value}")
        elif isinstance(value, float) and math.isnan(value):
            raise ValueError(f"{place} must be a finite number, but is {value}")


AutoConfig.register("gpt4roi", GPT4RoIConfig)
AutoConfig.register("gpt4roi_region", GPT4RoIRegionConfig)
