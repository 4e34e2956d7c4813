"""Checkpoints in the authors' layout, made here: their names, config.json, tokenizer files and old buffers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny import tiny_config, tiny_model, tiny_processor
from torch import Tensor

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.checkpoint.keys import to_original
from gpt4roi_nb.processor import CLIP_MEAN

TOKENIZER = Path(__file__).parent / "golden" / "tokenizer"
State = dict[str, Tensor]


def tiny_original(seed: int = 3) -> GPT4RoI:
    """A tiny model whose sizes follow from an authors' config.json, as `tiny_gpt4roi`'s do not."""
    base = tiny_config()
    config = tiny_config(
        region_config={**base.region_config.to_dict(), "hidden_size": 64, "num_groups": 64, "feature_layers": None}
    )
    return GPT4RoI(tiny_model(config, seed), tiny_processor(config), "tiny")


def parts(gpt4roi: GPT4RoI) -> tuple[State, State]:
    """The state dict as the authors store it, and that of a whole CLIP's vision half, each with its old buffers."""
    state, tower = {}, {}
    for name, tensor in gpt4roi.model.state_dict().items():
        theirs = to_original(name)
        if theirs.startswith("vision_tower."):
            tower[theirs.removeprefix("vision_tower.")] = tensor.clone()
        else:
            state[theirs] = tensor.clone()
    for layer in range(gpt4roi.model.config.text_config.num_hidden_layers):
        state[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    tower["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    tower["text_model.final_layer_norm.weight"] = torch.ones(5)
    tower["logit_scale"] = torch.tensor(2.6)
    return state, tower


def write_weights(folder: Path, state: State, *, shards: int = 1, layout: str = "bin") -> Path:
    """layout: "bin" or "safetensors". More than one shard comes with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    stem, suffix = ("pytorch_model", ".bin") if layout == "bin" else ("model", ".safetensors")
    names = sorted(state)
    where = {}
    for shard in range(shards):
        content = {name: state[name].contiguous() for name in names[shard::shards]}
        file = f"{stem}-{shard + 1:05}-of-{shards:05}{suffix}" if shards > 1 else stem + suffix
        where.update(dict.fromkeys(content, file))
        if layout == "bin":
            torch.save(content, folder / file)
        else:
            save_file(content, folder / file)
    if shards > 1:
        (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def write_authors(folder: Path, state: State, sizes: dict[str, Any], tower: str = "", **weights: Any) -> Path:
    """A folder as the authors' releases are. sizes: of the language model; tower: what config.json names."""
    write_weights(folder, state, **weights)
    config = {
        "architectures": ["SPILlavaMPTForCausalLM"],
        "model_type": "llava",
        "torch_dtype": "float16",
        "transformers_version": "4.28.1",
        "bos_token_id": 0,  # wrong, as in the first conversions of LLaMA
        "eos_token_id": 1,
        "mm_hidden_size": 1024,
        "mm_use_im_start_end": True,
        "mm_vision_select_layer": -2,
        "mm_vision_tower": tower or "openai/clip-vit-large-patch14",
        **sizes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    for file in TOKENIZER.iterdir():
        shutil.copy(file, folder)
    return folder


def write_tower(folder: Path, tower: State, vision_config: dict[str, Any], **weights: Any) -> Path:
    """A folder of a whole CLIP, of which only the vision half is of use."""
    write_weights(folder, tower, **weights)
    content = {"model_type": "clip", "vision_config": vision_config, "text_config": {"model_type": "clip_text_model"}}
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": list(CLIP_MEAN), "crop_size": 224}))
    return folder


def write_base(folder: Path, state: State, sizes: dict[str, Any], **weights: Any) -> Path:
    """A folder of LLaMA, as it was converted for transformers."""
    write_weights(folder, state, **weights)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **sizes}))
    return folder


def cut(state: State, seed: int = 0, moved: float = 0.02) -> tuple[State, State]:
    """A float16 state dict as (delta, base): the base has no rows for the six added tokens, and no other modules.

    moved: how far, relatively, training is made to have moved the language model.
    """
    generator = torch.Generator().manual_seed(seed)
    delta, base = {}, {}
    for name, tensor in state.items():
        target = tensor.half()
        if name.startswith(("model.mm_projector.", "model.spi_module.")):
            delta[name] = target
        elif name.endswith("inv_freq"):
            delta[name], base[name] = torch.zeros_like(tensor), tensor
        else:
            rows = len(target) - 6 if name in ("model.embed_tokens.weight", "lm_head.weight") else len(target)
            step = torch.randn(target[:rows].shape, generator=generator) * moved * target[:rows].float().std()
            base[name] = (target[:rows].float() + step).half()
            delta[name] = target.clone()
            delta[name][:rows] -= base[name]
    return delta, base


def sizes_of(gpt4roi: GPT4RoI) -> dict[str, Any]:
    """What the authors' config.json and LLaMA's say of a model's language sizes."""
    text = gpt4roi.model.config.text_config
    return {
        "vocab_size": text.vocab_size,
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "num_hidden_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
        "num_key_value_heads": text.num_key_value_heads,
        "max_position_embeddings": text.max_position_embeddings,
        "rms_norm_eps": text.rms_norm_eps,
    }
