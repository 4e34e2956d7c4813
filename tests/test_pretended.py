"""The pretended GPUs of `pretended.py` notice what a true one would refuse, and let through what it lets through."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretended import pretended_gpus
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

FIRST, SECOND, CPU = torch.device("cuda:0"), torch.device("cuda:1"), torch.device("cpu")


@pytest.fixture(autouse=True)
def gpus() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        stack.enter_context(pretended_gpus())
        yield stack


def test_nothing_is_pretended_afterwards(gpus: ExitStack) -> None:
    marked = torch.ones(2, device="cuda")
    assert (marked.device, torch.cuda.device_count()) == (FIRST, 2)
    gpus.close()
    assert (marked.device, torch.Generator) == (CPU, torch._C.Generator)
    assert (marked + torch.ones(2)).tolist() == [2, 2]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: marked.device).result() == CPU


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(3, device="cuda"),
        lambda: torch.tensor([1, 2, 3], device="cuda:0"),
        lambda: torch.ones(3, device=0),
        lambda: torch.as_tensor([1, 2, 3], device="cuda:0"),
        lambda: torch.as_tensor(torch.ones(3), device="cuda"),
        lambda: torch.arange(3, device=FIRST),
        lambda: torch.ones(3).cuda(),
        lambda: torch.ones(3).to("cuda"),
        lambda: torch.ones(3).to(0),
        lambda: torch.ones(3).to("cuda", torch.float16),
        lambda: torch.ones(3).to(device="cuda", dtype=torch.float16),
        lambda: torch.ones(3).to(torch.zeros(1, device="cuda")),
        lambda: torch.ones(3).type_as(torch.zeros(1, device="cuda")),
        lambda: torch.ones_like(torch.zeros(3, device="cuda")),
        lambda: torch.ones_like(torch.zeros(3), device="cuda"),
        lambda: torch.ones(1, device="cuda").new_zeros(3),
        lambda: torch.ones(1, device="cuda").new_tensor([1, 2, 3]),
        lambda: torch.ones(1).new_zeros(3, device="cuda"),
        lambda: torch.ones(3, device="cuda").float().half().detach().clone(),
        lambda: torch.ones(3, device="cuda:1").to("cuda:0"),
        lambda: torch.ones(2, 3, device="cuda").max(dim=0).values,
        lambda: torch.ones(2, 3, device="cuda").unbind()[1],
        lambda: next(iter(torch.ones(2, 3, device="cuda"))),
        lambda: torch.ones(2, 3, device="cuda")[0],
        lambda: torch.ones(3, device="cuda").add_(1),
        lambda: torch.ones(3, device="cuda") + torch.tensor(1.0),
        lambda: 1 - torch.ones(3, device="cuda"),
        lambda: copy.deepcopy(torch.ones(3, device="cuda")),
        lambda: nn.Parameter(torch.ones(3, device="cuda")),
        lambda: nn.Parameter(torch.ones(3, device="cuda")).data,
        lambda: copy.deepcopy(nn.Parameter(torch.ones(3, device="cuda"))),
        lambda: torch.from_numpy(np.ones(3)).to("cuda"),
    ],
)
def test_on_the_gpu(make) -> None:
    made: Tensor = make()
    assert (made.device, made.is_cuda, made.is_cpu, made.get_device(), len(made)) == (FIRST, True, False, 0, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(3),
        lambda: torch.ones(3, device="cuda").cpu(),
        lambda: torch.ones(3, device="cuda").to("cpu"),
        lambda: torch.ones(3, device="cuda").to("cpu", torch.float16),
        lambda: torch.zeros_like(torch.ones(3, device="cuda"), device="cpu"),
        lambda: torch.as_tensor(torch.ones(3, device="cuda"), device="cpu"),
        lambda: torch.full((3,), torch.tensor(1, device="cuda").item()),
        lambda: torch.tensor(torch.ones(3, device="cuda").tolist()),
        lambda: torch.tensor([torch.tensor(1.0, device="cuda")] * 3),
    ],
)
def test_on_the_cpu(make) -> None:
    made: Tensor = make()
    assert (made.device, made.is_cuda, made.is_cpu, made.get_device(), len(made)) == (CPU, False, True, -1, 3)


def test_moving_copies_and_leaves_the_other_where_it_is() -> None:
    here = torch.ones(3)
    there = here.to("cuda")
    there += 1
    back = there.cpu()
    back += 1
    assert (here.tolist(), there.tolist(), back.tolist()) == ([1] * 3, [2] * 3, [3] * 3)
    assert (here.device, there.device, back.device) == (CPU, FIRST, CPU)
    assert there.to("cuda:0") is there
    assert torch.ones(1, device="meta").device.type == "meta"


@pytest.mark.parametrize(
    "mix",
    [
        lambda gpu, cpu: gpu + cpu,
        lambda gpu, cpu: gpu.add_(cpu),
        lambda gpu, cpu: cpu.add_(gpu),
        lambda gpu, cpu: cpu + gpu.sum(),  # only a scalar of the CPU goes anywhere
        lambda gpu, cpu: torch.cat([gpu, cpu]),
        lambda gpu, cpu: torch.stack([gpu.sum(), cpu.sum()]),
        lambda gpu, cpu: torch.where(gpu > 0, gpu, cpu),
        lambda gpu, cpu: gpu.masked_fill(cpu > 0, 0),
        lambda gpu, cpu: gpu @ cpu,
        lambda gpu, cpu: F.linear(gpu, cpu[None]),
        lambda gpu, cpu: F.embedding(cpu.long(), gpu[:, None]),
        lambda gpu, cpu: gpu.index_select(0, cpu.long()),
        lambda gpu, cpu: gpu.gather(0, cpu.long()),
        lambda gpu, cpu: cpu[gpu.long()],
        lambda gpu, cpu: gpu.__setitem__(cpu.long(), cpu),
        lambda gpu, cpu: gpu.index_put_((cpu.long(),), cpu),
        lambda gpu, cpu: torch.equal(gpu, cpu),
        lambda gpu, cpu: gpu + gpu.to("cuda:1"),
        lambda gpu, cpu: gpu.to("cuda:1")[gpu.long()],
        lambda gpu, cpu: nn.Linear(3, 1).to("cuda")(cpu),
        lambda gpu, cpu: nn.LayerNorm(3)(gpu),
        lambda gpu, cpu: torch.ops.aten.add(gpu, cpu),
        lambda gpu, cpu: setattr(nn.Parameter(gpu), "grad", cpu),
    ],
)
def test_what_cuda_refuses_to_mix(mix) -> None:
    with pytest.raises(RuntimeError, match=r"same device|different device|with device type"):
        mix(torch.ones(3, device="cuda"), torch.ones(3))


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # which torch's has of NumPy 2's word for a copy
@pytest.mark.parametrize("convert", [Tensor.numpy, np.asarray, np.array])
def test_a_gpu_s_tensor_is_no_array(convert) -> None:
    with pytest.raises(TypeError, match=r"can't convert cuda:0 device type tensor to numpy\. Use Tensor\.cpu\(\)"):
        convert(torch.ones(3, device="cuda"))


def test_what_cuda_lets_through() -> None:
    gpu, cpu = torch.arange(3.0, device="cuda"), torch.tensor([5.0, 6, 7])
    assert gpu[torch.tensor([2, 0])].tolist() == [2, 0]
    assert gpu[torch.tensor([True, False, True])].device == FIRST
    assert gpu[[2, 0]].device == FIRST
    gpu[:2] = cpu[:2]  # a copy
    gpu[torch.tensor([2])] = torch.tensor(9.0)
    assert (gpu.tolist(), gpu.device) == ([5, 6, 9], FIRST)
    assert (gpu.copy_(cpu).tolist(), gpu.device) == ([5, 6, 7], FIRST)
    assert (cpu.copy_(gpu).device, float(gpu[0]), gpu.sum().item(), bool(gpu.all())) == (CPU, 5, 18, True)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_generators_live_on_a_device(device: str) -> None:
    generator = torch.Generator(device).manual_seed(3)
    other = torch.Generator("cpu" if device == "cuda" else "cuda")
    weights = torch.ones(9, device=device)
    drawn = torch.multinomial(weights, 4, generator=generator)
    assert (generator.device.type, drawn.device.type, isinstance(generator, torch.Generator)) == (device, device, True)
    assert torch.rand(3, device=device, generator=generator).device.type == device
    with pytest.raises(RuntimeError, match="device type for generator"):
        torch.multinomial(weights, 4, generator=other)
    with pytest.raises(RuntimeError, match="device type for generator"):
        torch.rand(3, device=device, generator=other)
    with pytest.raises(RuntimeError, match="device type for generator"):
        nn.init.normal_(weights, generator=other)


def test_modules_train_where_they_are() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).to("cuda")
    assert {each.device for each in [*module.parameters(), *module.buffers()]} == {FIRST}
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.rand(5, 3, device="cuda")).square().mean().backward()
    nn.utils.clip_grad_norm_(module.parameters(), 0.1)
    assert {weight.grad.device for weight in module.parameters()} == {FIRST}
    before = module[0].weight.detach().clone()
    optimizer.step()
    assert {state["exp_avg"].device for state in optimizer.state.values()} == {FIRST}
    assert not torch.equal(module[0].weight, before)
    again = copy.deepcopy(module)
    again.load_state_dict(module.cpu().state_dict())
    assert {each.device for each in again.parameters()} == {FIRST}
    assert {each.device for each in module.parameters()} == {CPU}
    (gradient,) = torch.autograd.grad(again(torch.rand(5, 3, device="cuda")).sum(), [again[2].weight])
    assert gradient.device == FIRST


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_compute_again(reentrant: bool) -> None:
    devices = []

    def wave(x: Tensor) -> Tensor:
        devices.append(x.device)
        return x.sin() * torch.full((3,), 2.0, device=x.device)

    x = torch.rand(3, device="cuda", requires_grad=True)
    checkpoint(wave, x, use_reentrant=reentrant).sum().backward()
    assert (len(devices), devices[0], x.grad.device) == (2, FIRST, FIRST)
    torch.testing.assert_close(x.grad, 2 * x.cos())


def test_autocast_of_a_gpu() -> None:
    linear = nn.Linear(3, 1, device="cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert linear(torch.ones(1, 3, device="cuda")).dtype == torch.bfloat16
        assert (torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")) == (True, torch.bfloat16)
        with torch.autocast("cuda", enabled=False):
            assert linear(torch.ones(1, 3, device="cuda")).dtype == torch.float32
    assert not torch.is_autocast_enabled("cuda")


def test_files_give_back_what_they_hold_where_they_are_told(tmp_path: Path) -> None:
    gpu = torch.arange(3.0, device="cuda")
    save_file({"x": gpu}, tmp_path / "x.safetensors")
    torch.save({"x": gpu}, tmp_path / "x.pt")
    for loaded, device in (
        (load_file(tmp_path / "x.safetensors"), CPU),
        (torch.load(tmp_path / "x.pt"), FIRST),
        (torch.load(tmp_path / "x.pt", map_location="cpu"), CPU),
        (torch.load(tmp_path / "x.pt", map_location="cuda:1"), SECOND),
        ({"x": pickle.loads(pickle.dumps(gpu))}, FIRST),
    ):
        assert (loaded["x"].device, loaded["x"].tolist()) == (device, [0, 1, 2])
    assert gpu.device == FIRST


def test_threads_pretend_too() -> None:
    with ThreadPoolExecutor(1) as pool:
        gpu = pool.submit(torch.ones, 3, device="cuda").result()
        assert gpu.device == FIRST
        with pytest.raises(RuntimeError, match="same device"):
            pool.submit(torch.add, gpu, torch.ones(3)).result()
