"""How much memory a model and a session need, computed from the configuration alone, and how much is free.

`python -m gpt4roi_nb.memory` prints the tables of docs/memory.md. 1 GB is 10⁹ bytes.
"""

from __future__ import annotations

import argparse
import copy
import gc
import math
import os
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import nn

from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.inference.cache import ROOM
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.quantization import QUANTIZATIONS, check_packing, quantised_bytes, quantised_linears

UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))

# A question that names each region once: the opening and its other words, then "region12 <bbox>, " for each.
TEXT_TOKENS = 96
TOKENS_PER_REGION = 6
ANSWER_TOKENS = 256  # what `RegionSession.ask` writes at most, unless told otherwise

# Copies that a matrix passes through while it is quantised, in bytes a weight. On a CPU: measured with bitsandbytes
# 0.50 on matrices of 4096 × 11008; on a GPU its kernels need the original alone.
QUANTISING = {("8bit", "cpu"): 10, ("4bit", "cpu"): 32, ("8bit", "cuda"): 4, ("4bit", "cuda"): 4}

CPU_ALLOCATOR = "can't allocate memory"  # what torch says on a CPU, in a plain RuntimeError

CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
# Version 2, then version 1 of the same: folder, limit, use, and the lines of memory.stat that can be given up.
CGROUP_FILES = (
    ("", "memory.max", "memory.current", ("inactive_file", "active_file")),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)


@dataclass(frozen=True)
class SessionMemory:
    """Bytes of a session beside the weights.

    image: the encoded image: image tokens, the region levels' hidden states, fused maps.
    regions: the region tokens.
    cache: keys and values of a prompt with these regions and an answer.
    encoding: what the session needs while its image is encoded, `image` included.
    answering: what a question needs for the moment, beside `kept`.
    """

    image: int
    regions: int
    cache: int
    encoding: int
    answering: int

    @property
    def kept(self) -> int:
        return self.image + self.regions + self.cache

    @property
    def peak(self) -> int:
        return max(self.encoding, self.kept + self.answering)


def skeleton(config: GPT4RoIConfig) -> GPT4RoIForConditionalGeneration:
    """The model without its numbers: every tensor has a shape and takes no memory. 10 to 40 milliseconds."""
    with torch.device("meta"):
        return GPT4RoIForConditionalGeneration(copy.deepcopy(config))


def weight_bytes(model: nn.Module, dtype: torch.dtype, quantization: str | None = None) -> int:
    """Bytes of a model's weights once it is loaded. model: a `skeleton`, or any GPT4RoI that is not quantised."""
    total = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    if quantization is not None:
        for linear in quantised_linears(model).values():
            total += quantised_bytes(linear, quantization) - linear.weight.numel() * dtype.itemsize
    return total


def loading_bytes(model: nn.Module, quantization: str | None, device_type: str) -> int:
    """Bytes that loading needs for a moment beside the weights."""
    if quantization is None:
        return 0
    a_weight = QUANTISING.get((quantization, device_type), QUANTISING[quantization, "cuda"])
    return a_weight * max((linear.weight.numel() for linear in quantised_linears(model).values()), default=0)


def session_bytes(
    config: GPT4RoIConfig, dtype: torch.dtype, regions: int = 1, quantization: str | None = None
) -> SessionMemory:
    """Bytes of a session in which one question names so many regions, and is answered in `ANSWER_TOKENS`.

    Counted are the tensors of a pass with SDPA; what a convolution uses inside is the device's own affair.
    """
    text, vision, region = config.text_config, config.vision_config, config.region_config
    size, full = dtype.itemsize, torch.float32.itemsize
    width, patches = text.hidden_size, config.num_image_tokens
    inner = getattr(text, "intermediate_size", None) or 4 * width
    tower_inner = getattr(vision, "intermediate_size", None) or 4 * vision.hidden_size
    # Hidden states are kept whole: with CLS where the tower has one, which one token more accounts for.
    hidden = (patches + 1) * vision.hidden_size * size
    levels = len({*config.feature_layers})
    maps = [region.hidden_size * side**2 for side in config.level_sizes]  # numbers in each fused map
    wide = [vision.hidden_size * side**2 for side in config.level_sizes]  # and in what is projected to it
    image = patches * width * size + levels * hidden + sum(maps) * size

    pixels = 3 * vision.image_size**2 * full
    # All hidden states, one more on the way, and three tensors of the widest layer; the pixels in the tower's dtype.
    tower = (vision.num_hidden_layers + 2) * hidden + 3 * (patches + 1) * tower_inner * size
    tower += 0 if size == full else 3 * vision.image_size**2 * size
    # A level is resized in float32 and cast back; coordinates are appended in a copy; the convolution writes a third.
    projecting = max(
        sum(maps[:level]) * size + max(wide[level] * (full + size), 2 * wide[level] * size + maps[level] * size)
        for level in range(len(maps))
    )
    # Two of each map (before and after mixing), the new ones so far, and two more of the level at work.
    rounds = max(2 * sum(maps) * size + sum(maps[:level]) * size + 2 * maps[level] * size for level in range(len(maps)))
    encoding = pixels + max(tower, levels * hidden + patches * width * size + max(projecting, rounds))

    grid = regions * region.hidden_size * region.output_size**2  # numbers in the RoIAlign grids of one level
    cast = 0 if size == full else 1  # RoIAlign computes in float32: half precision needs copies
    pooling = max(
        level * grid * size + grid * full + max(cast * maps[level] * full, cast * grid * size)
        for level in range(len(maps))
    )
    combining = (len(maps) + 3) * grid * size

    prompt = patches + TEXT_TOKENS + regions * TOKENS_PER_REGION
    tokens = min(prompt + ANSWER_TOKENS, max(text.max_position_embeddings, prompt)) + ROOM
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head = getattr(text, "head_dim", None) or width // text.num_attention_heads
    a_token = 2 * heads * head * size  # its key and value in one layer
    reading = 3 * prompt * (inner + width) * size + 4 * text.vocab_size * full  # tensors of a layer; one row of logits
    if quantization == "4bit":
        reading += inner * width * size  # a matrix at a time is expanded
    return SessionMemory(
        image=image,
        regions=regions * width * size,
        cache=text.num_hidden_layers * tokens * a_token,
        encoding=encoding,
        answering=max(pooling, combining, reading),
    )


def free_bytes(device: torch.device) -> int | None:
    """Bytes that a model could take on a device now; None where that cannot be told."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type in ("cpu", "mps"):
        return min([psutil.virtual_memory().available, *_cgroup_free()])
    return None


def _cgroup_free() -> Iterator[int]:
    """What each control group that this process is in may still take: a container or a hub limits memory by one.

    What the kernel has read from files counts as used there, but it is given up when memory is asked for.
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
            # In a container the path may be the host's, of which only the top is visible.
            for place in (group, *group.parents):
                if not place.is_relative_to(CGROUP):
                    break
                try:
                    room = int((place / limit).read_text()) - int((place / used).read_text())
                    stat = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
                except (OSError, ValueError):  # not there, or "max"
                    continue
                yield max(0, room + sum(int(stat.get(name, 0)) for name in given_up))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or CPU_ALLOCATOR in str(error)


def clear_frames(error: BaseException | None) -> None:
    """Empties the frames of an error that is over: their variables would keep tensors alive as long as it is known."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        traceback.clear_frames(error.__traceback__)  # those that still run are left as they are
        error = error.__cause__ or error.__context__
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class _Setting:
    """One way to load a model, and what it takes."""

    words: str
    needed: int
    free: int


def check_memory(
    config: GPT4RoIConfig,
    devices: Sequence[torch.device],
    dtype: torch.dtype,
    quantization: str | None = None,
    source: str | os.PathLike[str] = "",
) -> None:
    """Compares what is free on the devices together with what a model and a session with one region need.

    Raises:
        MemoryError: where it does not fit; the message names the smallest change of setting that would.
        ValueError: where the processor cannot compute with this quantisation of this model.
    """
    model = skeleton(config)
    if len(devices) == 1:
        check_packing(quantised_linears(model) if quantization else {}, quantization, devices[0])
    free = _sum_free(devices)
    needed = _needed(model, dtype, quantization, devices[0].type)
    if free is None or needed <= free:
        return
    session = session_bytes(config, dtype, quantization=quantization).peak
    raise MemoryError(
        f"{os.fspath(source) or 'this model'!r} needs {in_words(needed)}"
        f" ({in_words(weight_bytes(model, dtype, quantization))} for the weights"
        f" {'in ' + quantization.replace('bit', ' bits') if quantization else 'as ' + _name(dtype)}"
        f" and {in_words(session)} for a session), but {in_words(free)} are free on"
        f" {' and '.join(map(str, devices))}; {_advice(model, devices, dtype, quantization, free)}"
    )


def _needed(
    model: GPT4RoIForConditionalGeneration, dtype: torch.dtype, quantization: str | None, device_type: str
) -> int:
    config: GPT4RoIConfig = model.config  # type: ignore[assignment]  # transformers declares the base class
    session = session_bytes(config, dtype, quantization=quantization).peak
    loading = loading_bytes(model, quantization, device_type)
    return weight_bytes(model, dtype, quantization) + max(session, loading)


def _sum_free(devices: Sequence[torch.device]) -> int | None:
    each = [free_bytes(device) for device in devices]
    return None if None in each else sum(size for size in each if size is not None)


def _advice(
    model: GPT4RoIForConditionalGeneration,
    devices: Sequence[torch.device],
    dtype: torch.dtype,
    quantization: str | None,
    free: int,
) -> str:
    """The first of the settings, from the smallest change to the largest, that would fit."""
    half = dtype if dtype.itemsize == torch.bfloat16.itemsize else torch.bfloat16
    cpu = torch.device("cpu")
    places = [("", devices[0], free)]
    if cpu not in devices and (in_ram := free_bytes(cpu)) is not None:
        places.append(('device="cpu", ', cpu, in_ram))
    settings = []
    for where, device, room in places:
        kind = torch.bfloat16 if device == cpu else half  # a convolution in float16 takes minutes on a CPU
        for bits in (None, *QUANTIZATIONS):
            words = where + (f'quantization="{bits}", ' if bits else "") + f'dtype="{_name(kind)}"'
            settings.append(_Setting(words, _needed(model, kind, bits, device.type), room))
    for setting in settings:
        if setting.needed <= setting.free:
            return f"the smallest change that fits: {setting.words}, which needs {in_words(setting.needed)}"
    least = min(settings, key=lambda setting: setting.needed)
    return (
        f"nothing smaller fits either ({least.words} needs {in_words(least.needed)}): give memory back"
        " (gpt4roi.unload(), other notebooks), or take a smaller model or a larger machine"
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def in_words(size: float) -> str:
    """Bytes as a person reads them: three figures, 1 GB being 10⁹ bytes."""
    unit, name = next((each for each in UNITS if size >= each[0]), UNITS[-1])
    digits = 2 - math.floor(math.log10(max(size / unit, 1)))
    return f"{size / unit:.{max(digits, 0)}f} {name}"


def tables(config: GPT4RoIConfig, dtype: torch.dtype = torch.float16, regions: Sequence[int] = (1, 8, 64)) -> str:
    """Markdown: the weights and sessions in every setting, and what a session consists of."""
    model = skeleton(config)
    count_of = "a session with " + " | ".join(f"{count} region{'s' * (count > 1)}" for count in regions)
    rows = [f"| | weights | {count_of} | weights and a session with {regions[-1]} |", "|---" * (len(regions) + 3) + "|"]
    for name, kind, bits in (
        ("float32", torch.float32, None),
        (_name(dtype), dtype, None),
        ("8-bit", dtype, "8bit"),
        ("4-bit", dtype, "4bit"),
    ):
        weights = weight_bytes(model, kind, bits)
        peaks = [session_bytes(config, kind, count, bits).peak for count in regions]
        rows.append(f"| {name} | " + " | ".join(map(in_words, [weights, *peaks, weights + peaks[-1]])) + " |")
    sessions = [session_bytes(config, dtype, count) for count in regions]
    rows += ["", f"| a session in {_name(dtype)} | {count_of.removeprefix('a session with ')} |"]
    rows.append("|---" * (len(regions) + 1) + "|")
    for what, attribute in (
        ("the encoded image", "image"),
        ("region tokens", "regions"),
        (f"keys and values, {ANSWER_TOKENS} tokens of answer included", "cache"),
        ("**kept**", "kept"),
        ("for a moment, while the image is encoded", "encoding"),
        ("for a moment, while a question is read", "answering"),
        ("**at most**", "peak"),
    ):
        rows.append(f"| {what} | " + " | ".join(in_words(getattr(each, attribute)) for each in sessions) + " |")
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables, for GPT4RoI-7B or for the model of a checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m gpt4roi_nb.memory", description=main.__doc__)
    parser.add_argument("checkpoint", nargs="?", help="a folder or a hub id, of which config.json alone is read")
    given = parser.parse_args(argv).checkpoint
    print(tables(GPT4RoIConfig() if given is None else GPT4RoIConfig.from_pretrained(given)))


if __name__ == "__main__":
    main()
