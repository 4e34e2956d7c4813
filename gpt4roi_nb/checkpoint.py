"""Loading a checkpoint, and saying which file or tensor is wrong when it is not one."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import logging

from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.tokenizer import IMAGE_TOKEN, REGION_TOKEN

if TYPE_CHECKING:
    from gpt4roi_nb.conversion.report import ConversionReport

DEMO_CHECKPOINT = Path(__file__).parent / "demo" / "checkpoint"

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# Each with an entry that it has whenever `GPT4RoIProcessor.save_pretrained` wrote it.
PROCESSOR_FILES = {
    "processor_config.json": "image_processor",
    "tokenizer.json": "added_tokens",
    "tokenizer_config.json": "tokenizer_class",
}
# Only the language model is quantised: the others are small, and the region features are what this model is about.
NOT_QUANTISED = ("vision_tower", "multi_modal_projector", "region_encoder", "lm_head")
QUANTIZATIONS = ("8bit", "4bit")
# What says where on a hub a checkpoint lies; the processor comes from there as well.
HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "subfolder")
_SHOWN_NAMES = 5


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    quantization: str | None = None,
    attn_implementation: str | None = None,
    device_map: str | dict[str, Any] | None = None,
    **kwargs: Any,
) -> tuple[GPT4RoIForConditionalGeneration, GPT4RoIProcessor]:
    """Model and processor of a checkpoint; the arguments are those of `GPT4RoI.from_pretrained`."""
    if device is not None and device_map is not None:
        raise ValueError("give either device or device_map, and not both")
    given = os.fspath(path)
    path = os.path.expanduser(path)
    if Path(path).exists():
        check_checkpoint(path)
    elif os.path.isabs(path) or path.startswith("."):
        raise FileNotFoundError(f"no checkpoint at {given!r}; expected a folder or a hub id")
    if device_map is None:
        target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        # A CPU computes float32 faster and more exactly than half precision, in most machines.
        dtype = dtype or (torch.float32 if target.type == "cpu" else "auto")
        if quantization is not None:
            device_map = {"": target}
    with _named_if_absent(path), _no_progress_bar() if Path(path) == DEMO_CHECKPOINT else nullcontext():
        loaded: Any = GPT4RoIForConditionalGeneration.from_pretrained(
            path,
            dtype=dtype or "auto",
            quantization_config=None if quantization is None else _quantization_config(quantization, dtype),
            attn_implementation=attn_implementation,
            device_map=device_map,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # _check_tensors says which they are, and raises
            **kwargs,
        )
    model, info = loaded
    _check_tensors(path, info)
    if device_map is None:
        model = model.to(target)
    hub_options = {name: value for name, value in kwargs.items() if name in HUB_OPTIONS}
    processor = GPT4RoIProcessor.from_pretrained(path, **hub_options)
    _check_processor(path, processor, model.config)
    return model.eval(), processor


def check_checkpoint(path: str | os.PathLike[str]) -> None:
    """Looks at the files of a folder without reading the weights.

    Raises:
        FileNotFoundError: a file is missing (says which).
        ValueError: a file is truncated or foreign (says which), or the folder holds another model.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is a file; expected the folder of a checkpoint, with {CONFIG_FILE} in it")
    config = _read_json(folder / CONFIG_FILE)
    if config.get("model_type") != GPT4RoIConfig.model_type:
        kind = config.get("model_type", "unknown")
        raise ValueError(
            f"{str(folder)!r} holds a model of the type {kind!r}, not {GPT4RoIConfig.model_type!r}; expected a "
            "checkpoint that this package saved"
        )
    for name, entry in PROCESSOR_FILES.items():
        if entry not in _read_json(folder / name):
            raise ValueError(f"{str(folder / name)!r} has no {entry!r}; expected the file that this package saved")
    for name in _weight_files(folder):
        file = folder / name
        if not file.is_file():
            raise FileNotFoundError(f"the checkpoint {str(folder)!r} lacks its weights file {name}")
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(
                f"the weights file {str(file)!r} is truncated or no safetensors file ({error}); copy it again"
            ) from error


def _weight_files(folder: Path) -> list[str]:
    if not (folder / INDEX_FILE).is_file():
        return [WEIGHTS_FILE]
    index = _read_json(folder / INDEX_FILE)
    return sorted(set(index.get("weight_map", {}).values()))


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"the checkpoint {str(file.parent)!r} lacks {file.name}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{str(file)!r} is truncated or no JSON file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(file)!r} must hold a JSON object, but holds a {type(content).__name__}")
    return content


def _check_tensors(path: str | os.PathLike[str], info: dict[str, Any]) -> None:
    """Raises ValueError where tensors are missing, unknown or of another shape: a model must not run on guesses."""
    complaints = []
    if mismatched := info["mismatched_keys"]:
        name, came, expected = sorted(mismatched)[0]
        complaints.append(
            f"{len(mismatched)} tensors have another shape than config.json says, first {name}: "
            f"expected {tuple(expected)}, came {tuple(came)}"
        )
    for kind, what in (("missing_keys", "missing"), ("unexpected_keys", "unknown to this model")):
        if names := sorted(info[kind]):
            shown = ", ".join(names[:_SHOWN_NAMES]) + (" …" if len(names) > _SHOWN_NAMES else "")
            complaints.append(f"{len(names)} tensors are {what}: {shown}")
    if complaints:
        raise ValueError(f"the weights of {os.fspath(path)!r} do not fit their config.json: " + "; ".join(complaints))


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """A progress bar for a model that loads in a moment would only be noise in a notebook."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _check_processor(path: str | os.PathLike[str], processor: GPT4RoIProcessor, config: GPT4RoIConfig) -> None:
    """Raises ValueError where the tokenizer or the image processor belongs to another model."""
    id_of = processor.tokenizer.convert_tokens_to_ids
    for what, came, expected in (
        (f"the id of {IMAGE_TOKEN}", id_of(IMAGE_TOKEN), config.image_token_id),
        (f"the id of {REGION_TOKEN}", id_of(REGION_TOKEN), config.region_token_id),
        ("the number of image tokens", processor.num_image_tokens, config.num_image_tokens),
        ("the image size", processor.image_processor.image_size, config.vision_config.image_size),
    ):
        if came != expected:
            raise ValueError(
                f"the processor of {os.fspath(path)!r} belongs to another model: {what} is {expected} in "
                f"{CONFIG_FILE}, but {came} in {' and '.join(PROCESSOR_FILES)}; copy these files again"
            )


@contextmanager
def _named_if_absent(path: str | os.PathLike[str]) -> Iterator[None]:
    """A path that is no folder is tried as a hub id; where that fails too, the message says both."""
    try:
        yield
    except OSError as error:
        if Path(path).exists():
            raise
        raise FileNotFoundError(
            f"no checkpoint at {os.fspath(path)!r}: there is no such folder, and it could not be got as a hub id "
            f"({error})"
        ) from error


def _quantization_config(quantization: str, dtype: str | torch.dtype | None) -> Any:
    if quantization not in QUANTIZATIONS:
        raise ValueError(f'quantization must be None, "8bit" or "4bit", but is {quantization!r}')
    try:
        import bitsandbytes  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'quantization="8bit" and "4bit" need the package bitsandbytes: pip install bitsandbytes'
        ) from error
    from transformers import BitsAndBytesConfig

    compute = dtype if isinstance(dtype, torch.dtype) else torch.float16
    return BitsAndBytesConfig(
        load_in_8bit=quantization == "8bit",
        load_in_4bit=quantization == "4bit",
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=list(NOT_QUANTISED),
    )


def convert_original(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    vision: str | os.PathLike[str] | None = None,
    dtype: str | torch.dtype | None = None,
    verify: bool = False,
    progress: bool = True,
) -> ConversionReport:
    """The authors' checkpoint, or their delta and its base, to this package's layout. Needs little memory.

    A conversion that was stopped, by whatever, is continued by the same call; until it is whole its folder is called
    `target` + ".partial".

    Args:
        source: the authors' files, a folder or a hub id: config.json, the weights as `pytorch_model*.bin` or
            safetensors, in shards or not, and tokenizer.model or tokenizer.json.
        target: the folder to be written; it must not exist, or be empty.
        base: where the source is a delta, LLaMA-7B's first version: a folder or a hub id.
        vision: the vision tower, which the authors' files do not hold: a folder or a hub id. None takes the folder
            that their config.json names.
        dtype: "float16", "bfloat16" or "float32"; None keeps the source's, and float16 with a base.
        verify: load the result and let it give one greedy answer.
        progress: show a progress bar.

    Returns:
        What became of every tensor; also written to `target`/conversion.json.

    Raises:
        FileNotFoundError: a folder, a file or a shard is missing (says which).
        FileExistsError: the target exists.
        ValueError: tensors are missing, unknown or of another shape; the base is not the delta's; values are NaN or
            infinite; a file is truncated, or could run code when it is read.
        OSError: the disk is too small, or full.
    """
    from gpt4roi_nb.conversion.convert import convert

    return convert(source, target, base=base, vision=vision, dtype=dtype, verify=verify, progress=progress)


if __name__ == "__main__":
    from gpt4roi_nb.conversion.command import main

    sys.exit(main())
