"""The report on a GPU, in its small size on the CPU: each row has a measurement or a reason, also if it ends early."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gpt4roi_nb.check_gpu import __main__ as command
from gpt4roi_nb.check_gpu import golden, machine
from gpt4roi_nb.check_gpu.device_config import GOLDEN, DeviceConfig, exact_float32
from gpt4roi_nb.check_gpu.golden import ENCODER_DEMAND, SmallEncoder
from gpt4roi_nb.check_gpu.machine import PACKAGES
from gpt4roi_nb.check_gpu.needs import quantised_section, training_section
from gpt4roi_nb.check_gpu.random_model import RandomModel, boxes, make
from gpt4roi_nb.check_gpu.report import FAILED, MISSED, NOT_MEASURED, Measurement, NotThisTime, Report, Section
from gpt4roi_nb.check_gpu.speed import Speed
from gpt4roi_nb.checkpoint import device as devices

CPU = DeviceConfig(torch.device("cpu"), small=True)
NOTEBOOK = ["ipywidgets", "anywidget", "traitlets", "fiftyone", "pandas", "pyarrow", "matplotlib", "scipy"]
# What the small size leaves out or a CPU has not; every other row must have a measurement.
LEFT_OUT = (
    r"there is no GPU|cannot use the NVIDIA device|a CPU has no TF32|left out of the small size|takes minutes on a CPU|"
    r"only a GPU's allocator"
)


def cells(text: str) -> dict[str, tuple[str, str, str]]:
    """Name → measured, beside, verdict of every row of a report."""
    rows = [
        line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ") and "what |" not in line
    ]
    assert all(len(row) == 4 for row in rows)
    return {name.strip(): (measured, beside.strip(), verdict.strip()) for name, measured, beside, verdict in rows}


@pytest.mark.slow
def test_the_command_measures_every_row_or_says_why_not(root: Path, tmp_path: Path) -> None:
    """Also where what a notebook needs is not installed."""
    out, seen = tmp_path / "report.md", tmp_path / "seen"
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys, pathlib; sys.modules.update(dict.fromkeys({NOTEBOOK!r})); pathlib.Path({str(seen)!r}).touch()"
    )
    make, environment = ["make", "gpu-check", f"OUT={out}"], os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(make, cwd=root, env=environment, capture_output=True, text=True, timeout=600)
    assert seen.exists()
    assert done.returncode == 0, done.stdout + done.stderr
    rows = cells(out.read_text(encoding="utf-8"))
    model = RandomModel(CPU, torch.bfloat16)
    expected = [name for section in command.sections(CPU, model) for name, _ in section.rows]
    assert list(rows) == expected and set(PACKAGES) < set(rows)
    unexplained = [
        name for name, (measured, *_) in rows.items() if NOT_MEASURED in measured and not re.search(LEFT_OUT, measured)
    ]
    assert unexplained == []
    measured, demanded, verdict = rows["region vectors, float32 without TF32"]
    assert float(measured) <= ENCODER_DEMAND and f"{ENCODER_DEMAND:g}" in demanded and verdict == "met"
    assert float(rows["region vectors, float16"][0]) < float(rows["region vectors, bfloat16"][0]) < 0.2
    assert rows["answers in float32"][2] == "met"
    assert rows["weights in 8 bits"][2] == rows["weights in 4 bits"][2] == "met"
    assert "Demands missed: none. Failed: none." in out.read_text(encoding="utf-8")


def test_what_is_not_installed_is_said_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bitsandbytes", "peft"):
        monkeypatch.setitem(sys.modules, name, None)
    report, model = Report(tmp_path / "report.md", 8, "a title"), RandomModel(CPU, torch.bfloat16)
    for section in (training_section(CPU, model), quantised_section(CPU, model)):
        report.write(section)
    rows = cells((tmp_path / "report.md").read_text())
    assert rows.pop("stage 1, one step")[2] == "met"
    assert "needs the package peft" in rows.pop("stage 2 with LoRA, one step")[0]
    assert all("need the package bitsandbytes" in measured for measured, *_ in rows.values()) and len(rows) == 2


def test_the_encoder_is_measured_from_float32_each_time() -> None:
    encoder = SmallEncoder(CPU)
    half = encoder.deviation(torch.bfloat16)
    with exact_float32():
        assert encoder.deviation(torch.float32) <= ENCODER_DEMAND < half


def test_a_deviation_beyond_the_demand_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded numbers are compared: others do not pass."""
    monkeypatch.setattr(SmallEncoder, "deviation", lambda self, dtype: 3e-5)
    report = Report(tmp_path / "report.md", 8, "a title")
    section = next(
        each for each in command.sections(CPU, RandomModel(CPU, torch.bfloat16)) if "64 channels" in each.title
    )
    report.write(section)
    assert report.missed == ["region vectors, float32 without TF32"]
    assert cells((tmp_path / "report.md").read_text())["region vectors, float32 without TF32"][2] == MISSED


def failing(error: BaseException):
    def measure(prepared: object) -> Measurement:
        raise error

    return measure


def test_a_row_that_cannot_be_measured_says_why_and_the_next_is_measured(tmp_path: Path) -> None:
    errors = {
        "memory": torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 | 3 GiB"),
        "package": ModuleNotFoundError("No module named 'peft'", name="peft"),
        "left out": NotThisTime("this is left out"),
    }
    rows = [*((name, failing(error)) for name, error in errors.items()), ("last", lambda prepared: Measurement("1 ms"))]
    report = Report(tmp_path / "report.md", 8, "a title")
    report.write(Section("a section", rows, share=1.0))
    found = {name: measured for name, (measured, *_) in cells((tmp_path / "report.md").read_text()).items()}
    assert found == {
        "memory": f"{NOT_MEASURED}OutOfMemoryError: CUDA out of memory. Tried to allocate 2 / 3 GiB",
        "package": f"{NOT_MEASURED}peft is not installed",
        "left out": f"{NOT_MEASURED}this is left out",
        "last": "1 ms",
    }
    assert report.failed == []


class Unforeseen(Exception):
    """Of a library, and of no class that Python knows."""


@pytest.mark.parametrize("error", [RuntimeError, AttributeError, TypeError, AssertionError, Unforeseen])
@pytest.mark.parametrize("place", ["row", "prepare"])
def test_a_crash_is_written_and_the_command_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], place: str
) -> None:
    crash = failing(error("no such thing"))
    fine = ("fine", lambda prepared: Measurement("1 ms"))
    crashing = (
        Section("a", [("crashed", crash), fine], 1.0)
        if place == "row"
        else Section("a", [("crashed", fine[1])], 1.0, lambda: crash(None))
    )
    monkeypatch.setattr(
        command, "sections", lambda device_config, model: [crashing, Section("b", [("after", fine[1])], 1.0)]
    )
    out = tmp_path / "report.md"
    assert command.main(["--device", "cpu", "--out", str(out)]) == 1
    rows = cells(out.read_text(encoding="utf-8"))
    assert rows.pop("crashed")[0] == f"{FAILED}{error.__name__}: no such thing"
    assert {measured for measured, *_ in rows.values()} == {"1 ms"}
    assert out.read_text(encoding="utf-8").endswith(" s. Demands missed: none. Failed: crashed.\n")


def test_the_command_ends_with_0_where_nothing_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        ("left out", failing(NotThisTime("this is left out"))),
        ("fine", lambda prepared: Measurement("1 ms", "", True)),
    ]
    monkeypatch.setattr(command, "sections", lambda device_config, model: [Section("a", rows, 1.0)])
    assert command.main(["--device", "cpu", "--out", str(tmp_path / "report.md")]) == 0
    assert "Demands missed: none. Failed: none." in (tmp_path / "report.md").read_text(encoding="utf-8")


UNUSED = "PyTorch 9, built for CUDA 13.0, cannot use the NVIDIA device of this machine (its driver 535)"


def test_a_gpu_that_pytorch_cannot_use_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that is too old for PyTorch, say."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for module in (devices, machine):
        monkeypatch.setattr(module, "unused_gpu", lambda: UNUSED)
    monkeypatch.setattr(
        command, "sections", lambda device_config, model: [Section("a", machine.section(device_config).rows[:2], 1.0)]
    )
    with pytest.warns(devices.UnusedGPUWarning, match="built for CUDA 13"):
        assert command.main(["--out", str(tmp_path / "report.md")]) == 0
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert cells(text)["driver"][0] == NOT_MEASURED + UNUSED
    assert "no GPU" not in text


@pytest.mark.parametrize(
    ("device", "said"), [("cuda", f"needs a GPU that PyTorch can use, and {UNUSED}"), ("gpu", "device string: gpu")]
)
def test_a_device_that_is_not_there_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], device: str, said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "unused_gpu", lambda: UNUSED)
    with pytest.raises(SystemExit) as ended:
        command.main(["--device", device])
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_an_early_end_keeps_what_was_measured(tmp_path: Path) -> None:
    rows = [("first", lambda prepared: Measurement("1 ms")), ("second", failing(KeyboardInterrupt()))]
    with pytest.raises(KeyboardInterrupt):
        Report(tmp_path / "report.md", 8, "a title").write(Section("a section", rows, share=1.0))
    assert cells((tmp_path / "report.md").read_text())["first"][0] == "1 ms"


def test_a_section_that_cannot_be_prepared_says_so_in_every_row(tmp_path: Path) -> None:
    def prepare() -> None:
        raise MemoryError("no room")

    rows = [(name, lambda prepared: Measurement("1 ms")) for name in ("one", "two")]
    Report(tmp_path / "report.md", 8, "a title").write(Section("a section", rows, 1.0, prepare))
    assert {measured for measured, *_ in cells((tmp_path / "report.md").read_text()).values()} == {
        f"{NOT_MEASURED}MemoryError: no room"
    }


def test_rows_beyond_their_share_of_the_time_are_not_begun(tmp_path: Path) -> None:
    report = Report(tmp_path / "report.md", 1e-9, "a title")
    report.write(Section("a section", [("late", failing(KeyboardInterrupt()))], share=0.5))
    assert cells((tmp_path / "report.md").read_text())["late"][0].endswith("its share of the 1e-09 minutes was over")


def test_speed_is_demanded_of_the_card_that_it_is_demanded_of(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = Speed(CPU, make(CPU, torch.bfloat16))
    assert speed.fusion_seconds().met is None
    monkeypatch.setattr(DeviceConfig, "name", "NVIDIA H200")
    monkeypatch.setattr(Speed, "fusion", lambda self: (5e-3, 1e12))
    assert speed.fusion_seconds().met is False
    monkeypatch.setattr(Speed, "fusion", lambda self: (4e-3, 1e12))
    assert speed.fusion_seconds().met is True
    assert "25% of the data sheet's" in speed.fusion_share().measured  # 250 of 989 TFLOP/s


def test_random_weights_keep_what_is_no_weight() -> None:
    model = make(CPU, torch.bfloat16).model
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for name, buffer in model.named_buffers() if "inv_freq" in name} == {torch.float32}
    assert len(set(boxes(64))) == 64
    assert GOLDEN.is_dir()


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_bad_minutes_are_explained(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--minutes", minutes])
    assert "--minutes must be above 0" in capsys.readouterr().err


@pytest.mark.parametrize("made_of", [golden.recipe, golden.recorded_config])
def test_without_a_checkout_the_authors_numbers_are_left_out_and_nothing_fails(made_of, tmp_path, monkeypatch):
    monkeypatch.setattr(golden, "GOLDEN", tmp_path)
    with pytest.raises(NotThisTime, match=r"the recorded numbers \(tests/golden\) are only in the repository"):
        made_of()
