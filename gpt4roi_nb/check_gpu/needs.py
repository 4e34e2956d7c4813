"""The memory that a model and its training take, compared with docs/memory.md, and the time of a training step."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import nn

from gpt4roi_nb.check_gpu.random_model import RandomModel, boxes, image, make
from gpt4roi_nb.check_gpu.report import Figure, NotThisTime, Section
from gpt4roi_nb.check_gpu.setting import Setting, milliseconds
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


def weights(setting: Setting, gpt4roi: GPT4RoI, dtype: torch.dtype, quantization: str | None = None) -> Figure:
    """The bytes of the tensors, and on a GPU those that its allocator counts."""
    computed = weight_bytes(skeleton(gpt4roi.model.config), dtype, quantization)  # type: ignore[arg-type]
    held = held_bytes(gpt4roi.model)
    allocated = f", allocated {in_words(torch.cuda.memory_allocated(setting.device))}" if setting.on_gpu else ""
    return Figure(in_words(held) + allocated, in_words(computed), held == computed)


def session(setting: Setting, gpt4roi: GPT4RoI, dtype: torch.dtype, regions: int) -> Figure:
    """The peak memory of a question about so many regions, besides the weights."""
    if not setting.on_gpu:
        raise NotThisTime("only a GPU's allocator measures the memory of a forward pass")
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(setting.device)
    torch.cuda.reset_peak_memory_stats(setting.device)
    question = "Compare " + ", ".join(f"<region{k + 1}>" for k in range(regions)) + "."
    answer = gpt4roi.session(image()).ask(question, boxes(regions))
    most = torch.cuda.max_memory_allocated(setting.device) - before
    limit = session_bytes(skeleton(gpt4roi.model.config), dtype, regions)  # type: ignore[arg-type]
    tokens = answer.prompt_tokens + len(answer.token_ids)
    return Figure(f"{in_words(most)}, {tokens} tokens", f"at most {in_words(limit)}", most <= limit)


def quantised(setting: Setting, dtype: torch.dtype, quantization: str) -> Figure:
    """The memory of a new model whose matrices are quantised as `from_pretrained` does it."""
    check_quantization(quantization)
    import bitsandbytes  # type: ignore[import-untyped]

    gpt4roi = make(setting, dtype)
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
        model.set_submodule(name, new.to(setting.device))
    del linear
    torch.cuda.empty_cache()
    figure = weights(setting, gpt4roi, dtype, quantization)
    said = gpt4roi.session(image()).ask("What is <region1>?", boxes(1), max_new_tokens=4)
    gpt4roi.unload()
    return Figure(f"{figure.measured}; {len(said.token_ids)} tokens written", figure.beside, figure.met)


def training_step(setting: Setting, gpt4roi: GPT4RoI, stage: int, lora: dict[str, Any] | None) -> Figure:
    """Time and memory of forward, backward and AdamW on one record, in bfloat16 as in `train`."""
    from gpt4roi_nb.train.parts import STAGES, choose_parts

    model, device = gpt4roi.model, setting.device
    with gpt4roi.training_step():
        parts = choose_parts(model, STAGES[stage], lora)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
        turns = [[("user", "What is <region1>?"), ("assistant", "a red star")]]
        batch = gpt4roi.processor([image()], turns, boxes=[boxes(1)])
        inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask", "labels", "pixel_values")}
        inputs["boxes"] = [each.to(device) for each in batch["boxes"]]
        if setting.on_gpu:
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
                setting.synchronise()
                times.append(time.perf_counter() - started)
        finally:
            model.eval()
    peak = f", peak memory {in_words(torch.cuda.max_memory_allocated(device))}" if setting.on_gpu else ""
    count = sum(part.trained for part in parts)
    said = f"{milliseconds(min(times[1:]))}{peak}, {count:,} weights trained, loss {losses[0]:.3g} → {losses[-1]:.3g}"
    return Figure(said, "finite losses", all(map(math.isfinite, losses)))


def memory_section(setting: Setting, model: RandomModel) -> Section:
    dtype = model.dtype
    regions = 8 if setting.small else REGIONS
    rows = [
        ("weights in half precision", lambda gpt4roi: weights(setting, gpt4roi, dtype)),
        (f"a session with {regions} regions", lambda gpt4roi: session(setting, gpt4roi, dtype, regions)),
    ]
    return Section("Memory, compared with docs/memory.md", rows, share=0.6, prepare=model.get)


def training_section(setting: Setting, model: RandomModel) -> Section:
    rows = [
        ("stage 1, one step", lambda gpt4roi: training_step(setting, gpt4roi, 1, None)),
        ("stage 2 with LoRA, one step", lambda gpt4roi: training_step(setting, gpt4roi, 2, {})),
    ]
    return Section("Training, batch of one, bfloat16", rows, share=0.7, prepare=model.get)


def quantised_section(setting: Setting, model: RandomModel) -> Section:
    rows = [
        (f"weights in {name.replace('bit', ' bits')}", lambda _, name=name: quantised(setting, model.dtype, name))
        for name in QUANTIZATIONS
    ]
    return Section("Memory of a quantised language model", rows, share=0.8, prepare=model.drop)
