"""The language model in 8 or 4 bits per weight: what is quantised, how to request it, and the bytes that remain."""

from __future__ import annotations

import copy
import logging
import reprlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from gpt4roi_nb.logs import quiet

QUANTIZATIONS = ("8bit", "4bit")
# Only the language model is quantised: the other parts are small, and region features are what this model is about.
HEAD = "lm_head"
NOT_QUANTISED = ("vision_tower", "multi_modal_projector", "region_encoder", HEAD)

# nf4 keeps one float32 scale per block of weights, and a table of the sixteen values per matrix.
BLOCK = 64
TABLE_BYTES = 16 * 4
# Sizes that bitsandbytes' kernel for processors with AVX512-BF16 packs together; other devices take any size.
PACKED_INPUTS = BLOCK
PACKED_OUTPUTS = 32


def without_advice() -> AbstractContextManager[None]:
    """Silence bitsandbytes while it is imported: it warns about an optional package that it does not need."""
    return quiet("bitsandbytes", logging.ERROR)


def check_quantization(quantization: str | None) -> None:
    """Check that a quantisation exists and can be used.

    Raises:
        ValueError: for a name other than None, "8bit" and "4bit".
        ImportError: if bitsandbytes is not installed.
    """
    if quantization is None:
        return
    if quantization not in QUANTIZATIONS:
        raise ValueError(f'quantization must be None, "8bit" or "4bit", but is {quantization!r}')
    # It warns of casts for every layer and token.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        import bitsandbytes  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'quantization="8bit" and "4bit" need the package bitsandbytes: pip install bitsandbytes'
        ) from error


def quantization_config(quantization: str, dtype: torch.dtype, skipped: Sequence[str] = NOT_QUANTISED) -> Any:
    """Make what transformers' `from_pretrained` takes.

    Args:
        quantization: "8bit" or "4bit".
        dtype: of the computation, and of parts that are not quantised.
        skipped: names of the modules that are not quantised.
    """
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_8bit=quantization == "8bit",
        load_in_4bit=quantization == "4bit",
        bnb_4bit_quant_type="nf4",  # made for weights that are normally distributed; the library's default is fp4
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(skipped),
    )


def check_stored_quantization(values: Mapping[str, Any], source: str) -> None:
    """Check what the content of a config.json says of weights that were saved quantised, also inside its parts.

    Args:
        values: the content.
        source: the file in messages.

    Raises:
        ValueError: if a quantization_config describes none that transformers knows.
    """
    from transformers.quantizers import AutoQuantizationConfig

    for name, stored in values.items():
        if name != "quantization_config":
            if isinstance(stored, Mapping):
                check_stored_quantization(stored, source)
            continue
        try:
            if stored is not None and not isinstance(stored, dict):
                raise TypeError(f"expected an object, but it is {reprlib.repr(stored)}")
            if stored is not None:
                AutoQuantizationConfig.from_dict(copy.deepcopy(stored))
        except ImportError:
            pass  # `check_quantization` or transformers says which package is missing
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"the quantization_config in {source!r} describes no quantisation that transformers knows ({error}); "
                "copy the file again"
            ) from error


def stored_quantization(config: PreTrainedConfig) -> str | None:
    """Return the quantisation of a checkpoint that was saved quantised, which transformers loads so by itself."""
    stored = described_quantization(config) or {}
    return next((name for name in QUANTIZATIONS if stored.get(f"load_in_{name}")), None)


def described_quantization(config: PreTrainedConfig) -> Any:
    """Return the quantization_config of a checkpoint's configuration, or of the language model in it; None if none."""
    text = config.get_text_config(decoder=True)
    return getattr(config, "quantization_config", None) or getattr(text, "quantization_config", None)


def quantised_linears(model: nn.Module, skipped: Sequence[str] = NOT_QUANTISED) -> dict[str, nn.Linear]:
    """Return, by name, the matrices that `quantization` would quantise.

    Args:
        model: not yet quantised.
        skipped: names of the modules that are not quantised.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and not name.startswith(tuple(skipped)) and not name.endswith(HEAD)
    }


def quantised_bytes(linear: nn.Linear, quantization: str) -> int:
    """Compute the bytes of one quantised matrix with its scales, without its bias."""
    weights = linear.in_features * linear.out_features
    if quantization == "8bit":
        return weights + 4 * linear.out_features  # int8, and one float32 scale per row
    return -(-weights // 2) + 4 * -(-weights // BLOCK) + TABLE_BYTES


def unpack(model: nn.Module) -> None:
    """Undo, in place, the layout that bitsandbytes gives 4-bit matrices on processors with AVX512-BF16.

    Its kernel for that layout has no backward pass. The next pass without gradients packs them again.
    """
    packed = [
        module
        for module in model.modules()
        if getattr(getattr(getattr(module, "weight", None), "quant_state", None), "packing_format_for_cpu", False)
    ]
    if packed:
        from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse  # type: ignore[import-untyped]
    for module in packed:
        weight: Any = module.weight
        weight.data, weight.quant_state = _convert_weight_packed_for_cpu_inverse(weight.data, weight.quant_state)


def check_packing(linears: dict[str, nn.Linear], quantization: str | None, device: torch.device) -> None:
    """Raise ValueError if 4 bits are requested on a processor whose kernel cannot take this model's widths."""
    if quantization != "4bit" or device.type != "cpu":
        return
    from bitsandbytes.functional import has_avx512bf16  # type: ignore[import-untyped]

    for name, linear in linears.items():
        if linear.in_features % PACKED_INPUTS or linear.out_features % PACKED_OUTPUTS:
            if has_avx512bf16():
                raise ValueError(
                    f'quantization="4bit" on this processor needs matrices with inputs in multiples of {PACKED_INPUTS} '
                    f"and outputs in multiples of {PACKED_OUTPUTS}, but {name} has {linear.in_features} and "
                    f'{linear.out_features}; use quantization="8bit"'
                )
            return
