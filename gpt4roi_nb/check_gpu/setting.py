"""Where and how large the check is, and how time is taken there."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"  # in the repository, not in the wheel
# Dense bfloat16 products per second of the vendors' data sheets.
DATASHEET_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}


@dataclass(frozen=True)
class Setting:
    """device: that is measured. small: little models and few repeats, for a CPU."""

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
        """Wait until the device has done what it was given."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object], repeats: int | None = None) -> float:
        """Median time of some work, after one round that is not counted."""
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
        """Operations per second that a large matrix product reaches here."""
        side = 512 if self.small else 8192
        one, other = (torch.randn(side, side, device=self.device, dtype=dtype) for _ in range(2))
        return 2 * side**3 / self.seconds(lambda: one @ other)

    @property
    def datasheet_flops(self) -> float | None:
        """Of bfloat16, where this card is known."""
        return next((flops for card, flops in DATASHEET_FLOPS.items() if card in self.name), None)


def milliseconds(seconds: float) -> str:
    """Time as a person reads it."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def name_of(dtype: torch.dtype) -> str:
    """Such as "bfloat16"."""
    return str(dtype).removeprefix("torch.")


@contextmanager
def exact_float32() -> Iterator[None]:
    """Within it float32 is float32: by default a GPU's convolutions round their inputs to TF32."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products
