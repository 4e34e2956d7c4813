"""Comparison with the numbers recorded from the authors' code, on this device and in half precision."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from gpt4roi_nb.check_gpu.device_config import GOLDEN, DeviceConfig, exact_float32
from gpt4roi_nb.check_gpu.report import Measurement, NotThisTime, Section
from gpt4roi_nb.checkpoint.keys import to_original
from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.images import load_image
from gpt4roi_nb.memory import dtype_name
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.processor import GPT4RoIImageProcessor
from gpt4roi_nb.roi import RegionEncoder

REGION_DEMAND, LOGITS_DEMAND, LOSS_DEMAND = 1e-4, 1e-3, 1e-4  # docs/how_it_works.md
ENCODER_DEMAND = 2e-5
GRID, CHANNELS, LEVELS = 16, 64, 4  # of the small encoder
TEXT_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "rms_norm_eps",
    "max_position_embeddings",
)
VISION_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "patch_size",
    "image_size",
    "hidden_act",
)


def recorded(name: str) -> Path:
    """The path of a file of the recorded numbers; raises NotThisTime if it does not exist."""
    if not (GOLDEN / name).is_file():
        raise NotThisTime(
            "the recorded numbers (tests/golden) are only in the repository, and this is an installed copy"
        )
    return GOLDEN / name


def recipe() -> ModuleType:
    """The module, stored beside the numbers, that makes the weights from their names."""
    file = recorded("recipe.py")
    spec = importlib.util.spec_from_file_location("golden_recipe_of_check_gpu", file)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


@torch.no_grad()
def fill(module: nn.Module, prefix: str = "", strip: str = "") -> set[str]:
    """Set every parameter from the recipe, by the authors' name for it; returns these names."""
    made, names = recipe(), set()
    for name, parameter in module.named_parameters():
        original = to_original(prefix + name).removeprefix(strip)
        names.add(original)
        parameter.copy_(torch.from_numpy(made.tensor_for(original, parameter.shape)))
    return names


def recorded_config() -> GPT4RoIConfig:
    """The model's configuration: the real widths, two language layers, and the authors' token ids."""
    sizes = json.loads(recorded("e2e_config.json").read_text(encoding="utf-8"))
    text, vision = sizes["model_config"], sizes["vision_config"]
    return GPT4RoIConfig(
        text_config={name: text[name] for name in TEXT_SIZES},
        vision_config={name: vision[name] for name in VISION_SIZES},
        image_token_id=vision["im_patch_token"],
        region_token_id=vision["bbox_token"],
    )


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Copies of a module's parameters, on the CPU."""
    return {name: weight.detach().cpu().clone() for name, weight in module.named_parameters()}


def set_weights(module: nn.Module, weights: dict[str, Tensor], device: torch.device, dtype: torch.dtype) -> None:
    """Set a module's parameters, from float32 each time; buffers such as the rotary frequencies stay float32."""
    for name, parameter in module.named_parameters():
        parameter.data = weights[name].to(device, dtype)


class SmallEncoder:
    """The region encoder with 64 channels, and the authors' region vectors for two images' features and boxes."""

    def __init__(self, device_config: DeviceConfig) -> None:
        vision = {"hidden_size": CHANNELS, "intermediate_size": 64, "num_hidden_layers": 12, "num_attention_heads": 4}
        config = GPT4RoIConfig(
            vision_config={**vision, "image_size": 224, "patch_size": 14}, region_config={"hidden_size": CHANNELS}
        )
        made, numbers = recipe(), np.load(GOLDEN / "roi_small.npz")
        self._encoder = RegionEncoder(config).eval()
        fill(self._encoder, "region_encoder.", "model.spi_module.")
        self._weights = weights_of(self._encoder)
        self._features = [
            torch.from_numpy(made.raw_normal(f"input.feat{level}", (2, GRID**2, CHANNELS))).to(device_config.device)
            for level in range(LEVELS)
        ]
        self._boxes = [torch.from_numpy(numbers[f"boxes.img{image}"]).to(device_config.device) for image in range(2)]
        self._expected = torch.from_numpy(np.concatenate([numbers["out.img0"], numbers["out.img1"]]))
        self._device = device_config.device

    @torch.inference_mode()
    def deviation(self, dtype: torch.dtype) -> float:
        """The largest deviation among all numbers of all region vectors."""
        set_weights(self._encoder, self._weights, self._device, dtype)
        vectors = self._encoder([features.to(dtype) for features in self._features], self._boxes)
        return largest(vectors, self._expected)


class RealWidths:
    """The model at its real widths (two language layers), and the authors' results for an image and a prompt."""

    def __init__(self, device_config: DeviceConfig) -> None:
        if device_config.small:
            raise NotThisTime("the real widths are left out of the small size (tests/test_golden_model.py has them)")
        self._device = device_config.device
        with self._device, no_init_weights():  # every weight is set below
            self._model = GPT4RoIForConditionalGeneration(recorded_config()).eval()
        fill(self._model)
        self._weights = weights_of(self._model)
        self._golden = np.load(GOLDEN / "e2e_A.npz")
        self._pixels = GPT4RoIImageProcessor(224).pixels(load_image(GOLDEN / "image0.png"))[None]

    @torch.inference_mode()
    def measurement(self, dtype: torch.dtype, demanded: bool = False) -> Measurement:
        """The deviations of one forward pass. demanded: whether they must be within the limits."""
        set_weights(self._model, self._weights, self._device, dtype)
        golden = {name: torch.from_numpy(self._golden[f"A.{name}"]) for name in ("input_ids", "labels", "boxes")}
        outputs: Any = self._model(
            input_ids=golden["input_ids"][None].to(self._device),
            labels=golden["labels"][None].to(self._device),
            pixel_values=self._pixels.to(self._device),
            boxes=[golden["boxes"].to(self._device)],
        )
        region = largest(outputs.region_features, torch.from_numpy(self._golden["A.embeds_bbox"]))
        logits = largest(outputs.logits[0, -8:], torch.from_numpy(self._golden["A.logits_last8"]))
        loss = abs(float(outputs.loss) - float(self._golden["A.loss"]))
        same = float((outputs.logits[0].argmax(-1).cpu().numpy() == self._golden["A.argmax"]).mean())
        met = region <= REGION_DEMAND and logits <= LOGITS_DEMAND and loss <= LOSS_DEMAND and same == 1
        return Measurement(
            f"region vector {region:.1e}, logits {logits:.1e}, loss {loss:.1e}, same likeliest token at {same:.1%}",
            f"{REGION_DEMAND:g}, {LOGITS_DEMAND:g}, {LOSS_DEMAND:g}, 100%" if demanded else "",
            met if demanded else None,
        )


def largest(computed: Tensor, expected: Tensor) -> float:
    """The largest absolute deviation; raises FloatingPointError if some numbers are not finite."""
    found = float((computed.float().cpu() - expected.float()).abs().max())
    if not np.isfinite(found):
        raise FloatingPointError("some of the numbers are NaN or infinite")
    return found


def sections(device_config: DeviceConfig) -> list[Section]:
    halves = (torch.bfloat16, torch.float16)

    def encoder_in(encoder: SmallEncoder, dtype: torch.dtype) -> Measurement:
        return Measurement(f"{encoder.deviation(dtype):.1e}")

    def exact_encoder(encoder: SmallEncoder) -> Measurement:
        with exact_float32():
            deviation = encoder.deviation(torch.float32)
        return Measurement(f"{deviation:.1e}", f"at most {ENCODER_DEMAND:g}", deviation <= ENCODER_DEMAND)

    def exact_model(model: RealWidths) -> Measurement:
        with exact_float32():
            return model.measurement(torch.float32, demanded=True)

    def tf32(measure: Any) -> Measurement:
        if not device_config.on_gpu:
            raise NotThisTime("a CPU has no TF32")
        return measure()

    small = [
        ("region vectors, float32 without TF32", exact_encoder),
        (
            "region vectors, float32 with TF32 convolutions (PyTorch's default)",
            lambda encoder: tf32(lambda: encoder_in(encoder, torch.float32)),
        ),
        *((f"region vectors, {dtype_name(dtype)}", lambda e, dtype=dtype: encoder_in(e, dtype)) for dtype in halves),
    ]
    whole = [
        ("one pass, float32 without TF32", exact_model),
        (
            "one pass, float32 with TF32 convolutions",
            lambda model: tf32(lambda: model.measurement(torch.float32)),
        ),
        *((f"one pass, {dtype_name(dtype)}", lambda model, dtype=dtype: model.measurement(dtype)) for dtype in halves),
    ]
    return [
        Section(
            "The authors' numbers: region encoder, 64 channels, largest deviation",
            small,
            share=0.15,
            prepare=lambda: SmallEncoder(device_config),
        ),
        Section(
            "The authors' numbers: whole model at its real widths, largest deviations",
            whole,
            share=0.3,
            prepare=lambda: RealWidths(device_config),
        ),
    ]
