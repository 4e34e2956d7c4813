"""Checks of a checkpoint's files, made before its weights are read or downloaded from a hub."""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, PreTrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gpt4roi_nb.checkpoint.generation import GENERATION_FILE, check_generation_config
from gpt4roi_nb.checkpoint.hub import CONFIG_FILE, SMALL_FILES
from gpt4roi_nb.checkpoint.shards import HOW_TO_DOWNLOAD, check_inside, weight_map
from gpt4roi_nb.config import LAYERS, GPT4RoIConfig, check_constants
from gpt4roi_nb.files import check_regular_file, read_json
from gpt4roi_nb.memory import skeleton
from gpt4roi_nb.quantization import check_stored_quantization

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
LAYOUT = (INDEX_FILE, WEIGHTS_FILE)
# Each with the entries that `GPT4RoIProcessor.save_pretrained` always writes; none of them has a default.
PROCESSOR_FILES = {
    "processor_config.json": ("image_processor", "chat_format", "closing", "num_image_tokens", "system"),
    "tokenizer.json": ("added_tokens",),
    "tokenizer_config.json": ("tokenizer_class",),
}
# transformers reads these too, if they exist.
OPTIONAL_FILES = (GENERATION_FILE, "preprocessor_config.json", "added_tokens.json", "special_tokens_map.json")
_MORE_TEMPLATES = "additional_chat_templates/*.jinja"
ADAPTER_FILE = "adapter_config.json"
# Entries that make transformers read other files than those that are checked: file, entry, what it names, what to do.
_OTHER_FILES = (
    (CONFIG_FILE, "transformers_weights", "its own weights file", f"rename the file to {WEIGHTS_FILE}"),
    (CONFIG_FILE, "configuration_files", "other configurations", f"rename the one that is meant to {CONFIG_FILE}"),
    ("tokenizer_config.json", "fast_tokenizer_files", "other tokenizers", "rename the one that is meant to "
     "tokenizer.json"),
    ("processor_config.json", "audio_tokenizer", "another model", "give a model that only reads images and text"),
    ("audio_tokenizer_config.json", "audio_tokenizer_name_or_path", "another model", "remove the file"),
)  # fmt: skip
FLOATS = ("F64", "F32", "F16", "BF16")  # safetensors' names for the dtypes that weights may have
# What transformers' configurations call the number of layers that they make a model build.
_LAYER_COUNTS = frozenset(
    (
        "num_hidden_layers",
        "num_layers",
        "layers",
        "n_layers",
        "encoder_layers",
        "decoder_layers",
        "num_decoder_layers",
        "num_global_layers",
        "conf_num_hidden_layers",
        "depth",
        "depths",
        "resampler_depth",
    )
)
_MOST_LAYERS = 2 * LAYERS[1]  # of the tower and the language model
# What transformers raises for a configuration that it cannot build a model from (found by trying).
UNBUILDABLE = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Stored:
    """A tensor in a file. dtype: safetensors' name for it, such as "F16"."""

    shape: tuple[int, ...]
    dtype: str


def check_checkpoint(path: str | os.PathLike[str]) -> dict[str, Stored]:
    """Check the files of a checkpoint without reading its weights.

    Args:
        path: the checkpoint's folder.

    Returns:
        Shape and dtype of each tensor, by name.

    Raises:
        FileNotFoundError: a file is missing; the message names it.
        ValueError: a file is truncated or not of this package (the message names it), a file is a link out of the
            folder, or the folder holds another kind of model.

    Example:
        >>> from gpt4roi_nb.checkpoint import DEMO_CHECKPOINT, check_checkpoint
        >>> stored = check_checkpoint(DEMO_CHECKPOINT)
        >>> len(stored["multi_modal_projector.weight"].shape)
        2
        >>> check_checkpoint("no-such-folder")
        Traceback (most recent call last):
        ...
        ValueError: 'no-such-folder' is not a folder; expected a checkpoint's, with config.json in it
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is not a folder; expected a checkpoint's, with {CONFIG_FILE} in it")
    check_small_files(folder)
    return check_weights(folder)


def check_small_files(folder: Path) -> dict[str, Any]:
    """Check the files beside the weights, as `check_checkpoint` does, and return the content of config.json."""
    values = check_what_is_loaded(folder, OPTIONAL_FILES)
    if (kind := values.get("model_type", "unknown")) != GPT4RoIConfig.model_type:
        raise ValueError(
            f"{str(folder)!r} holds a model of type {kind!r}, not {GPT4RoIConfig.model_type!r}; expected a "
            "checkpoint that this package saved"
        )
    for name, entries in PROCESSOR_FILES.items():
        content = _read_json(folder / name)
        if absent := [entry for entry in entries if entry not in content]:
            raise ValueError(f"{str(folder / name)!r} has no {absent[0]!r}; expected the file that this package saved")
    return values


def check_what_is_loaded(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Check those of some JSON files that exist, and anything that would make transformers read other files silently.

    Returns:
        The content of config.json.

    Raises:
        FileNotFoundError: there is no config.json.
        ValueError: a file cannot be read, is a pipe or a device, is a link out of the folder or names another file to
            read or code to run, generation_config.json or a quantisation cannot be used, or there is an adapter beside
            the weights.
    """
    for pattern in (*SMALL_FILES, _MORE_TEMPLATES):
        for file in sorted(folder.glob(pattern)):
            if file.exists() and not file.is_dir():
                check_inside(folder, str(file.relative_to(folder)))
                check_regular_file(file)
    contents = {
        name: _read_json(folder / name)
        for name in dict.fromkeys([*names, *(file for file, *_ in _OTHER_FILES)])
        if (folder / name).exists()
    }
    for name, entry, what, remedy in _OTHER_FILES:
        if entry in contents.get(name, {}):
            raise ValueError(f"{str(folder / name)!r} names {what} ({entry}); remove the entry, and {remedy}")
    if GENERATION_FILE in contents:
        check_generation_config(contents[GENERATION_FILE], folder / GENERATION_FILE)
    values = contents.get(CONFIG_FILE) or _read_json(folder / CONFIG_FILE)
    check_stored_quantization(values, str(folder / CONFIG_FILE))
    if code := _other_code(values):
        raise ValueError(
            f"{str(folder / CONFIG_FILE)!r} names other code for attention than transformers' own ({code}); remove the "
            "entry"
        )
    if (folder / ADAPTER_FILE).exists():
        raise ValueError(
            f"{str(folder)!r} holds an adapter ({ADAPTER_FILE}), which would change the weights beside it; merge it "
            "into them and save the whole model (peft: merge_and_unload), or move the adapter's files out of the folder"
        )
    return values


def _other_code(values: Mapping[str, Any]) -> str:
    """Return the first entry that names attention which is not transformers' own; "" if there is none.

    It may be a kernel on a hub, which transformers would download and run.
    """
    for name, value in values.items():
        if name in ("attn_implementation", "_attn_implementation"):
            given = value.values() if isinstance(value, Mapping) else [value]
            if any(one not in (None, "eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()) for one in given):
                return f"{name}: {reprlib.repr(value)}"
        elif isinstance(value, Mapping) and (found := _other_code(value)):
            return found
    return ""


def read_config(folder: Path, values: Mapping[str, Any], source: str, what: str) -> Any:
    """Read a checked config.json as transformers does.

    Args:
        folder: its folder.
        values: its content.
        source: the checkpoint in the message.
        what: what the message expects of it, such as "vision tower".

    Raises:
        ValueError: it describes no model.
    """
    try:
        check_constants(values)
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (*UNBUILDABLE, StrictDataclassError) as error:
        raise undescribed(source, what, error) from error


def tower_in(config: Any) -> Any:
    """Return the configuration of the vision tower in that of a whole model, such as CLIP; a tower's own as it is."""
    inner = getattr(config, "vision_config", None)
    return inner if isinstance(inner, PreTrainedConfig) else config


def undescribed(source: str, what: str, error: Exception) -> ValueError:
    """Make the error for a config.json that transformers cannot read, or cannot build a model from."""
    return ValueError(
        f"{CONFIG_FILE} of {source!r} does not describe a {what} ({type(error).__name__}: {error}); copy it again"
    )


def count_layers(values: Mapping[str, Any]) -> int:
    """Count the layers that the content of a config.json names, of all its parts together."""
    count = 0
    for name, value in values.items():
        if isinstance(value, Mapping):
            count += count_layers(value)
        elif name in _LAYER_COUNTS:
            count += sum(part for part in (value if isinstance(value, list) else [value]) if isinstance(part, int))
    return count


def check_weights(folder: Path) -> dict[str, Stored]:
    """Check the weights files without reading the weights; returns and raises as `check_checkpoint`."""
    stored: dict[str, Stored] = {}
    for name in _weight_files(folder):
        check_inside(folder, name)
        file = folder / name
        if not file.is_file():
            raise FileNotFoundError(f"the checkpoint {str(folder)!r} lacks its weights file {name} ({HOW_TO_DOWNLOAD})")
        try:
            with safe_open(file, framework="pt") as opened:
                pieces = {tensor: opened.get_slice(tensor) for tensor in opened.keys()}  # noqa: SIM118
                stored.update(
                    {tensor: Stored(tuple(piece.get_shape()), piece.get_dtype()) for tensor, piece in pieces.items()}
                )
        except SafetensorError as error:
            raise ValueError(
                f"the weights file {str(file)!r} is truncated or not a safetensors file ({error}); copy it again"
            ) from error
    return stored


def _weight_files(folder: Path) -> list[str]:
    """The files that transformers reads: where there are both a single file and an index, the single file."""
    if (folder / WEIGHTS_FILE).exists() or not (folder / INDEX_FILE).is_file():
        return [WEIGHTS_FILE]
    return sorted(set(weight_map(folder / INDEX_FILE).values()))


def _read_json(file: Path) -> dict[str, Any]:
    return read_json(file, "the checkpoint", with_mark=False)


def check_layers(path: str, values: Mapping[str, Any], stored: Sized) -> None:
    """Raise ValueError if config.json names more layers than there are tensors: layers take time to build.

    Args:
        path: how the message names the checkpoint.
        values: the content of its config.json.
        stored: the tensors in its files; empty while they are on a hub. Then the limit is what any model may have.
    """
    layers, most = count_layers(values), len(stored) or _MOST_LAYERS
    if layers > most:
        held = f"there are only {most:,} tensors" if stored else f"expected at most {most:,}"
        raise ValueError(f"{_misfit(path)}: it says {layers:,} layers, but {held}; copy both again")


def check_numbers(path: str, model: nn.Module, stored: Mapping[str, Any]) -> None:
    """Raise ValueError if config.json describes a far larger model than the files hold: it would fill the memory first.

    Args:
        path: how the message names the checkpoint.
        model: without values.
        stored: the tensors in its files, with their shapes; may be empty while they are on a hub.
    """
    expected = sum(weight.numel() for weight in model.parameters())
    held = sum(math.prod(tensor.shape) for tensor in stored.values())
    if stored and expected > 2 * held:  # what is tied may be stored once
        raise ValueError(
            f"{_misfit(path)}: it describes a model of {expected:,} numbers, but there are only {held:,}; copy both "
            "again"
        )


def check_floats(path: str, stored: dict[str, Stored], names: Iterable[str]) -> None:
    """Raise ValueError if some weights are stored as something else than floating-point numbers.

    Args:
        path: how the message names the checkpoint.
        stored: the tensors in its files.
        names: which of them are weights; those that the files lack are skipped.
    """
    whole = [name for name in names if name in stored and stored[name].dtype not in FLOATS]
    if whole:
        raise ValueError(
            f"{len(whole)} weights of {path!r} are not floating-point numbers, first {whole[0]}, stored as "
            f"{stored[whole[0]].dtype}; expected one of {', '.join(FLOATS)}: they were not saved as weights, copy them "
            "again"
        )


def _misfit(path: str) -> str:
    return f"the weights of {path!r} do not fit their config.json"


def check_stored(path: str, config: GPT4RoIConfig, stored: dict[str, Stored], *, quantised: bool) -> None:
    """Compare config.json with the weights, before any memory is allocated for the model that it describes.

    Args:
        path: how messages name the checkpoint.
        config: the content of config.json.
        stored: the tensors in the files; empty while they are on a hub.
        quantised: whether the checkpoint was saved quantised.

    Raises:
        ValueError: config.json belongs to other weights, or describes no model.
    """
    check_layers(path, config.to_dict(), stored)  # the cheapest first
    try:
        expected = skeleton(config).state_dict()
    except UNBUILDABLE as error:
        raise undescribed(path, "GPT4RoI", error) from error
    if quantised:
        return  # quantised weights have shapes and dtypes of their own
    known = {name: stored[name] for name in expected if name in stored}
    wrong = [name for name, tensor in known.items() if tensor.shape != tuple(expected[name].shape)]
    if wrong:
        raise ValueError(
            f"{_misfit(path)}: {len(wrong)} tensors have another shape than it says, first {wrong[0]}: expected "
            f"{tuple(expected[wrong[0]].shape)}, got {known[wrong[0]].shape}"
        )
    check_floats(path, stored, [name for name, tensor in expected.items() if tensor.is_floating_point()])
