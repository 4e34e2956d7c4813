"""`load_model`: a GPT4RoI where the checkpoint is one, else any image-text-to-text model of transformers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from gpt4roi_nb.checkpoint.check import (
    LAYOUT,
    OPTIONAL_FILES,
    PROCESSOR_FILES,
    UNBUILDABLE,
    Stored,
    check_floats,
    check_layers,
    check_numbers,
    check_weights,
    check_what_is_loaded,
    read_config,
    undescribed,
)
from gpt4roi_nb.checkpoint.device import choose_device, dtype_of_weights
from gpt4roi_nb.checkpoint.hub import CONFIG_FILE, HUB_OPTIONS, Source, locate
from gpt4roi_nb.checkpoint.load import check_options, load_processor, load_weights
from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.files import read_json
from gpt4roi_nb.models.families import GPT4ROI, other_way_of_gpt4roi, way_of
from gpt4roi_nb.models.images import check_image_sizes
from gpt4roi_nb.models.memory import check_prompted_memory, not_quantised, prompted_skeleton
from gpt4roi_nb.models.own_prompts import check_class
from gpt4roi_nb.models.prompted_model import PromptedModel
from gpt4roi_nb.models.ways.settings import settings_of
from gpt4roi_nb.quantization import (
    NOT_QUANTISED,
    check_quantization,
    described_quantization,
    quantization_config,
    stored_quantization,
)
from gpt4roi_nb.session.gpt4roi import GPT4RoI

# Beside config.json, the JSON files that transformers reads if they exist.
JSON_FILES = (*PROCESSOR_FILES, *OPTIONAL_FILES, "video_preprocessor_config.json", "vocab.json", "chat_template.json")
MISSPELT = {"color": "colour", "region": "regions", "way": "regions"}


def load_model(
    path: str | os.PathLike[str] | None = None,
    *,
    regions: str | None = None,
    colour: str | None = None,
    width: float | None = None,
    margin: float | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    quantization: str | None = None,
    check_free_memory: bool = True,
    **kwargs: Any,
) -> GPT4RoI | PromptedModel:
    """Load a region model, whichever it is.

    Args:
        path: a folder or a hub id of a GPT4RoI or of an image-text-to-text model of transformers, whose code is part of
            transformers itself. None loads the embedded demo checkpoint.
        regions: how a box is presented: "text", "draw", "marks", "crop", "context", "full+crop" or "native". None takes
            what the model's makers document: for a GPT4RoI its region tokens ("native"). With another way, a GPT4RoI is
            asked as other models are, as a `PromptedModel`.
        colour: of the first region's line, for "draw": red, lime, blue, yellow, fuchsia, aqua, orange, purple or gold.
            The other regions get the colours that follow. None takes red.
        width: of the line, for "draw": pixels where the longest side of an image has 336. None takes 3.
        margin: what "context" adds on each side of a box, as a share of the box's side. None takes 0.5.
        device: where the model goes; None takes a GPU if there is one, else the CPU.
        dtype: of the weights; None takes float32 on a CPU, and the checkpoint's own on a GPU.
        quantization: "8bit" or "4bit" for the language model (needs bitsandbytes).
        check_free_memory: compare what is needed with what is free before weights are fetched or read.
        kwargs: of a hub id `revision`, `cache_dir`, `local_files_only`, `token`, `force_download`; others are passed on
            to `from_pretrained`.

    Raises:
        ValueError: for a model of another kind, one whose code is not part of transformers, a damaged file or one that
            leads out of the folder, weights that do not fit config.json, a way that does not suit the model, or a
            setting that the way does not have.
        OSError: if there is no such checkpoint (`FileNotFoundError`), or its files cannot be read.
        MemoryError: if the model and a session do not fit; the message names the smallest change that would.
        TypeError: for an argument that it does not have.
        ImportError: if a package is missing that the model or quantization needs; the message names it.

    Examples:
        >>> from gpt4roi_nb import load_model
        >>> model = load_model(device="cpu")
        >>> print(model.capabilities)
        free question, several regions, follow ups, likelihood, attention, attention map, roi features
    """
    for name, meant in MISSPELT.items():
        if name in kwargs:
            raise TypeError(f"load_model has no {name!r}; did you mean {meant!r}?")
    as_given: dict[str, Any] = {"device": device, "dtype": dtype, "quantization": quantization}
    as_given["check_free_memory"] = check_free_memory
    settings: dict[str, Any] = {"colour": colour, "width": width, "margin": margin}
    if path is None:
        return _gpt4roi(None, regions, settings, **as_given, **kwargs)
    hub = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
    source = locate(path, "checkpoint", hub)
    model_type = model_type_of(source.folder)
    if model_type in ("", GPT4RoIConfig.model_type):  # if the file is damaged, this raises the right error
        gpt4roi = _gpt4roi(path, regions, settings, **as_given, **kwargs)
        gpt4roi.revision = source.revision
        return gpt4roi
    given = os.path.expanduser(source.name)
    for name in hub:
        del kwargs[name]
    check_options(kwargs)
    kwargs.pop("use_safetensors", None)
    values = check_what_is_loaded(source.folder, JSON_FILES)
    check_kind(model_type, given)
    stored = {} if source.is_remote else check_weights(source.folder)
    check_layers(given, values, stored)
    config = read_config(source.folder, values, given, model_type)
    way = way_of(config.model_type, regions)  # before the weights are read
    settings_of(way, **settings)
    saved_as = stored_quantization(config)
    bits = quantization or saved_as
    check_quantization(bits)
    target = choose_device(device)
    kind = dtype_of_weights(dtype, config, bits, on_cpu=target.type == "cpu")
    model = _built(config, given)
    is_quantised = described_quantization(config) is not None
    if not is_quantised:
        _check_stored(given, model, stored)
    if check_free_memory:
        check_prompted_memory(config, model, target, kind, bits, given)
    if quantization is not None:
        skipped = NOT_QUANTISED if model is None else not_quantised(model)
        kwargs["quantization_config"] = quantization_config(quantization, kind, skipped)
    if bits is not None or target.type != "cpu":
        kwargs["device_map"] = {"": target}  # each tensor goes straight to its place
    processor = read_processor(source)
    model_class = cast("type[PreTrainedModel]", MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)])
    check_class(config, model_class, processor)  # before weights are fetched
    if source.is_remote:
        _fetch(source, values, model, is_quantised)
    loaded = load_weights(
        AutoModelForImageTextToText.from_pretrained,
        source,
        plain=_plain_names(model) if is_quantised and saved_as is None else None,
        dtype=kind,
        trust_remote_code=False,
        use_safetensors=True,
        **kwargs,
    )
    made = PromptedModel(loaded, processor, way, given).with_regions(way, **settings)
    made.check_free_memory = check_free_memory
    made.revision = source.revision
    return made


def _gpt4roi(
    path: str | os.PathLike[str] | None, regions: str | None, settings: dict[str, Any], **options: Any
) -> GPT4RoI | PromptedModel:
    way = other_way_of_gpt4roi(regions)  # before the weights are read
    settings_of(way or GPT4ROI.way, **settings)
    gpt4roi = GPT4RoI.from_pretrained(path, **options)
    return gpt4roi if way is None else PromptedModel.of(gpt4roi, way).with_regions(way, **settings)


def model_type_of(folder: Path) -> str:
    """What config.json says that a model is; "" if it says nothing that can be read."""
    try:
        return str(read_json(folder / CONFIG_FILE).get("model_type", ""))
    except (OSError, ValueError):
        return ""


def check_kind(model_type: str, given: str) -> None:
    """Raise ValueError for a checkpoint of a kind that is no image-text-to-text model of transformers.

    Args:
        model_type: of its config.json; "" if that says nothing that can be read.
        given: the checkpoint in the message.
    """
    if not model_type:
        raise ValueError(f"{given!r} lacks config.json, or its config.json does not say what kind of model it is")
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"{given!r} is a {model_type}, a kind that transformers does not know without running code of the "
            "checkpoint, which this package does not do; give a model whose code is part of transformers"
        )
    if model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise ValueError(
            f"{given!r} is a {model_type}, and transformers has no image-text-to-text model of that kind; give a "
            "GPT4RoI or a model that answers questions about images (docs/authors_weights.md converts the authors' "
            "files)"
        )


def read_processor(source: Source) -> Any:
    """Load the processor of a checked checkpoint; raise ValueError if it cannot be read, or is only one of text."""
    made = load_processor(partial(AutoProcessor.from_pretrained, trust_remote_code=False), source, JSON_FILES)
    if not isinstance(made, ProcessorMixin):
        raise ValueError(
            f"the files of {source.name!r} give a {type(made).__name__}, and no processor of images and text; one of "
            f"{', '.join(JSON_FILES)} is missing or damaged: copy them again"
        )
    check_image_sizes(made, source.name)
    return made


def _built(config: Any, given: str) -> nn.Module | None:
    """Build the model without values; None for a class that cannot be built so."""
    try:
        return prompted_skeleton(config)
    except UNBUILDABLE as error:
        raise undescribed(given, config.model_type, error) from error


def _plain_names(model: nn.Module | None) -> set[str]:
    return set() if model is None else set(model.state_dict())


def _weights(stored: Iterable[str], model: nn.Module | None) -> list[str]:
    """Those of some tensors that are weights, since a parameter of the model ends with the same word.

    Whole names may differ: transformers renames what was saved with an earlier version.
    """
    parameters = ["weight", "bias"] if model is None else [name for name, _ in model.named_parameters()]
    words = {name.rpartition(".")[2] for name in parameters}
    return [name for name in stored if name.rpartition(".")[2] in words]


def _check_stored(given: str, model: nn.Module | None, stored: dict[str, Stored]) -> None:
    check_floats(given, stored, _weights(stored, model))
    if model is not None:
        check_numbers(given, model, stored)


def _fetch(source: Source, values: dict[str, Any], model: nn.Module | None, is_quantised: bool) -> None:
    """Download a hub id's weights, and check them as a folder's."""
    source.get_weights([LAYOUT])
    stored = check_weights(source.folder)
    check_layers(source.name, values, stored)
    if not is_quantised:
        _check_stored(source.name, model, stored)
