"""What the authors' files say about their model: its sizes, its tokens, and its base (commit 00273ad)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerFast

from gpt4roi_nb.checkpoint.check import UNBUILDABLE, read_config, tower_in, undescribed
from gpt4roi_nb.checkpoint.hub import CONFIG_FILE
from gpt4roi_nb.checkpoint.keys import FUSION, HEAD
from gpt4roi_nb.checkpoint.shards import Shards
from gpt4roi_nb.config import GPT4RoIConfig, check_values
from gpt4roi_nb.files import read_json
from gpt4roi_nb.memory import skeleton
from gpt4roi_nb.processor import GPT4RoIImageProcessor, GPT4RoIProcessor
from gpt4roi_nb.prompt import token_id_of
from gpt4roi_nb.tokenizer import ADDED_TOKENS, IMAGE_TOKEN, REGION_TOKEN, canonical_tokenizer

EMBEDDINGS = "model.embed_tokens.weight"
CLIP_LARGE_WIDTH, PUBLISHED_TOKENS = 1024, 256
FINAL_NORM = "model.norm.weight"
SMALLEST_NORM = 0.1
ROWS_PER_TOKEN = (EMBEDDINGS, "lm_head.weight")
# The entries of a language model's config.json that are used. The ids of special tokens come from the tokenizer, since
# early conversions of LLaMA wrote wrong ones.
TEXT_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "initializer_range",
    "rms_norm_eps",
    "max_position_embeddings",
    "rope_theta",
    "tie_word_embeddings",
)
# What a base must have in common with its delta. The last two tell LLaMA's first version from its second.
BASE_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "rms_norm_eps",
    "max_position_embeddings",
)
OLD_NAME_OF_CONTEXT = "max_sequence_length"  # the name of max_position_embeddings in the first conversions of LLaMA


def language_sizes(folder: Path) -> dict[str, Any]:
    """The sizes in a language model's or the authors' config.json."""
    content = read_json(folder / "config.json")
    content.setdefault("max_position_embeddings", content.get(OLD_NAME_OF_CONTEXT, 2048))
    return {name: content[name] for name in TEXT_KEYS if content.get(name) is not None}


def vision_config_of(folder: Path) -> PreTrainedConfig:
    """The configuration of a vision tower, from its own config.json or that of a whole CLIP."""
    values = read_json(folder / CONFIG_FILE, "the vision tower")
    config: Any = tower_in(read_config(folder, values, str(folder), "vision tower"))
    try:
        check_values("vision_config", config)
    except (TypeError, ValueError) as error:
        raise undescribed(str(folder), "vision tower", error) from error
    tokens = (config.image_size // config.patch_size) ** 2
    if config.hidden_size == CLIP_LARGE_WIDTH and tokens != PUBLISHED_TOKENS:
        raise ValueError(
            f"the vision tower in {str(folder)!r} makes {tokens} tokens per image, but GPT4RoI was trained with "
            f"{PUBLISHED_TOKENS}; take openai/clip-vit-large-patch14, not a version for larger images"
        )
    return config


def tokenizer_of(folder: Path, source: Shards) -> PreTrainedTokenizerFast:
    """The canonical tokenizer of the authors' files; raises ValueError if its ids do not fit the embedding rows."""
    tokenizer = canonical_tokenizer(folder)
    recorded = folder / "added_tokens.json"
    if recorded.is_file():
        for token, token_id in read_json(recorded).items():
            ours = tokenizer.convert_tokens_to_ids(token)
            if token in ADDED_TOKENS and ours != token_id:
                raise ValueError(
                    f"{str(recorded)!r} gives {token} the id {token_id}, but after the vocabulary it is {ours}; "
                    "the tokenizer's files belong to different models"
                )
    if EMBEDDINGS not in source.tensors:
        raise ValueError(f"{str(source.folder)!r} has no {EMBEDDINGS}; expected the weights of the authors' GPT4RoI")
    rows = source.tensors[EMBEDDINGS].shape[0]
    if rows < len(tokenizer):
        raise ValueError(
            f"the tokenizer of {str(folder)!r} has {len(tokenizer)} tokens, but {EMBEDDINGS} has {rows} rows; the "
            "tokenizer's files or the weights belong to another model"
        )
    return tokenizer


def config_of(
    folder: Path,
    source: Shards,
    tokenizer: PreTrainedTokenizerFast,
    vision_config: PreTrainedConfig,
    dtype: torch.dtype,
) -> GPT4RoIConfig:
    """Our configuration for the authors' model. The region encoder's sizes are read from its tensors."""
    theirs = read_json(folder / "config.json")
    if not theirs.get("mm_use_im_start_end", True):
        raise ValueError(
            f"{str(folder / 'config.json')!r} turns mm_use_im_start_end off; GPT4RoI's prompt needs the image between "
            "<im_start> and <im_end>"
        )
    shapes = {name: info.shape for name, info in source.tensors.items()}
    regions = _region_sizes(shapes)
    try:
        config = _config(theirs, folder, shapes, regions, tokenizer, vision_config, dtype)
        skeleton(config)  # raises for what only building shows
        return config
    except (*UNBUILDABLE, StrictDataclassError) as error:
        raise ValueError(f"{str(folder / 'config.json')!r} gives invalid sizes ({error}); copy it again") from error


def _config(
    theirs: dict[str, Any],
    folder: Path,
    shapes: dict[str, tuple[int, ...]],
    regions: dict[str, int],
    tokenizer: PreTrainedTokenizerFast,
    vision_config: PreTrainedConfig,
    dtype: torch.dtype,
) -> GPT4RoIConfig:
    return GPT4RoIConfig(
        text_config={
            "model_type": "llama",
            **language_sizes(folder),
            "vocab_size": shapes[EMBEDDINGS][0],
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config=vision_config,
        region_config=regions,
        vision_feature_layer=theirs.get("mm_vision_select_layer", -2),
        image_token_id=token_id_of(IMAGE_TOKEN, tokenizer),
        region_token_id=token_id_of(REGION_TOKEN, tokenizer),
        dtype=dtype,
    )


def _region_sizes(shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    def shape_of(name: str, dims: int) -> tuple[int, ...]:
        if name not in shapes:
            raise ValueError(f"the weights lack {name}; expected the region module of GPT4RoI (model.spi_module)")
        if len(shapes[name]) != dims or 0 in shapes[name]:
            raise ValueError(f"{name} has the shape {shapes[name]}; expected {dims} sizes above 0")
        return shapes[name]

    def count(pattern: str) -> int:
        return next(index for index in range(1000) if pattern.format(index) not in shapes)

    channels = shape_of(f"{FUSION}.input_conv.0.weight", 4)[0]
    embed_dim, flattened = shape_of(f"{HEAD}.flatten_linear.weight", 2)
    return {
        "hidden_size": channels,
        "num_levels": count(FUSION + ".input_conv.{}.weight"),
        "num_fusion_rounds": count(FUSION + ".fuse_convs.{}.conv.weight"),
        "output_size": round((flattened / channels) ** 0.5),
        "embed_dim": embed_dim,
        "position_hidden_size": shape_of(f"{HEAD}.pos_embedd.0.weight", 2)[0],
    }


def processor_of(
    config: GPT4RoIConfig, tokenizer: PreTrainedTokenizerFast, vision_folder: Path | None
) -> GPT4RoIProcessor:
    """The processor, with the mean and standard deviation in the tower's own folder, or CLIP's if it has none."""
    file = None if vision_folder is None else vision_folder / "preprocessor_config.json"
    given = read_json(file) if file is not None and file.is_file() else {}
    options = {name: given[name] for name in ("image_mean", "image_std") if name in given}
    if any(not isinstance(values, list) or len(values) != 3 for values in options.values()):
        raise ValueError(f"{str(file)!r} must give image_mean and image_std as three numbers each, but gives {options}")
    try:
        image_processor = GPT4RoIImageProcessor(config.vision_config.image_size, **options)
    except TypeError as error:
        raise ValueError(f"{str(file)!r} does not say how images are normalised: {error}") from error
    return GPT4RoIProcessor(image_processor, tokenizer, num_image_tokens=config.num_image_tokens)


def generation_config_of(tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    """Greedy decoding, with which the authors' results were produced."""
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )


def check_whole(source: Shards) -> None:
    """Raise ValueError for a delta without its base: its norm weights are near 0, a model's are not."""
    norm = source.read(FINAL_NORM).float().abs().mean().item()
    if norm < SMALLEST_NORM:
        raise ValueError(
            f"{str(source.folder)!r} is a delta: the weights of its last norm are {norm:.3f} on average, a model's are "
            "about 1; give its base with `base` (--base): the first version of LLaMA-7B"
        )


def check_base(base: Path, source: Path, base_shards: Shards, vocabulary: int, doubt: Callable[[str], None]) -> None:
    """Call `doubt` if the base cannot be the one the delta was computed from, with all differences in one message."""
    theirs, wanted = language_sizes(base), language_sizes(source)
    complaints = [
        f"{name} is {theirs.get(name)}, expected {wanted[name]}"
        for name in BASE_KEYS
        if name in wanted and theirs.get(name) != wanted[name]
    ]
    if EMBEDDINGS not in base_shards.tensors:
        complaints.append(f"it has no {EMBEDDINGS}")
    else:
        rows = base_shards.tensors[EMBEDDINGS].shape[0]
        if rows != vocabulary:
            complaints.append(f"its vocabulary has {rows} tokens, expected {vocabulary}")
    if complaints:
        hint = ""
        if theirs.get("max_position_embeddings") == 4096 or theirs.get("rms_norm_eps") == 1e-5:
            hint = " (this looks like Llama 2)"
        doubt(
            f"{str(base)!r} is not the base of this delta{hint}: {'; '.join(complaints)}. Expected the first version "
            "of LLaMA-7B, in transformers' format, without added tokens"
        )
