"""Sizes, seeds and shares of the demo checkpoint: everything to change for training another one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from transformers import PreTrainedTokenizerBase

from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.prompt import token_id_of
from gpt4roi_nb.tokenizer import IMAGE_TOKEN, REGION_TOKEN

ABOUT = "A small teaching model, trained on generated table-top scenes only; it knows nothing of photographs."

# Series of `data.scenes.scenes`. What `demo.check` draws comes from the seeds that its user names, below all of these.
DENSE_SERIES, PLAIN_SERIES, VALIDATION_SERIES = 7_000_002, 7_000_001, 7_000_101
FURTHER_SERIES, OUT_OF_DOMAIN_SERIES = 7_000_003, 7_000_201

OF_LAST = ("commit", "last_batch", "world_images")  # fields that the parts before the last do not depend on


@dataclass(frozen=True)
class Phase:
    """A part of the training: its steps (so that no clock decides the outcome) and its highest learning rate."""

    steps: int
    rate: float


@dataclass(frozen=True)
class Recipe:
    """How the demo checkpoint is made."""

    image_size: int = 168
    patch_size: int = 14
    width: int = 192
    vision_layers: int = 4
    text_layers: int = 5
    text_inner: int = 576  # width inside the language model's feed-forward layers
    vision_heads: int = 3  # few and wide: the quickest on a CPU
    text_heads: int = 6
    region_layers: tuple[int, ...] = (2, 4)
    region_channels: int = 32
    region_output: int = 7
    region_width: int = 224
    context: int = 1024
    vocabulary: int = 1000

    dense_scenes: int = 14_000
    dense_objects: tuple[int, int] = (6, 10)
    plain_scenes: int = 6_000
    plain_objects: tuple[int, int] = (3, 7)
    validation_scenes: int = 400

    images_a_step: int = 8
    # Of the vision phase's batches. Lessons are about some of a dense scene's objects, the stages about plain scenes.
    dense_share: float = 0.75
    box_jitter: float = 0.06  # standard deviation of each edge, as a share of the box's side
    vision: Phase = Phase(6000, 8e-4)
    regions: Phase = Phase(600, 1.5e-3)  # the lessons of `curriculum`, in their order
    similarity: Phase = Phase(400, 1.5e-3)
    choices: Phase = Phase(600, 1.5e-3)
    symbols: Phase = Phase(500, 1.2e-3)
    stage1: Phase = Phase(60, 6e-4)
    stage2: Phase = Phase(2000, 1e-3)
    finish: Phase = Phase(700, 8e-4)  # the second stage continues
    polish: Phase = Phase(1500, 8e-4)
    talk: Phase = Phase(800, 8e-4)
    warmup_share: float = 0.04
    weight_decay: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    token_scale: float = 0.7  # standard deviation of word embeddings
    autocast: bool = False  # language phases compute in bfloat16

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size

    def shared(self) -> dict[str, Any]:
        """What stands for every phase."""
        return {name: value for name, value in vars(self).items() if not isinstance(value, Phase)}

    def tiny(self) -> Self:
        """The same in miniature: every phase in seconds, to test the machinery."""
        phases: dict[str, Any] = {name: Phase(2, 1e-3) for name in vars(self) if isinstance(getattr(self, name), Phase)}
        phases["vision"] = Phase(3, 1e-3)
        return replace(
            self,
            image_size=56,
            width=64,
            vision_layers=3,
            text_layers=2,
            text_inner=64,
            vision_heads=1,
            text_heads=2,
            region_layers=(1, 2),
            region_channels=16,
            region_width=32,
            dense_scenes=6,
            plain_scenes=6,
            validation_scenes=4,
            images_a_step=2,
            **phases,
        )


@dataclass(frozen=True)
class Further(Recipe):
    """How the demo checkpoint is trained further.

    `vision_layers`, `text_layers` and `vocabulary` are those that `make` began with; the checkpoint's `config.json` has
    today's.

    begins_with: SHA-256 of the weights to continue from; `commit` was the last to change them.
    """

    begins_with: str = "e93652c1fa91a6328f06ac351894af43cfb827fa844405a6cbcb53484a3b570c"
    commit: str = "3d230bd"
    trained_vision_layers: int = 3  # the tower's last ones
    further_scenes: int = 32_000
    strangers: int = 2000
    autocast: bool = True
    order: Phase = Phase(2200, 1e-3)  # the tower's last layers number the objects from left to right
    order_images: int = 64  # a step
    answers: Phase = Phase(3300, 8e-4)
    balance: Phase = Phase(500, 2e-4)  # some of everything
    last: Phase = Phase(250, 3e-5)  # by `train`, on conversations of a world
    last_batch: int = 16
    world_images: int = 2000

    def shared(self) -> dict[str, Any]:
        """What stands for every phase in the recipe's own loop."""
        return {name: value for name, value in super().shared().items() if name not in OF_LAST}

    def tiny(self) -> Self:
        """The same in miniature."""
        return replace(
            super().tiny(),
            further_scenes=6,
            strangers=4,
            trained_vision_layers=1,
            world_images=12,
            last_batch=2,
            order_images=3,
        )


def model_config(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> GPT4RoIConfig:
    """The configuration of the model that a recipe makes, for this tokenizer."""
    width = recipe.width
    return GPT4RoIConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": width,
            "intermediate_size": recipe.text_inner,
            "num_hidden_layers": recipe.text_layers,
            "num_attention_heads": recipe.text_heads,
            "num_key_value_heads": recipe.text_heads,
            "max_position_embeddings": recipe.context,
            "initializer_range": width**-0.5,
            "tie_word_embeddings": False,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": recipe.vision_layers,
            "num_attention_heads": recipe.vision_heads,
            "image_size": recipe.image_size,
            "patch_size": recipe.patch_size,
            "projection_dim": width,
        },
        region_config={
            "num_levels": len(recipe.region_layers),
            "feature_layers": list(recipe.region_layers),
            "hidden_size": recipe.region_channels,
            "num_fusion_rounds": 2,
            "num_groups": 8,
            "output_size": recipe.region_output,
            "embed_dim": recipe.region_width,
            "position_hidden_size": 64,
        },
        vision_feature_layer=-1,
        image_token_id=token_id_of(IMAGE_TOKEN, tokenizer),
        region_token_id=token_id_of(REGION_TOKEN, tokenizer),
        about=ABOUT,
    )
