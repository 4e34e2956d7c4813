"""One report on this package on a GPU: its numbers, its speed and its memory.

`python -m gpt4roi_nb.check_gpu` takes at most about 8 minutes on an H100 or H200, downloads nothing, and writes each
row as it is measured. Without a GPU it measures small shapes on the CPU. The exit code is 1 if a requirement was missed
or a row failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import torch

from gpt4roi_nb import commands
from gpt4roi_nb.check_gpu import answers, golden, machine, needs, speed
from gpt4roi_nb.check_gpu.device_config import DeviceConfig
from gpt4roi_nb.check_gpu.random_model import RandomModel
from gpt4roi_nb.check_gpu.report import Report, Section
from gpt4roi_nb.checkpoint.device import choose_device


def sections(device_config: DeviceConfig, model: RandomModel) -> list[Section]:
    """All sections of the report; those that may take longest come last."""
    parts, compiled = speed.sections(device_config, model)
    return [
        machine.section(device_config),
        *golden.sections(device_config),
        answers.section(device_config),
        parts,
        needs.memory_section(device_config, model),
        needs.training_section(device_config, model),
        needs.quantised_section(device_config, model),
        compiled,
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report, and return the exit code."""
    parser = commands.check_gpu()
    given = parser.parse_args(argv)
    if not given.minutes > 0:
        parser.error(f"--minutes must be above 0, but is {given.minutes}")
    try:
        device = choose_device(given.device)
    except (ValueError, RuntimeError) as error:  # a GPU that does not exist; a name that torch does not know
        parser.error(str(error))
    device_config = DeviceConfig(device, small=given.small or device.type == "cpu")
    report = Report(given.out, given.minutes, f"gpt4roi_nb on {device_config.name}, {date.today()}")
    for section in sections(device_config, RandomModel(device_config, torch.bfloat16)):
        report.write(section)
    report.end()
    return 1 if report.missed or report.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
