"""A model of GPT4RoI-7B's shapes with random weights, created directly on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.initialization import no_init_weights

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.check_gpu.device_config import DeviceConfig
from gpt4roi_nb.checkpoint.load import DEMO_CHECKPOINT
from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.inference.detokenizer import StreamingDetokenizer
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.processor import GPT4RoIImageProcessor, GPT4RoIProcessor
from gpt4roi_nb.session.gpt4roi import GPT4RoI
from gpt4roi_nb.tokenizer import IMAGE_TOKEN, REGION_TOKEN

WIDTH, HEIGHT = 640, 480
QUESTION = "What is <region1>?"
SMALL_VISION = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 12, "num_attention_heads": 4}
SMALL_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


class Endless(StreamingDetokenizer):
    """Never ends an answer, whatever tokens come, since random weights give no sensible end."""

    def push(self, token_id: int, logprob: float) -> str:
        piece = super().push(token_id, logprob)
        self.finished = False
        return piece


def image() -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8 noise."""
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def boxes(count: int) -> list[Box]:
    """This many different boxes, pixel xyxy."""
    return [(10.0 + 4 * (k % 64), 20.0 + k // 4, 200.0 + 5 * (k % 64), 240.0 + k // 2) for k in range(count)]


class RandomModel:
    """The model, created at its first use and shared by all sections that need it."""

    def __init__(self, device_config: DeviceConfig, dtype: torch.dtype) -> None:
        self.device_config, self.dtype = device_config, dtype
        self._made: GPT4RoI | None = None

    def get(self) -> GPT4RoI:
        if self._made is None:
            self._made = make(self.device_config, self.dtype)
        return self._made

    def drop(self) -> None:
        """Free its memory."""
        if self._made is not None:
            self._made.unload()
        self._made = None


def make(device_config: DeviceConfig, dtype: torch.dtype) -> GPT4RoI:
    """Create the model with a processor.

    Its tokenizer is the demo checkpoint's, since LLaMA's cannot be shipped: prompts are about as long.
    """
    demo = GPT4RoIProcessor.from_pretrained(DEMO_CHECKPOINT)
    id_of = demo.tokenizer.convert_tokens_to_ids
    sizes: dict[str, Any] = {}
    if device_config.small:
        sizes = {
            "text_config": {**SMALL_TEXT, "vocab_size": len(demo.tokenizer)},
            "vision_config": {"model_type": "clip_vision_model", **SMALL_VISION, "image_size": 56, "patch_size": 14},
            "region_config": {"hidden_size": 64, "num_fusion_rounds": 2, "num_groups": 8, "output_size": 4},
        }
    config = GPT4RoIConfig(image_token_id=id_of(IMAGE_TOKEN), region_token_id=id_of(REGION_TOKEN), **sizes)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # 7 billion weights in float32 first would need twice the memory
    try:
        with device_config.device, no_init_weights():
            model = GPT4RoIForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    randomise(model)
    processor = GPT4RoIProcessor(
        GPT4RoIImageProcessor(config.vision_config.image_size), demo.tokenizer, config.num_image_tokens
    )
    return GPT4RoI(model, processor, "random weights")


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> None:
    """Set weights of a usual initial scale: normal, scaled by the number of inputs; norms 1, biases 0."""
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.dim() < 2:
            weight.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            weight.normal_(0.0, weight[0].numel() ** -0.5, generator=generator)
