"""Which device a model goes to, and why an NVIDIA device that is there cannot be used."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import torch

DEVICES = Path("/dev")  # each NVIDIA device is a nvidia0, nvidia1, … there, also within a container that may use it
DRIVER_FILE = Path("/proc/driver/nvidia/version")
NVIDIA_SMI = "nvidia-smi"
SMI_SECONDS = 10.0  # it takes about one; with a device that has failed it may hang
HIDDEN = ("", "-1")  # values of CUDA_VISIBLE_DEVICES with which somebody wants no GPU to be seen


class UnusedGPUWarning(UserWarning):
    """A model goes to the CPU although there is an NVIDIA device."""


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device that is asked for, or a GPU where there is one, else the CPU.

    Warns with an `UnusedGPUWarning` where it is the CPU because PyTorch cannot use the NVIDIA device that is there.

    Raises:
        ValueError: a GPU is asked for, and PyTorch can use none.
    """
    if device is None:
        warn_of_unused_gpu()
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    target = torch.device(device)
    if target.type == "cuda" and not torch.cuda.is_available():
        why = unused_gpu() or "there is none"
        raise ValueError(f'device={str(target)!r} needs a GPU that PyTorch can use, and {why}; take device="cpu"')
    return target


def warn_of_unused_gpu() -> None:
    """Say in a sentence why an NVIDIA device is not used; nothing where it is, or where there is none."""
    if not torch.cuda.is_available() and (why := unused_gpu()) is not None:
        warnings.warn(
            f"the model is loaded on the CPU, in float32 unless dtype says otherwise, because {why}",
            UnusedGPUWarning,
            stacklevel=2,
        )


def unused_gpu() -> str | None:
    """Half a sentence on why PyTorch cannot use this machine's NVIDIA device; None where there is none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in HIDDEN:
        return None
    has_node = any(re.fullmatch(r"nvidia\d+", name) for name in _names(DEVICES))
    driver, supports = _asked_smi()
    if driver is None and not has_node:  # a container sees its host's DRIVER_FILE also where it may not use the device
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


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _asked_smi() -> tuple[str | None, str | None]:
    """The driver's version and the newest CUDA that it supports, as nvidia-smi says; None each where it does not."""
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
    """The driver's version, as its kernel module says."""
    try:
        said = DRIVER_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"Kernel Module\s+(?:for \S+\s+)?(\d+(?:\.\d+)+)", said)
    return match.group(1) if match else None
