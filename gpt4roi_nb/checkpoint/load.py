"""Loading a checkpoint, and saying which file or tensor is wrong when it is not one."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers.utils import find_adapter_config_file, logging

from gpt4roi_nb.checkpoint.shards import check_inside, weight_map
from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.files import read_json
from gpt4roi_nb.finite import check_finite
from gpt4roi_nb.memory import check_memory, clear_frames, skeleton
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.quantization import check_quantization, quantization_config, stored_quantization
from gpt4roi_nb.tokenizer import IMAGE_TOKEN, REGION_TOKEN

DEMO_CHECKPOINT = Path(__file__).parents[1] / "demo" / "checkpoint"

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# Each with entries that it has whenever `GPT4RoIProcessor.save_pretrained` wrote it; none may be guessed.
PROCESSOR_FILES = {
    "processor_config.json": ("image_processor", "chat_format", "closing", "num_image_tokens", "system"),
    "tokenizer.json": ("added_tokens",),
    "tokenizer_config.json": ("tokenizer_class",),
}
# What transformers reads as well, where it is there.
OPTIONAL_FILES = ("generation_config.json", "preprocessor_config.json", "added_tokens.json", "special_tokens_map.json")
FLOATS = ("F64", "F32", "F16", "BF16")  # safetensors' names of the dtypes that weights may have
# What transformers raises for a configuration that it cannot build a model of, found by trying.
_UNBUILDABLE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
# What says where on a hub a checkpoint lies; the processor comes from there as well.
HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "subfolder")
# With these a device_map leaves it to accelerate where each part goes.
SPREADING = ("auto", "balanced", "balanced_low_0", "sequential")
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
    **kwargs: Any,
) -> tuple[GPT4RoIForConditionalGeneration, GPT4RoIProcessor]:
    """Model and processor of a checkpoint; the arguments are those of `GPT4RoI.from_pretrained`."""
    if device is not None and device_map is not None:
        raise ValueError("give either device or device_map, and not both")
    given = os.fspath(path)
    path = os.path.expanduser(path)
    stored_as: dict[str, Stored] = {}
    if given and Path(path).exists():
        stored_as = check_checkpoint(path)
    elif os.path.isabs(path) or path.startswith(".") or path.count("/") != 1:
        raise FileNotFoundError(f"no checkpoint at {given!r}; expected a folder, or a hub id such as name/model")
    check_quantization(quantization)  # before a hub is asked
    hub_options = {name: value for name, value in kwargs.items() if name in HUB_OPTIONS}
    with _named_if_absent(path):
        config = _read_config(path, hub_options)
        check_no_adapter(path, hub_options)
    stored = quantization or stored_quantization(config)
    check_quantization(stored)
    _check_stored(given, config, stored_as, quantised=stored_quantization(config) is not None)
    if device_map is None:
        target = _device(device)
        # Each tensor goes straight to its place: the model need not fit into this machine's memory before.
        device_map = None if target.type == "cpu" else {"": target}
    if dtype is None and {place.type for place in _devices(device_map, stored, kwargs)} == {"cpu"}:
        # A CPU computes float32 faster and more exactly than float16. Quantisation is asked for to save memory.
        dtype = torch.float32 if stored is None else torch.bfloat16
    dtype = _dtype(dtype, config, stored)
    _check_attention(attn_implementation, dtype, _devices(device_map, stored, kwargs))
    if check_free_memory and (devices := _devices(device_map, stored, kwargs)):
        check_memory(config, devices, dtype, stored, given)
    with _named_if_absent(path), no_progress_bar() if Path(path) == DEMO_CHECKPOINT else nullcontext():
        try:
            loaded: Any = GPT4RoIForConditionalGeneration.from_pretrained(
                path,
                dtype=dtype,
                quantization_config=None if quantization is None else quantization_config(quantization, dtype),
                attn_implementation=attn_implementation,
                device_map=device_map,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # _check_tensors says which they are, and raises
                **kwargs,
            )
        except (MemoryError, torch.OutOfMemoryError) as error:
            clear_frames(error)  # of what was loaded so far
            raise
    model, info = loaded
    _check_tensors(path, info)
    check_finite(model, f"the weights of {given!r}")
    try:
        processor = GPT4RoIProcessor.from_pretrained(path, **hub_options)
    except Exception as error:  # the tokenizers library raises nothing narrower
        names = ", ".join(PROCESSOR_FILES)
        raise ValueError(
            f"the processor of {given!r} cannot be read ({error}); one of {names} is damaged or another model's: copy "
            "them again"
        ) from error
    _check_processor(path, processor, model.config)
    return model.eval(), processor


def _device(device: str | torch.device | None) -> torch.device:
    """The device, or a GPU where there is one, else the CPU."""
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if target.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f'device={str(target)!r} needs a GPU that PyTorch can use, and there is none; take device="cpu"'
        )
    return target


def _dtype(dtype: str | torch.dtype | None, config: GPT4RoIConfig, quantization: str | None) -> torch.dtype:
    """What the weights are loaded as: what was asked for, else the checkpoint's own, as `dtype="auto"` says too."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype is not None and dtype != "auto":
        named = getattr(torch, dtype, None) if isinstance(dtype, str) else None
        if not isinstance(named, torch.dtype):
            raise ValueError(f'dtype must be "auto", "float32", "bfloat16" or "float16", but is {dtype!r}')
        return named
    own = getattr(config, "dtype", None) or torch.float32  # whatever transformers saved says it
    if dtype is None and quantization is not None and own == torch.float32:
        return torch.float16
    return own


def _check_attention(implementation: str | None, dtype: torch.dtype, devices: Sequence[torch.device]) -> None:
    """Raises ImportError or ValueError where flash attention is asked for and cannot be had: transformers would fetch a
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
    """The devices that a model may be spread over; none where a disk is one of them, on which there is room."""
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    if device_map is None:
        return [torch.device("cpu")]
    if isinstance(device_map, str) and device_map in SPREADING:
        if options.get("offload_folder") is not None:
            return []
        # bitsandbytes does not leave a part of a quantised model on the CPU.
        return gpus if gpus and quantization is not None else [*gpus, torch.device("cpu")]
    places = set(device_map.values()) if isinstance(device_map, dict) else {device_map}
    if "disk" in places:
        return []
    return sorted({torch.device(place) for place in places}, key=str)


def _read_config(path: str, hub_options: dict[str, Any]) -> GPT4RoIConfig:
    """config.json alone, of a folder or from a hub."""
    values, _ = GPT4RoIConfig.get_config_dict(path, **hub_options)
    _check_model_type(path, values)
    try:
        return GPT4RoIConfig.from_dict(values)
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, StrictDataclassError) as error:
        raise ValueError(
            f"{CONFIG_FILE} of {path!r} describes no GPT4RoI ({type(error).__name__}: {error}); copy it again"
        ) from error


def _check_model_type(path: str, config: dict[str, Any]) -> None:
    if (kind := config.get("model_type", "unknown")) != GPT4RoIConfig.model_type:
        raise ValueError(
            f"{path!r} holds a model of the type {kind!r}, not {GPT4RoIConfig.model_type!r}; expected a "
            "checkpoint that this package saved"
        )


def check_no_adapter(path: str, hub_options: dict[str, Any]) -> None:
    """Raises ValueError where an adapter lies beside the weights: transformers would add it to them in silence."""
    if find_adapter_config_file(path, **hub_options) is not None:
        raise ValueError(
            f"{path!r} holds an adapter (adapter_config.json), which would change the weights beside it; merge it into "
            "them and save the whole model (peft: merge_and_unload), or take the adapter's files out of the folder"
        )


@dataclass(frozen=True)
class Stored:
    """A tensor of a file. dtype: safetensors' name of it."""

    shape: tuple[int, ...]
    dtype: str


def check_checkpoint(path: str | os.PathLike[str]) -> dict[str, Stored]:
    """Looks at the files of a folder without reading the weights; returns what is known of its tensors by name.

    Raises:
        FileNotFoundError: a file is missing (says which).
        ValueError: a file is truncated or foreign (says which), or lies outside, or the folder holds another model.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is a file; expected the folder of a checkpoint, with {CONFIG_FILE} in it")
    values = _read_json(folder / CONFIG_FILE)
    _check_model_type(str(folder), values)
    if "transformers_weights" in values:
        raise ValueError(
            f"{str(folder / CONFIG_FILE)!r} names a weights file of its own (transformers_weights); take the entry "
            f"out, and call the file {WEIGHTS_FILE}"
        )
    for name, entries in PROCESSOR_FILES.items():
        content = _read_json(folder / name)
        if absent := [entry for entry in entries if entry not in content]:
            raise ValueError(f"{str(folder / name)!r} has no {absent[0]!r}; expected the file that this package saved")
    for name in OPTIONAL_FILES:
        if (folder / name).exists():
            _read_json(folder / name)
    stored: dict[str, Stored] = {}
    for name in _weight_files(folder):
        check_inside(folder, name)
        file = folder / name
        if not file.is_file():
            raise FileNotFoundError(f"the checkpoint {str(folder)!r} lacks its weights file {name}")
        try:
            with safe_open(file, framework="pt") as opened:
                pieces = {tensor: opened.get_slice(tensor) for tensor in opened.keys()}  # noqa: SIM118
                stored.update(
                    {tensor: Stored(tuple(piece.get_shape()), piece.get_dtype()) for tensor, piece in pieces.items()}
                )
        except SafetensorError as error:
            raise ValueError(
                f"the weights file {str(file)!r} is truncated or no safetensors file ({error}); copy it again"
            ) from error
    return stored


def _weight_files(folder: Path) -> list[str]:
    """The files that transformers reads: of a whole file and an index, the whole file."""
    if (folder / WEIGHTS_FILE).exists() or not (folder / INDEX_FILE).is_file():
        return [WEIGHTS_FILE]
    return sorted(set(weight_map(folder / INDEX_FILE).values()))


def _read_json(file: Path) -> dict[str, Any]:
    return read_json(file, "the checkpoint")


def _check_stored(path: str, config: GPT4RoIConfig, stored: dict[str, Stored], *, quantised: bool) -> None:
    """Raises ValueError where a config.json belongs to other weights, or to none, before memory is taken for what it
    describes. stored: what lies in the files, empty where they are on a hub. quantised: whether it was saved so."""
    misfit = f"the weights of {path!r} do not fit their config.json"
    layers = sum(part.num_hidden_layers for part in (config.text_config, config.vision_config))
    if stored and layers > len(stored):  # the cheapest first: layers take time to build
        raise ValueError(f"{misfit}: it says {layers:,} layers, but there are only {len(stored):,} tensors")
    try:
        expected = skeleton(config).state_dict()
    except _UNBUILDABLE as error:
        raise ValueError(
            f"{CONFIG_FILE} of {path!r} describes no GPT4RoI ({type(error).__name__}: {error}); copy it again"
        ) from error
    if quantised:
        return  # quantised weights have shapes and dtypes of their own
    known = {name: stored[name] for name in expected if name in stored}
    wrong = [name for name, tensor in known.items() if tensor.shape != tuple(expected[name].shape)]
    if wrong:
        raise ValueError(
            f"{misfit}: {len(wrong)} tensors have another shape than it says, first {wrong[0]}: expected "
            f"{tuple(expected[wrong[0]].shape)}, came {known[wrong[0]].shape}"
        )
    floats = (name for name, tensor in expected.items() if tensor.is_floating_point())
    whole = [name for name in floats if name in known and known[name].dtype not in FLOATS]
    if whole:
        raise ValueError(
            f"{len(whole)} weights of {path!r} are no floating-point numbers, first {whole[0]}, kept as "
            f"{known[whole[0]].dtype}; expected one of {', '.join(FLOATS)}: they were not saved as weights, copy them "
            "again"
        )


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
def no_progress_bar() -> Iterator[None]:
    """A progress bar is noise for a model that loads in a moment, and in what a script prints."""
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
