"""How much memory a model and its work need, from the configuration alone, and how much is free.

Weights, keys and values are computed; everything else that a prompt takes is a measured headroom (`HEADROOM`). A
session is the work of one prompt about one image; evaluation, `describe` and capture need more (`work_bytes`).

1 GB is 10⁹ bytes.
"""

from __future__ import annotations

import copy
import gc
import math
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.quantization import NOT_QUANTISED, QUANTIZATIONS, check_packing, quantised_bytes, quantised_linears
from gpt4roi_nb.winograd import filter_bytes

UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))

# A question that names each region once: the opening and its other words, then "region12 <bbox>, " per region.
TEXT_TOKENS = 96
TOKENS_PER_REGION = 6
ANSWER_TOKENS = 256  # the default maximum of `RegionSession.ask`
LEAST_LENGTH = 512  # of a compiled answer's cache, in tokens

# What a session takes besides its keys and values, in numbers of the model's dtype: the encoded image, region tokens,
# room that the cache allocates ahead, and temporary memory of a forward pass. Measured on GPT4RoI-7B with 64 regions
# (131 million, half of them with one region); tests/test_memory.py measures it again. A smaller model takes less, at
# most as much as its weights.
HEADROOM = 140_000_000
HEADROOM_REGIONS = 64

# What a layer keeps for the backward pass, in float32 where a norm computes in it: numbers of the model's dtype per
# token, in widths of the layer and of its MLP. Counted on LLaMA's layers; tests/test_memory.py counts again.
GRAPH_WIDTHS, GRAPH_MLP_WIDTHS = 16, 5

# Copies made of a matrix while it is quantised, in bytes per weight. On a CPU: measured with bitsandbytes 0.50 on
# matrices of 4096 × 11008; on a GPU, its kernels need only the original.
QUANTISING = {("8bit", "cpu"): 10, ("4bit", "cpu"): 32, ("8bit", "cuda"): 4, ("4bit", "cuda"): 4}

# Messages of out-of-memory errors without a class of their own: torch on a CPU, CUDA's driver, Apple's GPUs, cuBLAS,
# cuDNN.
OUT_OF_MEMORY = (
    *("can't allocate memory", "CUDA error: out of memory", "MPS backend out of memory"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "HOST_ALLOCATION_FAILED"),
)

CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
# Version 2, then version 1: folder, limit, use, and the lines of memory.stat that the kernel can reclaim.
CGROUP_FILES = (
    ("", "memory.max", "memory.current", ("inactive_file", "active_file")),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)


def skeleton(config: GPT4RoIConfig) -> GPT4RoIForConditionalGeneration:
    """Make the model without its numbers, in 10 to 40 ms: every tensor has a shape and takes no memory."""
    with torch.device("meta"):
        return GPT4RoIForConditionalGeneration(copy.deepcopy(config))


def weight_bytes(
    model: nn.Module,
    dtype: torch.dtype,
    quantization: str | None = None,
    skipped: Sequence[str] = NOT_QUANTISED,
) -> int:
    """Compute the bytes of a model's weights once loaded.

    Args:
        model: a `skeleton`, or a model that is not quantised.
        dtype: of the weights that are not quantised.
        quantization: "8bit", "4bit" or None.
        skipped: names of the modules that are not quantised.
    """
    total = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    if quantization is not None:
        for linear in quantised_linears(model, skipped).values():
            total += quantised_bytes(linear, quantization) - linear.weight.numel() * dtype.itemsize
    return total


def loading_bytes(model: nn.Module, quantization: str | None, device_type: str) -> int:
    """Compute the bytes that loading needs temporarily besides the weights."""
    if quantization is None:
        return 0
    a_weight = QUANTISING.get((quantization, device_type), QUANTISING[quantization, "cuda"])
    return a_weight * max((linear.weight.numel() for linear in quantised_linears(model).values()), default=0)


def token_bytes(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Compute the bytes of one token's keys and values."""
    text: Any = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return text.num_hidden_layers * 2 * heads * head_dim * dtype.itemsize


def prompt_tokens(config: PreTrainedConfig, regions: int = 1) -> int:
    """Count the tokens of a question that names this many regions, by TEXT_TOKENS and TOKENS_PER_REGION."""
    return config.num_image_tokens + TEXT_TOKENS + regions * TOKENS_PER_REGION


def within_context(config: PreTrainedConfig, prompt: int, answer: int) -> int:
    """Count the tokens of a prompt and its answer, which ends where the model's context does."""
    return min(prompt + answer, max(config.text_config.max_position_embeddings, prompt))


def fixed_length(tokens: int) -> int:
    """Count the tokens of a compiled answer's second cache: a power of two, so that few sizes are compiled."""
    return max(LEAST_LENGTH, 1 << (tokens - 1).bit_length())


def fixed_cache_bytes(config: GPT4RoIConfig, dtype: torch.dtype) -> int:
    """Compute the bytes of that cache, for a question that names one region and its answer of ANSWER_TOKENS."""
    tokens = within_context(config, prompt_tokens(config), ANSWER_TOKENS)
    return fixed_length(tokens) * token_bytes(config, dtype)


def cache_bytes(config: GPT4RoIConfig, dtype: torch.dtype, regions: int = 1) -> int:
    """Compute the bytes of all keys and values: of a question that names `regions`, and its answer of ANSWER_TOKENS."""
    return within_context(config, prompt_tokens(config, regions), ANSWER_TOKENS) * token_bytes(config, dtype)


def session_bytes(model: nn.Module, dtype: torch.dtype, regions: int = 1, quantization: str | None = None) -> int:
    """Compute the most bytes that a session takes besides the weights: `cache_bytes` and a headroom.

    In float32 also the filters that the region encoder keeps on a CPU.

    Args:
        model: a `skeleton`, or a GPT4RoI that is not quantised.
        dtype: of the model.
        regions: how many the question names.
        quantization: "8bit", "4bit" or None.
    """
    config: GPT4RoIConfig = model.config  # type: ignore[assignment]  # transformers declares the base class
    region = config.region_config
    kept = filter_bytes(region.num_levels, region.hidden_size) if dtype == torch.float32 else 0
    return cache_bytes(config, dtype, regions) + headroom_bytes(dtype, weight_bytes(model, dtype, quantization)) + kept


def headroom_bytes(dtype: torch.dtype, weights: int) -> int:
    """Compute the bytes that a prompt about one image takes besides its keys and values. weights: bytes."""
    return min(HEADROOM * dtype.itemsize, weights)


def work_bytes(
    model: PreTrainedModel,
    *,
    rows: int = 1,
    images: int = 1,
    tokens: int,
    cached: int,
    logits: int = 1,
    headroom_tokens: int | None = None,
) -> int:
    """Compute the most bytes that work takes besides a loaded model's weights: keys, values, logits and a headroom.

    Args:
        model: as it is in memory, quantised or not.
        rows: prompts in a batch.
        images: images encoded together.
        tokens: length of the longest row.
        cached: tokens whose keys and values are held at one time, over all rows and copies.
        logits: positions per row whose logits are computed at one time.
        headroom_tokens: length of a row beyond which the headroom grows; None takes that of a GPT4RoI's prompt of
            HEADROOM_REGIONS.
    """
    text: Any = model.config.get_text_config(decoder=True)
    longer = max(1.0, tokens / (headroom_tokens or prompt_tokens(model.config, HEADROOM_REGIONS)))
    weights = sum(weight.nbytes for weight in weights_of(model))
    headroom = headroom_bytes(model.dtype, weights) * max(rows, images) * longer
    # As computed, in float32, and their logarithms.
    each_logit = model.dtype.itemsize + 2 * torch.float32.itemsize
    scores = rows * logits * text.vocab_size * each_logit
    return cached * token_bytes(model.config, model.dtype) + scores + math.ceil(headroom)


def map_bytes(config: PreTrainedConfig, dtype: torch.dtype, tokens: int) -> int:
    """Compute the bytes of one layer's weights in eager attention, which are in float32 and in the model's dtype."""
    return config.text_config.num_attention_heads * tokens**2 * (torch.float32.itemsize + dtype.itemsize)


def graph_bytes(model: GPT4RoIForConditionalGeneration, tokens: int) -> int:
    """Compute the bytes that an eager pass of one row keeps for gradients, and those of all attention gradients.

    Each layer keeps its attention weights twice, as `map_bytes` counts them, and some numbers per token.
    """
    config: GPT4RoIConfig = model.config  # type: ignore[assignment]  # transformers declares the base class
    text, size = config.text_config, model.dtype.itemsize
    maps = map_bytes(config, model.dtype, tokens)
    gradients = text.num_attention_heads * tokens**2 * size
    mlp = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    kept = tokens * (GRAPH_WIDTHS * text.hidden_size + GRAPH_MLP_WIDTHS * mlp) * size
    layer = maps + gradients + kept
    return text.num_hidden_layers * layer + 2 * maps  # two more for the current layer


def modules_of(model: nn.Module) -> list[nn.Module]:
    """List a model's modules. `model.modules()` takes four times as long, and this is called for every token."""
    found = [model]
    for module in found:  # grows during the loop
        found += [child for child in module._modules.values() if child is not None]
    return found


def weights_of(model: nn.Module) -> list[Tensor]:
    """List a model's weights, each once, as `model.parameters()` does in more time."""
    several = [weight for module in modules_of(model) for weight in module._parameters.values() if weight is not None]
    return list({id(weight): weight for weight in several}.values())


def devices_of(model: nn.Module) -> list[torch.device]:
    """Return the devices that hold a model's weights, except weights left on disk."""
    return list(dict.fromkeys(weight.device for weight in weights_of(model) if not weight.is_meta))


def sum_free(devices: Sequence[torch.device], limits: Mapping[torch.device, int] | None = None) -> int | None:
    """Add up the bytes free on some devices, of each at most its limit; None if a device does not report them."""
    each = [free_bytes(device) for device in devices]
    if limits is not None:
        allowed = [limits.get(device, 0) for device in devices]
        each = [None if size is None else min(size, most) for size, most in zip(each, allowed, strict=True)]
    return None if None in each else sum(size for size in each if size is not None)


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes that a model could take on a device now; None if that is unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type in ("cpu", "mps"):
        return min([psutil.virtual_memory().available, *_cgroup_free()])
    return None


def _cgroup_free() -> Iterator[int]:
    """Yield what each control group of this process may still take: containers and hubs limit memory with them.

    Memory used for cached files counts as used there, but the kernel reclaims it when needed.
    """
    try:
        groups = [line.split(":", 2)[1:] for line in OWN_CGROUP.read_text().splitlines()]
    except OSError:
        return
    for controllers, own in groups:
        for folder, limit, used, given_up in CGROUP_FILES:
            if folder not in controllers.split(","):
                continue
            group = CGROUP / folder / own.lstrip("/")
            # In a container, the path may be the host's, of which only the top is visible.
            for place in (group, *group.parents):
                if not place.is_relative_to(CGROUP):
                    break
                try:
                    room = int((place / limit).read_text()) - int((place / used).read_text())
                    stat = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
                except (OSError, ValueError):  # absent, or "max"
                    continue
                yield max(0, room + sum(int(stat.get(name, 0)) for name in given_up))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def clear_frames(error: BaseException | None) -> None:
    """Empty the frames of a handled error: their variables would keep tensors alive as long as the error is known."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        traceback.clear_frames(error.__traceback__)  # leaves frames that still run
        error = error.__cause__ or error.__context__
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class LoadOption:
    """One way to load a model, and the bytes that it needs."""

    words: str
    needed: int
    free: int


def check_memory(
    config: GPT4RoIConfig,
    devices: Sequence[torch.device],
    dtype: torch.dtype,
    quantization: str | None = None,
    source: str | os.PathLike[str] = "",
    *,
    limits: Mapping[torch.device, int] | None = None,
    compiled: bool = False,
) -> None:
    """Check that a model and a session with one region fit into the free memory of the devices together.

    Args:
        config: of the model.
        devices: where the weights go.
        dtype: of the weights that are not quantised.
        quantization: "8bit", "4bit" or None.
        source: the model's name in the message.
        limits: bytes that may be taken per device; none of a device that is not listed. None: all that is free.
        compiled: whether to count the second cache that compiled steps write to.

    Raises:
        MemoryError: if it does not fit; the message names the smallest change of settings that would.
        ValueError: if the processor cannot compute with this quantisation of this model.
    """
    model = skeleton(config)
    if len(devices) == 1:
        check_packing(quantised_linears(model) if quantization else {}, quantization, devices[0])
    free = sum_free(devices, limits)
    needed = _needed(model, dtype, quantization, devices[0].type, compiled)
    if free is None or needed <= free:
        return
    session = _session(model, dtype, quantization, compiled)
    weights = weight_bytes(model, dtype, quantization)
    raise MemoryError(
        f"{os.fspath(source) or 'this model'!r} needs {in_words(needed)}"
        f" ({needs_in_words(weights, session, dtype, quantization, compiled)}), but {in_words(free)} are free on"
        f" {' and '.join(map(str, devices))}{'' if limits is None else ', within max_memory'};"
        f" {advice(_options(model, devices, dtype, quantization, free, compiled))}"
    )


def needs_in_words(
    weights: int, session: int, dtype: torch.dtype, quantization: str | None, compiled: bool = False
) -> str:
    """Say what a model and a session take, both in bytes."""
    kind = f"in {quantization.replace('bit', ' bits')}" if quantization else f"as {dtype_name(dtype)}"
    return (
        f"{in_words(weights)} for the weights {kind}"
        f" and {in_words(session)} for a {'compiled ' if compiled else ''}session"
    )


def advice(options: Sequence[LoadOption]) -> str:
    """Name the first way to load a model that fits; if none does, the one that needs the least."""
    for option in options:
        if option.needed <= option.free:
            return f"the smallest change that fits: {option.words}, which needs {in_words(option.needed)}"
    least = min(options, key=lambda option: option.needed)
    return (
        f"nothing smaller fits either ({least.words} needs {in_words(least.needed)}): free memory"
        " (gpt4roi.unload(), other notebooks), or use a smaller model or a larger machine"
    )


def settings_in_words(dtype: torch.dtype, quantization: str | None) -> str:
    """Write the keywords that give a dtype and a quantisation."""
    return (f'quantization="{quantization}", ' if quantization else "") + f'dtype="{dtype_name(dtype)}"'


def half_of(dtype: torch.dtype) -> torch.dtype:
    """Return a dtype of 16 bits: the given one, else bfloat16."""
    return dtype if dtype.itemsize == torch.bfloat16.itemsize else torch.bfloat16


def _session(model: nn.Module, dtype: torch.dtype, quantization: str | None, compiled: bool) -> int:
    config: GPT4RoIConfig = model.config  # type: ignore[assignment]  # transformers declares the base class
    fixed = fixed_cache_bytes(config, dtype) if compiled else 0
    return session_bytes(model, dtype, quantization=quantization) + fixed


def _needed(
    model: nn.Module, dtype: torch.dtype, quantization: str | None, device_type: str, compiled: bool = False
) -> int:
    session = _session(model, dtype, quantization, compiled)
    loading = loading_bytes(model, quantization, device_type)
    return weight_bytes(model, dtype, quantization) + max(session, loading)


def _options(
    model: nn.Module,
    devices: Sequence[torch.device],
    dtype: torch.dtype,
    quantization: str | None,
    free: int,
    compiled: bool,
) -> list[LoadOption]:
    """Smaller ways to load the model, from the smallest change to the largest."""
    cpu = torch.device("cpu")
    places = [("", devices[0], free)]
    if cpu not in devices and (in_ram := free_bytes(cpu)) is not None:
        places.append(('device="cpu", ', cpu, in_ram))
    options = []
    if compiled:
        options.append(LoadOption("compile=False", _needed(model, dtype, quantization, devices[0].type), free))
    for where, device, room in places:
        kind = torch.bfloat16 if device == cpu else half_of(dtype)  # convolutions in float16 take minutes on a CPU
        for bits in (None, *QUANTIZATIONS):
            plain = "compile=False, " if compiled and bits else ""  # quantised models cannot be compiled
            words = plain + where + settings_in_words(kind, bits)
            needed = _needed(model, kind, bits, device.type, compiled and not bits)
            options.append(LoadOption(words, needed, room))
    return options


def dtype_name(dtype: torch.dtype) -> str:
    """Write a dtype as its users know it: "float16"."""
    return str(dtype).removeprefix("torch.")


def in_words(size: float) -> str:
    """Format bytes with three significant digits; 1 GB is 10⁹ bytes."""
    unit, name = next((each for each in UNITS if size >= each[0]), UNITS[-1])
    digits = 2 - math.floor(math.log10(max(size / unit, 1)))
    return f"{size / unit:.{max(digits, 0)}f} {name}"
