"""GPUs that are only pretended: CPU tensors carry a mark, and whatever CUDA would refuse to compute with it is refused.

Within `pretended_gpus()` a tensor that was put on `cuda:0` says so, keeps to it, and does not mix with others; its
numbers stay in the CPU's memory and are real, so that whole sessions and trainings run. What is not seen: kernels that
a GPU lacks, its rounding and its memory; tensors within one call of torch, a backward pass with its hooks and
checkpoints among them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gpt4roi_nb import GPT4RoI

GPUS = 2
MEMORY = 10**12  # bytes that each of them seems to have
CPU = torch.device("cpu")
_MARK = "_pretended_device"


def device_of(tensor: Tensor) -> torch.device:
    """Where a tensor is or pretends to be; outside of the mode, where its `device` is the true one."""
    return getattr(tensor, _MARK, None) or tensor.device


def _named(device: Any) -> torch.device:
    """What a caller calls a device, with its number."""
    found = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return torch.device("cuda", found.index or 0) if found.type == "cuda" else found


def _true(device: torch.device) -> torch.device:
    return CPU if device.type == "cuda" else device


def _put(found: Any, device: torch.device) -> Any:
    """Mark the tensors of a result, in place."""
    if isinstance(found, Tensor):
        if device.type == "cuda":
            setattr(found, _MARK, device)
        elif hasattr(found, _MARK):
            delattr(found, _MARK)
    elif isinstance(found, list | tuple):
        for each in found:
            _put(each, device)
    elif isinstance(found, dict):
        _put(list(found.values()), device)
    return found


def _tensors(given: Any) -> list[Tensor]:
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, dict):
        given = given.values()
    elif not isinstance(given, list | tuple):
        return []
    return [tensor for each in given for tensor in _tensors(each)]


def _common(func: Any, tensors: list[Tensor], *, scalars: bool = True) -> torch.device:
    """Where tensors that are computed with together are. scalars: 0-dimensional ones of the CPU go anywhere."""
    bound = [each for each in tensors if not (scalars and each.dim() == 0 and device_of(each) == CPU)]
    devices = list(dict.fromkeys(device_of(each) for each in bound if device_of(each).type != "meta"))
    if len(devices) > 1:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{devices[0]} and {devices[1]}! (in {getattr(func, '__name__', func)})"
        )
    return devices[0] if devices else (bound or tensors or [torch.empty(0)])[0].device


# What makes a tensor on the device that it is told, whatever its arguments are on.
_FACTORIES = {
    getattr(torch, name)
    for name in (
        *("arange", "empty", "empty_strided", "eye", "full", "linspace", "logspace", "ones", "rand", "randint"),
        *("randn", "randperm", "tensor", "tril_indices", "triu_indices", "zeros"),
    )
}
_JOINS = {torch.cat, torch.concat, torch.stack, torch.hstack, torch.vstack, torch.dstack}
# What looks at tensors without computing with them, or copies from one device to another.
_FREE = {torch._has_compatible_shallow_copy_type, Tensor.is_set_to, Tensor.backward, torch._foreach_copy_}


def _compute(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Any call: on one device, which its results are on."""
    if func is torch.tensor:
        device = device_of(args[0]) if args and isinstance(args[0], Tensor) else CPU
    elif func in _FACTORIES:
        device = CPU
    elif func in _FREE:
        return func(*args, **kwargs)
    else:
        device = _common(func, _tensors([args, kwargs]), scalars=func not in _JOINS)
    if kwargs.get("device") is not None:
        device = _named(kwargs["device"])
        kwargs["device"] = _true(device)
    generator = kwargs.get("generator")
    if generator is not None and _named(generator.device) != device:
        raise RuntimeError(f"Expected a '{device}' device type for generator but found '{generator.device}'")
    found = func(*args, **kwargs)
    return _put(found, device) if device.type == "cuda" else found


def _move(func: Callable[..., Any], tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    """`Tensor.to` and those that are short for it: a copy, where the device is another."""
    target = here = device_of(tensor)
    changed = list(args)
    for place, given in enumerate(args):
        if isinstance(given, Tensor):
            target = device_of(given)
        elif (isinstance(given, int) and not isinstance(given, bool) and place == 0) or isinstance(
            given, str | torch.device
        ):
            target = _named(given)
            changed[place] = _true(target)
    if isinstance(kwargs.get("other"), Tensor):
        target = device_of(kwargs["other"])
    if kwargs.get("device") is not None:
        target = _named(kwargs["device"])
        kwargs["device"] = _true(target)
    found = func(tensor, *changed, **kwargs)
    if target != here and found is tensor:
        found = tensor.clone()
    return found if found is tensor else _put(found, target)


def _as_tensor(func: Callable[..., Any], data: Any, *args: Any, **kwargs: Any) -> Any:
    if not isinstance(data, Tensor):
        return _compute(func, data, *args, **kwargs)
    device = kwargs.pop("device", None)
    found = _compute(func, data, *args, **kwargs)
    return found if device is None else _move(Tensor.to, found, device)


def _type(func: Callable[..., Any], tensor: Tensor, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
    if dtype is None and device_of(tensor).type == "cuda":
        return func(tensor).replace("torch.", "torch.cuda.")
    return _compute(func, tensor, dtype, *args, **kwargs)


def _check_index(tensor: Tensor, index: Any) -> bool:
    """Indices may be on the CPU; returns whether there are any that are tensors."""
    indices = [each for each in _tensors(index) if each.dim() or each.dtype in (torch.bool, torch.uint8)]
    for each in indices:
        if device_of(each) not in (CPU, device_of(tensor)):
            raise RuntimeError(
                f"indices should be either on cpu or on the same device as the indexed tensor ({device_of(tensor)})"
            )
    return bool(indices)


def _get_item(func: Callable[..., Any], tensor: Tensor, index: Any) -> Any:
    _check_index(tensor, index)
    return _put(func(tensor, index), device_of(tensor))


def _set_item(func: Callable[..., Any], tensor: Tensor, index: Any, value: Any) -> None:
    if _check_index(tensor, index) and isinstance(value, Tensor) and value.dim():
        _common(func, [tensor, value])  # without them it is a copy, which may cross devices
    func(tensor, index, value)


def _index_put(func: Callable[..., Any], tensor: Tensor, indices: Any, values: Tensor, *args: Any, **named: Any) -> Any:
    _check_index(tensor, indices)
    return _put(func(tensor, indices, values, *args, **named), _common(func, [tensor, values]))


def _copy(func: Callable[..., Any], tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return func(tensor, *args, **kwargs)  # its own mark stays


def _to_array(func: Callable[..., Any], tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    if device_of(tensor).type == "cuda":
        raise TypeError(
            f"can't convert {device_of(tensor)} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to "
            "host memory first."
        )
    return func(tensor, *args, **kwargs)


def _get_grad(func: Callable[..., Any], tensor: Tensor) -> Tensor | None:
    found: Tensor | None = func(tensor)
    return _put(found, device_of(tensor))


def _set_grad(func: Callable[..., Any], tensor: Tensor, value: Tensor | None) -> None:
    if value is not None and device_of(value) != device_of(tensor):
        raise RuntimeError(
            f"attempting to assign a gradient with device type '{device_of(value)}' to a tensor with device type "
            f"'{device_of(tensor)}'"
        )
    func(tensor, value)


def _set_data(func: Callable[..., Any], tensor: Tensor, value: Tensor) -> None:
    func(tensor, value)
    _put(tensor, device_of(value))


def _gradients(func: Callable[..., Any], outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    found = func(outputs, inputs, *args, **kwargs)
    for gradient, tensor in zip(found, _tensors(inputs), strict=True):
        _put(gradient, device_of(tensor))
    return found


def _pin(func: Callable[..., Any], tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if device_of(tensor).type == "cuda":
        raise RuntimeError(f"cannot pin {device_of(tensor)} memory, only dense CPU tensors can be pinned")
    return tensor


def _getter(name: str) -> Any:
    return getattr(Tensor, name).__get__


def _setter(name: str) -> Any:
    return getattr(Tensor, name).__set__


_SPECIAL: dict[Any, Callable[..., Any]] = {
    _getter("device"): lambda func, tensor: device_of(tensor),
    _getter("is_cuda"): lambda func, tensor: device_of(tensor).type == "cuda",
    _getter("is_cpu"): lambda func, tensor: device_of(tensor) == CPU,
    Tensor.get_device: lambda func, tensor: -1 if device_of(tensor).index is None else device_of(tensor).index,
    _getter("grad"): _get_grad,
    _setter("grad"): _set_grad,
    _setter("data"): _set_data,
    Tensor.to: _move,
    Tensor.cpu: lambda func, tensor, *args, **kwargs: _move(Tensor.to, tensor, "cpu"),
    Tensor.cuda: lambda func, tensor, device=None, *args, **kwargs: _move(Tensor.to, tensor, device or 0),
    Tensor.type: _type,
    Tensor.type_as: lambda func, tensor, other: _move(Tensor.to, tensor, other),
    Tensor.numpy: _to_array,
    Tensor.__array__: _to_array,
    Tensor.copy_: _copy,
    Tensor.pin_memory: _pin,
    Tensor.__getitem__: _get_item,
    Tensor.__setitem__: _set_item,
    Tensor.index_put_: _index_put,
    Tensor.index_put: _index_put,
    torch.as_tensor: _as_tensor,
    torch.asarray: _as_tensor,
    torch.autograd.grad: _gradients,
}


class _Generator(torch.Generator):
    """Draws the CPU's numbers, and says that it is on another device."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        return super().__new__(cls, _true(_named(device)))  # type: ignore[call-arg]

    def __init__(self, device: Any = "cpu") -> None:
        self._device = _named(device)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self._device


class _Mode(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _SPECIAL.get(func, _compute)(func, *args, **dict(kwargs or {}))


@contextmanager
def pretended_gpus() -> Iterator[None]:
    """Within it there are `GPUS` of them, in this thread and in those that it starts."""
    mode = _Mode()
    load = torch.load
    start_thread = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]
    new_parameter, new_autocast = nn.Parameter.__new__, torch.autocast.__init__
    autocasts, autocast_dtype = torch.is_autocast_enabled, torch.get_autocast_dtype

    def thread(self: threading.Thread) -> None:  # a mode is a thread's own
        with mode:
            start_thread(self)

    def parameter(
        cls: type, data: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Any:  # torch calls no mode for it
        # No mode is called for it.
        made = new_parameter(cls, data, *args, **kwargs)  # type: ignore[arg-type]
        return made if data is None else _put(made, getattr(data, _MARK, CPU))

    def autocast(self: Any, device_type: str, dtype: Any = None, *args: Any, **kwargs: Any) -> None:
        if device_type == "cuda":
            device_type, dtype = "cpu", dtype or torch.float16
        new_autocast(self, device_type, dtype, *args, **kwargs)

    def loaded(file: Any, map_location: Any = None, **kwargs: Any) -> Any:  # without one: to where it was
        if not isinstance(map_location, str | torch.device):
            return load(file, map_location, **kwargs)
        device = _named(map_location)
        return _put(load(file, _true(device), **kwargs), device)

    def on_cpu(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda device_type="cuda": call("cpu" if device_type == "cuda" else device_type)

    changes: list[tuple[Any, str, Any]] = [
        (threading.Thread, "_bootstrap_inner", thread),
        (nn.Parameter, "__new__", staticmethod(parameter)),
        (torch.autocast, "__init__", autocast),
        (torch, "is_autocast_enabled", on_cpu(autocasts)),
        (torch, "get_autocast_dtype", on_cpu(autocast_dtype)),
        (torch, "Generator", _Generator),
        (torch, "load", loaded),
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "device_count", lambda: GPUS),
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "set_device", lambda device: None),
        (torch.cuda, "get_device_name", lambda device=None: "a pretended GPU"),
        (torch.cuda, "is_bf16_supported", lambda *args, **kwargs: True),
        (torch.cuda, "mem_get_info", lambda device=None: (MEMORY, MEMORY)),
        (torch.cuda, "memory_reserved", lambda device=None: 0),
        (torch.cuda, "memory_allocated", lambda device=None: 0),
        (torch.cuda, "max_memory_allocated", lambda device=None: 0),
        (torch.cuda, "empty_cache", lambda: None),
        (torch.cuda.random, "get_rng_state", lambda device=None: torch.get_rng_state()),  # its numbers are the CPU's
        (torch.cuda.random, "set_rng_state", lambda state, device=None: torch.set_rng_state(state)),
        (torch.cuda, "is_current_stream_capturing", lambda: False),
        (torch.accelerator, "current_accelerator", lambda *args, **kwargs: None),  # optimizers ask about its graphs
    ]
    with ExitStack() as stack:
        for owner, name, value in changes:
            stack.enter_context(patch.object(owner, name, value))
        stack.enter_context(mode)
        yield


def on_one_gpu(gpt4roi: GPT4RoI) -> GPT4RoI:
    """The model, moved."""
    gpt4roi.model.to("cuda")
    return gpt4roi


def _spread(gpt4roi: GPT4RoI, places: dict[str, int]) -> GPT4RoI:
    from accelerate import dispatch_model

    dispatch_model(gpt4roi.model, places, skip_keys=gpt4roi.model._skip_keys_device_placement)
    return gpt4roi


PARTS = {"vision_tower": 0, "multi_modal_projector": 0, "region_encoder": 0, "language_model": 1}


def by_parts(gpt4roi: GPT4RoI) -> GPT4RoI:
    """The model, with the language model on the second GPU."""
    return _spread(gpt4roi, PARTS)


def by_layers(gpt4roi: GPT4RoI) -> GPT4RoI:
    """The model, of two layers: the first one with all that comes before it, then the second one with the rest."""
    decoder = "language_model.model"
    first = ["embed_tokens", "rotary_emb", "layers.0"]
    second = [f"{decoder}.layers.1", f"{decoder}.norm", "language_model.lm_head"]
    before = {name: 0 for name in PARTS if name != "language_model"}
    return _spread(gpt4roi, {**before, **{f"{decoder}.{name}": 0 for name in first}, **dict.fromkeys(second, 1)})


PLACES = {"one GPU": on_one_gpu, "by layers": by_layers, "by parts": by_parts}
