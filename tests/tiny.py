"""A GPT4RoI of random weights, small enough to build in every test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from gpt4roi_nb import GPT4RoI, GPT4RoIConfig, GPT4RoIForConditionalGeneration, GPT4RoIProcessor
from gpt4roi_nb.processor import GPT4RoIImageProcessor
from gpt4roi_nb.tokenizer import tokenizer_from_sentencepiece

TOKENIZER = Path(__file__).parent / "golden" / "tokenizer" / "tokenizer.model"


def tiny_image(seed: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    """(height, width, 3) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tiny_config(**changes) -> GPT4RoIConfig:
    """Grid 4 × 4, two levels; `changes` replace whole parts."""
    parts = {
        "text_config": {
            "model_type": "llama",
            "vocab_size": 1006,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "initializer_range": 0.2,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        "region_config": {
            "num_levels": 2,
            "feature_layers": [2, 4],
            "hidden_size": 16,
            "num_fusion_rounds": 2,
            "num_groups": 4,
            "output_size": 4,
            "embed_dim": 24,
            "position_hidden_size": 8,
        },
        "image_token_id": 1001,
        "region_token_id": 1002,
    }
    return GPT4RoIConfig(**{**parts, **changes})


def tiny_processor(config: GPT4RoIConfig, **options) -> GPT4RoIProcessor:
    return GPT4RoIProcessor(
        GPT4RoIImageProcessor(config.vision_config.image_size),
        tokenizer_from_sentencepiece(TOKENIZER),
        num_image_tokens=config.num_image_tokens,
        **options,
    )


def tiny_model(config: GPT4RoIConfig | None = None, seed: int = 0) -> GPT4RoIForConditionalGeneration:
    torch.manual_seed(seed)
    model = GPT4RoIForConditionalGeneration(config or tiny_config()).eval()
    model.generation_config.pad_token_id = 1000
    return model


def tiny_gpt4roi(seed: int = 0, **changes) -> GPT4RoI:
    config = tiny_config(**changes)
    return GPT4RoI(tiny_model(config, seed), tiny_processor(config), "tiny")


def set_in_config(folder: Path, name: str, value: object) -> None:
    """Change a checkpoint's config.json. name: dotted, such as "text_config.num_hidden_layers"."""
    content = json.loads((folder / "config.json").read_text())
    *path, last = name.split(".")
    part = content
    for step in path:
        part = part[step]
    part[last] = value
    (folder / "config.json").write_text(json.dumps(content))
