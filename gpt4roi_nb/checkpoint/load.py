"""Loading a checkpoint; if it is damaged, the error names the file or tensor."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gpt4roi_nb.checkpoint.check import LAYOUT, PROCESSOR_FILES, check_small_files, check_stored, check_weights
from gpt4roi_nb.checkpoint.device import (
    SPREADING,
    check_device_map,
    choose_device,
    dtype_of_weights,
    warn_of_unused_gpu,
)
from gpt4roi_nb.checkpoint.generation import check_end_ids
from gpt4roi_nb.checkpoint.hub import CONFIG_FILE, HUB_OPTIONS, Source, locate
from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.finite import check_finite
from gpt4roi_nb.logs import no_progress_bar
from gpt4roi_nb.memory import check_memory, clear_frames
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.quantization import check_quantization, quantization_config, stored_quantization
from gpt4roi_nb.tokenizer import IMAGE_TOKEN, REGION_TOKEN

DEMO_CHECKPOINT = Path(__file__).parents[1] / "demo" / "checkpoint"

# Options that would make transformers read other weights than those that were checked.
OTHER_WEIGHTS = ("variant", "gguf_file", "use_safetensors", "transformers_weights")
_SHOWN_NAMES = 5


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    quantization: str | None = None,
    attn_implementation: str | None = None,
    device_map: str | dict[str, Any] | None = None,
    check_free_memory: bool = True,
    compiled: bool = False,
    **kwargs: Any,
) -> tuple[GPT4RoIForConditionalGeneration, GPT4RoIProcessor]:
    """Load the model and the processor of a checkpoint.

    Args:
        path: a folder or a hub id.
        compiled: whether the model will decode with compiled steps; then the comparison with free memory counts one
            more cache.
        device, dtype, quantization, attn_implementation, device_map, check_free_memory, kwargs: as in
            `GPT4RoI.from_pretrained`.

    Returns:
        The model, in evaluation mode, and its processor.

    Raises:
        FileNotFoundError: there is no such checkpoint, or it lacks a file.
        ValueError: an argument is wrong, or a file is damaged or of another model; the message names it.
        ImportError: `quantization` or `attn_implementation` needs a package that is not installed.
        MemoryError: too little memory is free.

    Example:
        >>> from gpt4roi_nb.checkpoint import DEMO_CHECKPOINT, load_checkpoint
        >>> model, processor = load_checkpoint(DEMO_CHECKPOINT, device="cpu")
        >>> processor.num_image_tokens == model.config.num_image_tokens
        True
    """
    if device is not None and device_map is not None:
        raise ValueError("give either device or device_map, not both")
    check_options(kwargs)
    check_quantization(quantization)  # before a hub is asked
    limits = None if device_map is None else check_device_map(device_map, kwargs)
    source = locate(path, "checkpoint", {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs})
    given, folder = source.name, source.folder
    config = GPT4RoIConfig.from_file(check_small_files(folder), given)
    saved_as = stored_quantization(config)
    stored = quantization or saved_as
    check_quantization(stored)
    check_stored(given, config, {} if source.is_remote else check_weights(folder), quantised=saved_as is not None)
    if device_map is None:
        target = choose_device(device)
        # Each tensor goes straight to its device: the model need not fit into this machine's own memory first.
        device_map = None if target.type == "cpu" else {"": target}
    elif isinstance(device_map, str) and device_map in SPREADING:
        warn_of_unused_gpu()
    on_cpu = {place.type for place in _devices(device_map, stored, kwargs)} == {"cpu"}
    dtype = dtype_of_weights(dtype, config, stored, on_cpu=on_cpu)
    _check_attention(attn_implementation, dtype, _devices(device_map, stored, kwargs))
    if check_free_memory and (devices := _devices(device_map, stored, kwargs)):
        check_memory(config, devices, dtype, stored, given, limits=limits, compiled=compiled)
    if source.is_remote:  # only now: weights that would not fit into memory are not downloaded
        source.get_weights([LAYOUT])
        check_stored(given, config, check_weights(folder), quantised=saved_as is not None)
    model = load_weights(
        GPT4RoIForConditionalGeneration.from_pretrained,
        source,
        dtype=dtype,
        quantization_config=None if quantization is None else quantization_config(quantization, dtype),
        attn_implementation=attn_implementation,
        device_map=device_map,
        **kwargs,
    )
    processor = load_processor(GPT4RoIProcessor.from_pretrained, source, tuple(PROCESSOR_FILES))
    _check_processor(given, processor, model.config)
    return model.eval(), processor


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ValueError for an option that makes transformers read other weights than those that were checked."""
    if unchecked := [name for name in OTHER_WEIGHTS if options.get(name) not in (None, True)]:
        raise ValueError(
            f"{unchecked[0]}={options[unchecked[0]]!r} would load other weights than the checkpoint's "
            f"{' or '.join(reversed(LAYOUT))}, which are checked; leave it out"
        )


def load_weights(
    from_pretrained: Callable[..., Any],
    source: Source,
    plain: Container[str] | None = None,
    *,
    others: bool = False,
    **options: Any,
) -> Any:
    """Load a model whose files were checked; raise ValueError if its weights do not fit it, or are no numbers.

    Args:
        from_pretrained: of transformers.
        source: its files; all of them are in the folder.
        plain: only for weights that another library has quantised: the model's tensors before quantisation. What is
            stored beside them is for that library to judge.
        others: whether there may be tensors that the model does not have, such as those of CLIP's text tower.
        options: for `from_pretrained`.
    """
    given = source.name
    with no_progress_bar(_weight_bytes(source.folder)):
        try:
            model, info = from_pretrained(
                source.folder,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # _check_tensors raises, and names them
                **options,
            )
        except (MemoryError, torch.OutOfMemoryError) as error:
            clear_frames(error)  # they hold what was loaded so far
            raise
        except torch.AcceleratorError:
            raise
        # Tensors that transformers joins into one do not fit together, or the index of the shards lacks something.
        except (RuntimeError, LookupError) as error:
            raise ValueError(
                f"the weights of {given!r} cannot be put into the model that their config.json describes ({error}); "
                "copy both again, from one place"
            ) from error
    if source.is_remote:
        model.name_or_path = model.config.name_or_path = given  # what a LoRA gives as its base model
    _check_tensors(given, {**info, "unexpected_keys": ()} if others else info, plain)
    check_finite(model, f"the weights of {given!r}")
    check_end_ids(model, given)
    return model


def load_processor(from_pretrained: Callable[..., Any], source: Source, names: Sequence[str]) -> Any:
    """Load a checkpoint's processor; raise ValueError if it cannot be read.

    Args:
        from_pretrained: of transformers.
        source: the checkpoint's files.
        names: the processor's files in the message.
    """
    try:
        return from_pretrained(source.folder)
    except ImportError:  # a package is missing, and the message names it
        raise
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise ValueError(
            f"the processor of {source.name!r} cannot be read ({error}); one of {', '.join(names)} is damaged or of "
            "another model: copy them again"
        ) from error


def _check_attention(implementation: str | None, dtype: torch.dtype, devices: Sequence[torch.device]) -> None:
    """Raise ImportError or ValueError if flash attention is wanted and cannot be used: transformers would download a
    kernel, or fail at the first question."""
    if implementation is None or not implementation.startswith("flash_attention"):
        return
    wanted = f"attn_implementation={implementation!r}"
    if importlib.util.find_spec("flash_attn") is None:
        raise ImportError(f'{wanted} needs the package flash_attn; install it, or take "sdpa"')
    if dtype.itemsize != torch.float16.itemsize or any(device.type != "cuda" for device in devices):
        places = " and ".join(map(str, devices))
        raise ValueError(
            f'{wanted} needs a GPU and dtype="bfloat16" or "float16", but the model is {dtype} on {places}; take "sdpa"'
        )


def _devices(
    device_map: str | dict[str, Any] | None, quantization: str | None, options: dict[str, Any]
) -> list[torch.device]:
    """The devices that a model may be spread over; none if the disk is one of them, since it has room for any model."""
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    if device_map is None:
        return [torch.device("cpu")]
    if isinstance(device_map, str) and device_map in SPREADING:
        if options.get("offload_folder") is not None:
            return []
        # bitsandbytes does not put part of a quantised model on the CPU.
        return gpus if gpus and quantization is not None else [*gpus, torch.device("cpu")]
    places = set(device_map.values()) if isinstance(device_map, dict) else {device_map}
    if "disk" in places:
        return []
    return sorted({torch.device(place) for place in places}, key=str)


def _check_tensors(path: str, info: dict[str, Any], plain: Container[str] | None) -> None:
    """Raise ValueError if tensors are missing, unknown or of another shape: a model must not run on guessed weights.

    What the class ties or ignores, transformers has taken out of `info`. plain: as in `load_weights`.
    """
    if plain is not None:
        missing = {name for name in info["missing_keys"] if name in plain}
        info = {"missing_keys": missing, "unexpected_keys": (), "mismatched_keys": ()}
    complaints = []
    if mismatched := info["mismatched_keys"]:
        name, came, expected = sorted(mismatched)[0]
        complaints.append(
            f"{len(mismatched)} tensors have another shape than config.json says, first {name}: "
            f"expected {tuple(expected)}, got {tuple(came)}"
        )
    for kind, what in (("missing_keys", "missing"), ("unexpected_keys", "unknown to this model")):
        if names := sorted(info[kind]):
            shown = ", ".join(names[:_SHOWN_NAMES]) + (" …" if len(names) > _SHOWN_NAMES else "")
            complaints.append(f"{len(names)} tensors are {what}: {shown}")
    if complaints:
        raise ValueError(
            f"the weights of {path!r} do not fit their config.json: {'; '.join(complaints)}. Copy both again, from one "
            "place"
        )


def _weight_bytes(folder: str | os.PathLike[str]) -> int:
    """Size of the weights files in a folder."""
    return sum(file.stat().st_size for kind in ("*.safetensors", "*.bin") for file in Path(folder).glob(kind))


def _check_processor(path: str | os.PathLike[str], processor: GPT4RoIProcessor, config: GPT4RoIConfig) -> None:
    """Raise ValueError if the tokenizer or the image processor belongs to another model."""
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
