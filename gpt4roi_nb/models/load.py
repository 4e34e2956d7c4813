"""`load_model`: a GPT4RoI where the checkpoint is one, else any image-text-to-text model of transformers."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from gpt4roi_nb.checkpoint.device import choose_device
from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.models.families import way_of
from gpt4roi_nb.models.prompted_model import PromptedModel
from gpt4roi_nb.quantization import check_quantization, quantization_config
from gpt4roi_nb.session.gpt4roi import GPT4RoI

_OF_HUB = ("revision", "cache_dir", "local_files_only", "token", "force_download", "subfolder")


def load_model(
    path: str | os.PathLike[str] | None = None,
    *,
    regions: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    quantization: str | None = None,
    **kwargs: Any,
) -> GPT4RoI | PromptedModel:
    """Load a region model, whichever it is.

    Args:
        path: a folder or a hub id of a GPT4RoI or of an image-text-to-text model of transformers, whose code is part of
            transformers itself. None loads the embedded demo checkpoint.
        regions: the way a box is told to a model that is no GPT4RoI: "text", "draw", "marks", "crop", "context",
            "full+crop" or "native". None takes what its makers document.
        device: where to; None takes a GPU where there is one, else the CPU.
        dtype: of the weights; None takes float32 on a CPU, and the checkpoint's own on a GPU.
        quantization: "8bit" or "4bit" (needs bitsandbytes).
        kwargs: of a hub id `revision`, `cache_dir`, `local_files_only`, `token`, `force_download`; others are passed on
            to `from_pretrained`.

    Raises:
        ValueError: a model of another kind, one whose code is not part of transformers, or a way that does not suit it.
        OSError: there is no such checkpoint.
        ImportError: a package is missing that the model or quantization needs; the message names it.

    >>> load_model().capabilities.roi_features
    True
    """
    if path is None:
        _check_way_of_gpt4roi(regions)
        return GPT4RoI.from_pretrained(device=device, dtype=dtype, quantization=quantization, **kwargs)
    hub = {name: kwargs[name] for name in _OF_HUB if name in kwargs}
    given = os.path.expanduser(os.fspath(path))
    config = _read_config(given, hub)
    if config.model_type == GPT4RoIConfig.model_type:
        _check_way_of_gpt4roi(regions)
        return GPT4RoI.from_pretrained(path, device=device, dtype=dtype, quantization=quantization, **kwargs)
    if config.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise ValueError(
            f"{given!r} is a {config.model_type}, and transformers has no image-text-to-text model of that kind; give "
            "a GPT4RoI or a model that answers questions about images"
        )
    way = way_of(config.model_type, regions)  # before the weights are read
    check_quantization(quantization)
    target = choose_device(device)
    kind: Any = dtype if dtype is not None else (torch.float32 if target.type == "cpu" else "auto")
    if quantization is not None:
        kwargs["quantization_config"] = quantization_config(quantization, torch.bfloat16 if dtype is None else kind)
        kwargs["device_map"] = {"": target}
    processor = AutoProcessor.from_pretrained(given, trust_remote_code=False, **hub)
    model = AutoModelForImageTextToText.from_pretrained(
        given, dtype=kind, trust_remote_code=False, use_safetensors=True, **kwargs
    )
    if quantization is None:
        model = model.to(target)  # type: ignore[arg-type]  # transformers declares it so
    return PromptedModel(model, processor, way, given)


def _read_config(given: str, hub: dict[str, Any]) -> Any:
    try:
        return AutoConfig.from_pretrained(given, trust_remote_code=False, **hub)
    except ValueError as error:
        raise ValueError(
            f"{given!r} is of a kind that transformers does not know without running code of the checkpoint, which "
            f"this package does not do ({str(error).splitlines()[0]})"
        ) from error


def _check_way_of_gpt4roi(regions: str | None) -> None:
    if regions is not None:
        raise ValueError(
            f"a GPT4RoI is told a box by a token of its own, pooled from the image, but regions={regions!r} came; "
            "leave it out"
        )
