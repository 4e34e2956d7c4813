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
from gpt4roi_nb.check_gpu.random_model import RandomModel
from gpt4roi_nb.check_gpu.report import Report, Section
from gpt4roi_nb.check_gpu.setting import Setting
from gpt4roi_nb.checkpoint.device import choose_device


def sections(setting: Setting, model: RandomModel) -> list[Section]:
    """All sections of the report; those that may take longest come last."""
    parts, compiled = speed.sections(setting, model)
    return [
        machine.section(setting),
        *golden.sections(setting),
        answers.section(setting),
        parts,
        needs.memory_section(setting, model),
        needs.training_section(setting, model),
        needs.quantised_section(setting, model),
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
    setting = Setting(device, small=given.small or device.type == "cpu")
    report = Report(given.out, given.minutes, f"gpt4roi_nb on {setting.name}, {date.today()}")
    for section in sections(setting, RandomModel(setting, torch.bfloat16)):
        report.write(section)
    report.end()
    return 1 if report.missed or report.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
