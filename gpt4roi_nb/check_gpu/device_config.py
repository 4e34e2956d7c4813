"""The device and the size of the check, and how time is measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"  # in the repository, not in the wheel
# Dense bfloat16 operations per second, from the vendor's data sheets.
DATASHEET_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}


@dataclass(frozen=True)
class DeviceConfig:
    """device: the one that is measured. small: small models and few repeats, for a CPU."""

    device: torch.device
    small: bool

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.on_gpu else "the CPU"

    @property
    def repeats(self) -> int:
        return 3 if self.small else 15

    def synchronise(self) -> None:
        """Wait until the device has finished its work."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object], repeats: int | None = None) -> float:
        """Median time of some work in seconds, after one round that is not counted."""
        work()
        times = []
        for _ in range(repeats or self.repeats):
            self.synchronise()
            started = time.perf_counter()
            work()
            self.synchronise()
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    def product_flops(self, dtype: torch.dtype) -> float:
        """Operations per second of a large matrix product on this device."""
        side = 512 if self.small else 8192
        one, other = (torch.randn(side, side, device=self.device, dtype=dtype) for _ in range(2))
        return 2 * side**3 / self.seconds(lambda: one @ other)

    @property
    def datasheet_flops(self) -> float | None:
        """The data sheet's operations per second in bfloat16; None if this GPU is not listed."""
        return next((flops for card, flops in DATASHEET_FLOPS.items() if card in self.name), None)


def milliseconds(seconds: float) -> str:
    """A time with its unit, such as "12 ms"."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute in true float32: by default, a GPU's convolutions round their inputs to TF32."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products
