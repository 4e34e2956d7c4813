"""The memory that a model and its training take, compared with docs/memory.md, and the time of a training step."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import nn

from gpt4roi_nb.check_gpu.device_config import DeviceConfig, milliseconds
from gpt4roi_nb.check_gpu.random_model import RandomModel, boxes, image, make
from gpt4roi_nb.check_gpu.report import Measurement, NotThisTime, Section
from gpt4roi_nb.memory import in_words, session_bytes, skeleton, weight_bytes
from gpt4roi_nb.quantization import QUANTIZATIONS, check_quantization, quantised_linears
from gpt4roi_nb.session.gpt4roi import GPT4RoI

REGIONS = 64  # the largest session of docs/memory.md
LEARNING_RATE = 2e-5


def held_bytes(model: nn.Module) -> int:
    """Bytes of all weights, including the scales of quantised ones."""
    total = sum(parameter.nbytes for parameter in model.parameters())
    for module in model.modules():
        weight: Any = getattr(module, "weight", None)
        scales = [getattr(weight, "SCB", None)]
        if (state := getattr(weight, "quant_state", None)) is not None:
            scales += [state.absmax, state.code]
        total += sum(scale.nbytes for scale in scales if isinstance(scale, torch.Tensor))
    return total


def weights(
    device_config: DeviceConfig, gpt4roi: GPT4RoI, dtype: torch.dtype, quantization: str | None = None
) -> Measurement:
    """The bytes of the tensors, and on a GPU those that its allocator counts."""
    computed = weight_bytes(skeleton(gpt4roi.model.config), dtype, quantization)  # type: ignore[arg-type]
    held = held_bytes(gpt4roi.model)
    allocated = (
        f", allocated {in_words(torch.cuda.memory_allocated(device_config.device))}" if device_config.on_gpu else ""
    )
    return Measurement(in_words(held) + allocated, in_words(computed), held == computed)


def session(device_config: DeviceConfig, gpt4roi: GPT4RoI, dtype: torch.dtype, regions: int) -> Measurement:
    """The peak memory of a question about so many regions, besides the weights."""
    if not device_config.on_gpu:
        raise NotThisTime("only a GPU's allocator measures the memory of a forward pass")
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device_config.device)
    torch.cuda.reset_peak_memory_stats(device_config.device)
    question = "Compare " + ", ".join(f"<region{k + 1}>" for k in range(regions)) + "."
    answer = gpt4roi.session(image()).ask(question, boxes(regions))
    most = torch.cuda.max_memory_allocated(device_config.device) - before
    limit = session_bytes(skeleton(gpt4roi.model.config), dtype, regions)  # type: ignore[arg-type]
    tokens = answer.prompt_tokens + len(answer.token_ids)
    return Measurement(f"{in_words(most)}, {tokens} tokens", f"at most {in_words(limit)}", most <= limit)


def quantised(device_config: DeviceConfig, dtype: torch.dtype, quantization: str) -> Measurement:
    """The memory of a new model whose matrices are quantised as `from_pretrained` does it."""
    check_quantization(quantization)
    import bitsandbytes  # type: ignore[import-untyped]

    gpt4roi = make(device_config, dtype)
    model: Any = gpt4roi.model
    for name, linear in quantised_linears(model).items():
        sizes = (linear.in_features, linear.out_features, linear.bias is not None)
        kept = linear.weight.data.cpu()  # bitsandbytes quantises it while moving it to the device
        new: Any
        if quantization == "8bit":
            new = bitsandbytes.nn.Linear8bitLt(*sizes, has_fp16_weights=False, device="meta")
            new.weight = bitsandbytes.nn.Int8Params(kept, requires_grad=False, has_fp16_weights=False)
        else:
            new = bitsandbytes.nn.Linear4bit(*sizes, compute_dtype=dtype, device="meta")
            new.weight = bitsandbytes.nn.Params4bit(
                kept, requires_grad=False, quant_type="nf4", compress_statistics=False
            )
        new.bias = linear.bias
        model.set_submodule(name, new.to(device_config.device))
    del linear
    torch.cuda.empty_cache()
    measurement = weights(device_config, gpt4roi, dtype, quantization)
    said = gpt4roi.session(image()).ask("What is <region1>?", boxes(1), max_new_tokens=4)
    gpt4roi.unload()
    return Measurement(
        f"{measurement.measured}; {len(said.token_ids)} tokens written", measurement.beside, measurement.met
    )


def training_step(
    device_config: DeviceConfig, gpt4roi: GPT4RoI, stage: int, lora: dict[str, Any] | None
) -> Measurement:
    """Time and memory of forward, backward and AdamW on one record, in bfloat16 as in `train`."""
    from gpt4roi_nb.train.parts import STAGES, choose_parts

    model, device = gpt4roi.model, device_config.device
    with gpt4roi.training_step():
        parts = choose_parts(model, STAGES[stage], lora)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
        turns = [[("user", "What is <region1>?"), ("assistant", "a red star")]]
        batch = gpt4roi.processor([image()], turns, boxes=[boxes(1)])
        inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask", "labels", "pixel_values")}
        inputs["boxes"] = [each.to(device) for each in batch["boxes"]]
        if device_config.on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        model.train()
        losses, times = [], []
        try:
            for _ in range(3):
                started = time.perf_counter()
                with torch.autocast(device.type, torch.bfloat16):
                    loss = model(**inputs).loss
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                losses.append(float(loss.detach()))
                device_config.synchronise()
                times.append(time.perf_counter() - started)
        finally:
            model.eval()
    peak = f", peak memory {in_words(torch.cuda.max_memory_allocated(device))}" if device_config.on_gpu else ""
    count = sum(part.trained for part in parts)
    said = f"{milliseconds(min(times[1:]))}{peak}, {count:,} weights trained, loss {losses[0]:.3g} → {losses[-1]:.3g}"
    return Measurement(said, "finite losses", all(map(math.isfinite, losses)))


def memory_section(device_config: DeviceConfig, model: RandomModel) -> Section:
    dtype = model.dtype
    regions = 8 if device_config.small else REGIONS
    rows = [
        ("weights in half precision", lambda gpt4roi: weights(device_config, gpt4roi, dtype)),
        (f"a session with {regions} regions", lambda gpt4roi: session(device_config, gpt4roi, dtype, regions)),
    ]
    return Section("Memory, compared with docs/memory.md", rows, share=0.6, prepare=model.get)


def training_section(device_config: DeviceConfig, model: RandomModel) -> Section:
    rows = [
        ("stage 1, one step", lambda gpt4roi: training_step(device_config, gpt4roi, 1, None)),
        ("stage 2 with LoRA, one step", lambda gpt4roi: training_step(device_config, gpt4roi, 2, {})),
    ]
    return Section("Training, batch of one, bfloat16", rows, share=0.7, prepare=model.get)


def quantised_section(device_config: DeviceConfig, model: RandomModel) -> Section:
    rows = [
        (f"weights in {name.replace('bit', ' bits')}", lambda _, name=name: quantised(device_config, model.dtype, name))
        for name in QUANTIZATIONS
    ]
    return Section("Memory of a quantised language model", rows, share=0.8, prepare=model.drop)
