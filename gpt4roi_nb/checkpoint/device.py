"""Which device a model goes to, and why PyTorch cannot use an NVIDIA device of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

DEVICES = Path("/dev")  # each NVIDIA device is nvidia0, nvidia1, … here, also in a container that may use it
DRIVER_FILE = Path("/proc/driver/nvidia/version")
NVIDIA_SMI = "nvidia-smi"
SMI_SECONDS = 10.0  # it takes about one; if a device has failed, it may hang
# With these values of device_map, accelerate decides where each part goes.
SPREADING = ("auto", "balanced", "balanced_low_0", "sequential")
HIDDEN = ("", "-1")  # values of CUDA_VISIBLE_DEVICES that hide all GPUs on purpose


class UnusedGPUWarning(UserWarning):
    """A model goes to the CPU although there is an NVIDIA device."""


def choose_device(device: str | torch.device | None) -> torch.device:
    """Choose the device: the given one; for None a GPU if there is one, else the CPU.

    Warns with an `UnusedGPUWarning` if it is the CPU because PyTorch cannot use this machine's NVIDIA device.

    Raises:
        ValueError: the given device is a GPU that PyTorch cannot use.
    """
    if device is None:
        warn_of_unused_gpu()
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    target = torch.device(device)
    if target.type == "cuda" and not torch.cuda.is_available():
        why = unused_gpu() or "there is none"
        raise ValueError(f'device={str(target)!r} needs a GPU that PyTorch can use, and {why}; take device="cpu"')
    if target.type == "cuda" and target.index is not None and target.index >= torch.cuda.device_count():
        raise ValueError(
            f"there is no {str(target)!r}: PyTorch can use {torch.cuda.device_count()} GPU(s), numbered from 0"
        )
    return target


def dtype_of_weights(
    dtype: str | torch.dtype | None, config: Any, quantization: str | None, *, on_cpu: bool
) -> torch.dtype:
    """Choose the dtype of loaded weights; with quantization, of those that are not quantised.

    Args:
        dtype: the given one; "auto" takes the checkpoint's own. None takes float32 on a CPU, with quantization
            bfloat16, and elsewhere the checkpoint's own, with quantization float16 in place of float32.
        config: of the checkpoint, with its own dtype.
        quantization: "8bit", "4bit" or None.
        on_cpu: whether all weights lie there.

    Raises:
        ValueError: the given dtype is no name of one.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype is not None and dtype != "auto":
        named = getattr(torch, dtype, None) if isinstance(dtype, str) else None
        if not isinstance(named, torch.dtype):
            raise ValueError(f'dtype must be "auto", "float32", "bfloat16" or "float16", but is {dtype!r}')
        return named
    if dtype is None and on_cpu:
        # A CPU computes float32 faster and more exactly than float16. Quantisation is asked for to save memory.
        return torch.float32 if quantization is None else torch.bfloat16
    own: torch.dtype = getattr(config, "dtype", None) or torch.float32  # transformers saves it in every config.json
    return torch.float16 if dtype is None and quantization is not None and own == torch.float32 else own


def check_device_map(device_map: str | dict[str, Any], options: Mapping[str, Any]) -> dict[torch.device, int] | None:
    """Check where `from_pretrained` is to put the parts of a model, in the form that transformers and accelerate take.

    Args:
        device_map: one of `SPREADING`, a device, or devices by the names of parts.
        options: the other keywords; only `max_memory` and `offload_folder` are used.

    Returns:
        The bytes that `max_memory` allows per device; None if it is not given.

    Raises:
        ValueError: an unknown device, a GPU that PyTorch cannot use, "disk" without `offload_folder`, or a
            `max_memory` that does not give a size per device.
    """
    if not (isinstance(device_map, str) and device_map in SPREADING):
        places = set(device_map.values()) if isinstance(device_map, dict) else {device_map}
        for place in places - {"disk"}:
            choose_device(_device(place, "device_map"))
        if "disk" in places and options.get("offload_folder") is None:
            raise ValueError('device_map puts parts on "disk": say in which folder, by offload_folder="path/to/folder"')
    limits = options.get("max_memory")
    if limits is None:
        return None
    from accelerate.utils.modeling import convert_file_size_to_int

    if not isinstance(limits, Mapping):
        raise ValueError(f'max_memory must be sizes by device, such as {{0: "20GB", "cpu": "60GB"}}, but is {limits!r}')
    sizes = {}
    for place, size in limits.items():
        if place == "disk":
            continue
        device = choose_device(_device(place, "max_memory"))
        try:
            sizes[device] = convert_file_size_to_int(size)
        except (ValueError, AttributeError) as error:
            raise ValueError(f'max_memory[{place!r}] must be bytes or a size as "20GB", but is {size!r}') from error
    return sizes


def _device(place: object, argument: str) -> torch.device:
    """A GPU's number, or a device's name."""
    try:
        return torch.device("cuda", place) if isinstance(place, int) else torch.device(place)  # type: ignore[call-overload]
    except (RuntimeError, TypeError) as error:
        known = ", ".join(f'"{name}"' for name in SPREADING)
        also = f", or device_map as a whole {known}" if argument == "device_map" else ""
        raise ValueError(
            f'{argument} takes a GPU\'s number, "cuda:0", "cpu" or "disk"{also}, but got {place!r}'
        ) from error


def warn_of_unused_gpu() -> None:
    """Warn, and say why, if this machine has an NVIDIA device that PyTorch cannot use."""
    if not torch.cuda.is_available() and (why := unused_gpu()) is not None:
        warnings.warn(
            f"the model is loaded on the CPU, in float32 unless dtype says otherwise, because {why}",
            UnusedGPUWarning,
            stacklevel=2,
        )


def unused_gpu() -> str | None:
    """Why PyTorch cannot use this machine's NVIDIA device, as a clause; None if there is none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in HIDDEN:
        return None
    has_node = any(re.fullmatch(r"nvidia\d+", name) for name in _names(DEVICES))
    driver, supports = _asked_smi()
    if driver is None and not has_node:  # a container sees its host's DRIVER_FILE even if it may not use the device
        return None
    driver = driver or _driver_of_kernel()
    major = supports.split(".")[0] if supports else ""
    told = f"its driver {driver or 'does not answer'}" + (f" supports CUDA {supports}" if supports else "")
    build = torch.version.cuda
    if build is None:
        cure = f"install a build of PyTorch for CUDA {major}".rstrip()
    elif supports and int(build.split(".")[0]) > int(major):
        cure = f"update the driver, or install a build of PyTorch for CUDA {major}"
    else:
        cure = "nvidia-smi and torch.cuda.init() say more"
    built = f"built for CUDA {build}" if build else "built without CUDA"
    return f"PyTorch {torch.__version__}, {built}, cannot use the NVIDIA device of this machine ({told}): {cure}"


def driver_version() -> str | None:
    """The NVIDIA driver's version, from nvidia-smi or the kernel; None if neither reports it."""
    return _asked_smi()[0] or _driver_of_kernel()


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _asked_smi() -> tuple[str | None, str | None]:
    """The driver's version and the newest CUDA that it supports, from nvidia-smi; None for what it does not report."""
    if (program := shutil.which(NVIDIA_SMI)) is None:
        return None, None
    try:
        ran = subprocess.run([program], check=False, capture_output=True, text=True, timeout=SMI_SECONDS)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None, None
    if ran.returncode != 0:
        return None, None
    found = (re.search(rf"{what} Version:\s*(\d+(?:\.\d+)+)", ran.stdout) for what in ("Driver", "CUDA(?: UMD)?"))
    driver, supports = (match.group(1) if match else None for match in found)
    return driver, supports


def _driver_of_kernel() -> str | None:
    """The driver's version, from its kernel module."""
    try:
        said = DRIVER_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"Kernel Module\s+(?:for \S+\s+)?(\d+(?:\.\d+)+)", said)
    return match.group(1) if match else None
