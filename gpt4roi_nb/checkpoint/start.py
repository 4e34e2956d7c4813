"""The published start of training: Vicuna, CLIP's tower, LLaVA's projector, and its rows for the image's markers."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gpt4roi_nb.checkpoint.check import check_checkpoint
from gpt4roi_nb.checkpoint.disk import room_for
from gpt4roi_nb.checkpoint.from_parts import assemble_from_parts
from gpt4roi_nb.checkpoint.shards import load_bin
from gpt4roi_nb.config import GPT4RoIRegionConfig
from gpt4roi_nb.finite import check_finite
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.prompt import token_id_of
from gpt4roi_nb.tokenizer import IMAGE_END_TOKEN, IMAGE_START_TOKEN

PARTIAL = ".start-partial"
WEIGHT, BIAS, ROWS = "mm_projector.weight", "mm_projector.bias", "embed_tokens.weight"
MARKS = (IMAGE_START_TOKEN, IMAGE_END_TOKEN)
_Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Projector:
    """LLaVA's pretrained projector.

    weight: (language width, tower width). bias: (language width,). rows: (2, language width), the embeddings of
    `<im_start>` and `<im_end>`.
    """

    weight: Tensor
    bias: Tensor
    rows: Tensor


def start_checkpoint(
    language: _Path,
    vision: _Path,
    projector: _Path,
    target: _Path,
    *,
    dtype: str | torch.dtype | None = None,
    seed: int = 0,
    region_config: GPT4RoIRegionConfig | dict[str, Any] | None = None,
) -> Path:
    """Write the checkpoint that the first stage of training begins with; its region encoder is untrained.

    Args:
        language: Vicuna-7B-v0, a folder or a hub id, with its tokenizer.model.
        vision: the vision tower, openai/clip-vit-large-patch14.
        projector: LLaVA's file, such as LLaVA-7b-pretrain-projector-v0-CC3M-595K-original_caption.bin.
        target: the folder to write; it must not exist, or be empty.
        dtype: of all weights; None keeps the language model's.
        seed: for the region encoder's weights.
        region_config: sizes of the region encoder; None takes GPT4RoI-7B's.

    Returns:
        The folder.

    Raises:
        FileExistsError: the target exists.
        FileNotFoundError: a part is missing.
        ValueError: a part is incomplete, damaged or of a kind or size that does not fit.
        OSError: the disk is too small.

    Example:
        >>> from gpt4roi_nb.checkpoint import start_checkpoint
        >>> clip = "openai/clip-vit-large-patch14"
        >>> start_checkpoint("vicuna-7b-v0", clip, "LLaVA-7b-projector.bin", "begun")  # doctest: +SKIP
        >>> start_checkpoint("vicuna-7b-v0", clip, "no-such-file.bin", "begun")
        Traceback (most recent call last):
        ...
        FileNotFoundError: there is no projector file 'no-such-file.bin'; docs/training.md says which one to get
    """
    goal = Path(target).expanduser().resolve()
    if goal.exists() and (not goal.is_dir() or any(goal.iterdir())):
        raise FileExistsError(f"{str(goal)!r} exists already; remove it, or choose another target")
    stored = read_projector(Path(projector).expanduser())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processor = assemble_from_parts(
            language, vision, region_config=region_config, chat_format="gpt4roi", device="cpu", dtype=dtype or "auto"
        )
    put_projector(model, stored, [token_id_of(mark, processor.tokenizer) for mark in MARKS])

    goal.parent.mkdir(parents=True, exist_ok=True)
    partial = goal.with_name(goal.name + PARTIAL)
    size = sum(weight.numel() * weight.element_size() for weight in model.state_dict().values())
    shutil.rmtree(partial, ignore_errors=True)
    with room_for(goal.parent, size, "the checkpoint", "Free some space, or choose another target"):
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
    check_checkpoint(partial)
    partial.replace(goal)
    return goal


def read_projector(file: Path) -> Projector:
    """Read LLaVA's projector and the embeddings of the image's markers.

    LLaVA's trainer stores them as `model.mm_projector.*` and `model.embed_tokens.weight`, whose last two rows are the
    markers' (LLaVA, llava/model/llava.py, initialize_vision_tokenizer).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, lacks a tensor, or has one of a shape that does not fit.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no projector file {str(file)!r}; docs/training.md says which one to get")
    if file.suffix == ".safetensors":
        try:
            tensors = load_file(file)
        except SafetensorError as error:
            raise ValueError(
                f"{str(file)!r} is truncated or not a safetensors file ({error}); copy it again"
            ) from error
    else:
        tensors = load_bin(file)
    weight, bias, rows = (_one(tensors, name, file) for name in (WEIGHT, BIAS, ROWS))
    is_linear = weight.dim() == 2 and bias.shape == (len(weight),)
    if not is_linear or rows.dim() != 2 or rows.shape[1:] != bias.shape or len(rows) < len(MARKS):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (weight, bias, rows))
        raise ValueError(
            f"{str(file)!r} must contain a linear layer (D, C) with bias (D,) and embeddings (2 or more, D), but the "
            f"shapes are {shapes}"
        )
    return Projector(weight, bias, rows[-len(MARKS) :].clone())


def _one(tensors: dict[str, Tensor], name: str, file: Path) -> Tensor:
    fitting = [tensor for key, tensor in tensors.items() if f".{key}".endswith(f".{name}")]
    if len(fitting) == 1:
        return fitting[0]
    hint = (
        "; a file whose name says no_im_token has no rows for <im_start> and <im_end>, which GPT4RoI's prompt needs"
        if name == ROWS
        else ""
    )
    held = ", ".join(sorted(tensors)) or "nothing"
    raise ValueError(f"{str(file)!r} must contain one {name}, but contains {held}{hint}")


@torch.no_grad()
def put_projector(model: GPT4RoIForConditionalGeneration, stored: Projector, marks: list[int]) -> None:
    """Copy LLaVA's projector into a model, and its rows to the embeddings of the token ids `marks`.

    Raises:
        ValueError: the projector has another width, or NaN or infinite values.
    """
    layer: Any = model.multi_modal_projector
    if stored.weight.shape != layer.weight.shape:
        raise ValueError(
            f"the projector maps {stored.weight.shape[1]} to {stored.weight.shape[0]} channels, but the tower has "
            f"{layer.weight.shape[1]} and the language model {layer.weight.shape[0]}; take the file for this size"
        )
    layer.weight.copy_(stored.weight)
    layer.bias.copy_(stored.bias)
    check_finite(layer, "the projector's weights")
    embeddings: Any = model.language_model.get_input_embeddings()
    embeddings.weight[marks] = stored.rows.to(embeddings.weight.dtype)
    check_finite(embeddings, "the embeddings with the projector's rows")
