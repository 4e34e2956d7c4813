"""The machine and the versions that the figures belong to."""

from __future__ import annotations

import importlib.metadata
import platform
from functools import partial

import torch

from gpt4roi_nb.check_gpu.report import Figure, Measure, NotThisTime, Section
from gpt4roi_nb.check_gpu.setting import Setting, name_of
from gpt4roi_nb.checkpoint.device import driver_version, unused_gpu
from gpt4roi_nb.memory import in_words

PACKAGES = ("torch", "torchvision", "transformers", "triton", "accelerate", "peft", "bitsandbytes", "flash_attn")


def section(setting: Setting) -> Section:
    def version(name: str) -> Figure:
        try:
            return Figure(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            return Figure("not installed")

    def card() -> Figure:
        if not setting.on_gpu:
            return Figure(f"the CPU; {torch.get_num_threads()} threads of {platform.processor() or platform.machine()}")
        properties = torch.cuda.get_device_properties(setting.device)
        return Figure(f"{properties.name}, {in_words(properties.total_memory)}, CUDA {torch.version.cuda}")

    def driver() -> Figure:
        if not setting.on_gpu:
            why = "the CPU was asked for" if torch.cuda.is_available() else unused_gpu()
            raise NotThisTime(why or "there is no GPU")
        if (version := driver_version()) is None:
            raise NotThisTime("neither nvidia-smi nor the kernel reports it")
        return Figure(version)

    def products(dtype: torch.dtype) -> Figure:
        sheet = setting.datasheet_flops if dtype == torch.bfloat16 else None
        beside = "" if sheet is None else f"{sheet / 1e12:.0f} TFLOP/s on the data sheet"
        return Figure(f"{setting.product_flops(dtype) / 1e12:.3g} TFLOP/s", beside)

    rows: list[tuple[str, Measure]] = [("device", lambda _: card()), ("driver", lambda _: driver())]
    rows.append(("Python", lambda _: Figure(platform.python_version())))
    rows += [(name, partial(lambda name, _: version(name), name)) for name in PACKAGES]
    rows += [
        (f"matrix product, {name_of(dtype)}", partial(lambda dtype, _: products(dtype), dtype))
        for dtype in (torch.float32, torch.bfloat16)
    ]
    return Section("Machine", rows, share=0.1)
