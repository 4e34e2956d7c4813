"""The machine and the versions that the measurements belong to."""

from __future__ import annotations

import importlib.metadata
import platform
from functools import partial

import torch

from gpt4roi_nb.check_gpu.device_config import DeviceConfig
from gpt4roi_nb.check_gpu.report import Measure, Measurement, NotThisTime, Section
from gpt4roi_nb.checkpoint.device import driver_version, unused_gpu
from gpt4roi_nb.memory import dtype_name, in_words

PACKAGES = ("torch", "torchvision", "transformers", "triton", "accelerate", "peft", "bitsandbytes", "flash_attn")


def section(device_config: DeviceConfig) -> Section:
    def version(name: str) -> Measurement:
        try:
            return Measurement(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            return Measurement("not installed")

    def card() -> Measurement:
        if not device_config.on_gpu:
            return Measurement(
                f"the CPU; {torch.get_num_threads()} threads of {platform.processor() or platform.machine()}"
            )
        properties = torch.cuda.get_device_properties(device_config.device)
        return Measurement(f"{properties.name}, {in_words(properties.total_memory)}, CUDA {torch.version.cuda}")

    def driver() -> Measurement:
        if not device_config.on_gpu:
            why = "the CPU was asked for" if torch.cuda.is_available() else unused_gpu()
            raise NotThisTime(why or "there is no GPU")
        if (version := driver_version()) is None:
            raise NotThisTime("neither nvidia-smi nor the kernel reports it")
        return Measurement(version)

    def products(dtype: torch.dtype) -> Measurement:
        sheet = device_config.datasheet_flops if dtype == torch.bfloat16 else None
        beside = "" if sheet is None else f"{sheet / 1e12:.0f} TFLOP/s on the data sheet"
        return Measurement(f"{device_config.product_flops(dtype) / 1e12:.3g} TFLOP/s", beside)

    rows: list[tuple[str, Measure]] = [("device", lambda _: card()), ("driver", lambda _: driver())]
    rows.append(("Python", lambda _: Measurement(platform.python_version())))
    rows += [(name, partial(lambda name, _: version(name), name)) for name in PACKAGES]
    rows += [
        (f"matrix product, {dtype_name(dtype)}", partial(lambda dtype, _: products(dtype), dtype))
        for dtype in (torch.float32, torch.bfloat16)
    ]
    return Section("Machine", rows, share=0.1)
