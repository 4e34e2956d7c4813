"""One sentence with both versions explains why PyTorch cannot use an NVIDIA device; without one there is no warning."""

from __future__ import annotations

import subprocess
import time
import warnings

import pytest
import torch
from tiny import tiny_gpt4roi
from tiny_parts import save_clip, save_language_model

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.checkpoint import device as device_module
from gpt4roi_nb.checkpoint.device import UnusedGPUWarning, choose_device, unused_gpu

KERNEL = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.07  Sat Feb 17 22:55:48 UTC 2024\nGCC version: 12"
OPEN_KERNEL = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build  (somebody)  Sat"
SMI = "| NVIDIA-SMI 535.161.07      Driver Version: 535.161.07   CUDA Version: 12.2     |"
NEW_SMI = "| NVIDIA-SMI 610.12     KMD Version: 610.12    Driver Version: 610.12   CUDA UMD Version: 13.3  |"
NO_CUDA_SMI = "| NVIDIA-SMI 535.161.07      Driver Version: 535.161.07   CUDA Version: N/A     |"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Simulate a machine, whatever this one is. smi: what nvidia-smi prints, or a whole script in its place."""

    def make(*, node="", kernel="", smi="", build: str | None = "13.0", version="2.14.1"):
        (tmp_path / "dev").mkdir()
        if node:
            (tmp_path / "dev" / node).touch()
        if kernel:
            (tmp_path / "version").write_text(kernel)
        if smi:
            script = smi if smi.startswith("#!") else f"#!/bin/sh\necho '{smi}'\n"
            (tmp_path / "nvidia-smi").write_text(script)
            (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setattr(device_module, "DEVICES", tmp_path / "dev")
        monkeypatch.setattr(device_module, "DRIVER_FILE", tmp_path / "version")
        monkeypatch.setattr(device_module, "NVIDIA_SMI", str(tmp_path / "nvidia-smi"))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.version, "cuda", build)
        monkeypatch.setattr(torch, "__version__", version)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return make


PREFIX = "cannot use the NVIDIA device of this machine (its driver"
FAILED = "#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate with the driver' \nexit 9\n"
CASES = {
    "a driver for 12, a build for 13": (
        {"node": "nvidia0", "kernel": KERNEL, "smi": SMI},
        f"PyTorch 2.14.1, built for CUDA 13.0, {PREFIX} 535.161.07 supports CUDA 12.2): "
        "update the driver, or install a build of PyTorch for CUDA 12",
    ),
    "a build for the CPU": (
        {"node": "nvidia0", "kernel": KERNEL, "smi": SMI, "build": None, "version": "2.14.1+cpu"},
        f"PyTorch 2.14.1+cpu, built without CUDA, {PREFIX} 535.161.07 supports CUDA 12.2): "
        "install a build of PyTorch for CUDA 12",
    ),
    "no nvidia-smi": (
        {"node": "nvidia3", "kernel": KERNEL},
        f"PyTorch 2.14.1, built for CUDA 13.0, {PREFIX} 535.161.07): nvidia-smi and torch.cuda.init() say more",
    ),
    "an open kernel module, a build for the CPU": (
        {"node": "nvidia0", "kernel": OPEN_KERNEL, "build": None},
        f"PyTorch 2.14.1, built without CUDA, {PREFIX} 580.82.07): install a build of PyTorch for CUDA",
    ),
    "no device node, as in WSL": (
        {"smi": SMI},
        f"PyTorch 2.14.1, built for CUDA 13.0, {PREFIX} 535.161.07 supports CUDA 12.2): "
        "update the driver, or install a build of PyTorch for CUDA 12",
    ),
    "a driver that is new enough": (
        {"node": "nvidia0", "smi": NEW_SMI},
        f"PyTorch 2.14.1, built for CUDA 13.0, {PREFIX} 610.12 supports CUDA 13.3): "
        "nvidia-smi and torch.cuda.init() say more",
    ),
    "nvidia-smi knows of no CUDA": (
        {"node": "nvidia0", "smi": NO_CUDA_SMI},
        f"PyTorch 2.14.1, built for CUDA 13.0, {PREFIX} 535.161.07): nvidia-smi and torch.cuda.init() say more",
    ),
    "nvidia-smi fails": (
        {"node": "nvidia0", "kernel": KERNEL, "smi": FAILED},
        f"PyTorch 2.14.1, built for CUDA 13.0, {PREFIX} 535.161.07): nvidia-smi and torch.cuda.init() say more",
    ),
    "nothing answers": (
        {"node": "nvidia0", "build": "12.8"},
        f"PyTorch 2.14.1, built for CUDA 12.8, {PREFIX} does not answer): nvidia-smi and torch.cuda.init() say more",
    ),
    "no device": ({}, None),
    "other nodes alone": ({"node": "nvidiactl"}, None),
    "a container of a host with a driver, without its device": ({"kernel": KERNEL}, None),
    "no device, and nvidia-smi": ({"smi": FAILED, "build": None}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_why_a_gpu_is_not_used(machine, case):
    facts, expected = CASES[case]
    machine(**facts)
    assert unused_gpu() == expected
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert choose_device(None) == torch.device("cpu")
    assert [str(warning.message).endswith(str(expected)) for warning in told] == [True] * (expected is not None)
    words = expected or "there is none"
    with pytest.raises(ValueError, match="needs a GPU") as raised:
        choose_device("cuda")
    assert str(raised.value) == f"device='cuda' needs a GPU that PyTorch can use, and {words}; take device=\"cpu\""


def test_an_nvidia_smi_that_hangs_is_not_waited_for(machine, monkeypatch):
    machine(node="nvidia0", kernel=KERNEL, smi="#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(device_module, "SMI_SECONDS", 0.2)
    began = time.monotonic()
    assert "its driver 535.161.07)" in str(unused_gpu())
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_somebody_hides_is_not_told_of(machine, monkeypatch, hidden):
    machine(node="nvidia0", kernel=KERNEL, smi=SMI)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert unused_gpu() is None


def test_where_pytorch_has_a_gpu_nothing_is_asked(machine, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("it was asked")

    machine(node="nvidia0", kernel=KERNEL, smi=SMI)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device_module, "unused_gpu", fail)
    monkeypatch.setattr(subprocess, "run", fail)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_device(None).type == choose_device("cuda").type == "cuda"
        assert choose_device("cpu").type == "cpu"


def test_loading_and_assembling_say_it_once_before_they_fall_back(machine, tmp_path):
    tiny_gpt4roi(seed=1).save_pretrained(tmp_path / "saved")
    language, tower = save_language_model(tmp_path / "language", "llama"), save_clip(tmp_path / "tower")
    region = {"num_levels": 2, "hidden_size": 16, "num_groups": 4, "output_size": 4, "embed_dim": 24}
    machine(node="nvidia0", kernel=KERNEL, smi=SMI)
    words = "on the CPU, in float32 unless dtype says otherwise, because PyTorch 2.14.1, built for CUDA 13.0, cannot"
    for load in (
        lambda: GPT4RoI.from_pretrained(tmp_path / "saved"),
        lambda: GPT4RoI.from_pretrained(tmp_path / "saved", device_map="auto"),
        lambda: GPT4RoI.from_parts(language, tower, region_config=region),
    ):
        with pytest.warns(UnusedGPUWarning, match=words) as told:
            loaded = load()
        assert len([one for one in told if one.category is UnusedGPUWarning]) == 1
        assert (loaded.model.device.type, loaded.model.dtype) == ("cpu", torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnusedGPUWarning)
        GPT4RoI.from_pretrained(tmp_path / "saved", device="cpu")
        GPT4RoI.from_pretrained(tmp_path / "saved", device_map={"": "cpu"})
