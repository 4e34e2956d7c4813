"""What a second question costs at the original's real sizes, with random weights.

Tower (CLIP ViT-L/14) and region encoder are whole; the language model keeps its width but has two layers, since what
is compared here does not depend on its depth and 7B in float32 would not fit beside the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timing import measured, quotient

from gpt4roi_nb import GPT4RoI, GPT4RoIConfig, GPT4RoIForConditionalGeneration, GPT4RoIProcessor
from gpt4roi_nb.processor import GPT4RoIImageProcessor
from gpt4roi_nb.tokenizer import tokenizer_from_sentencepiece

TOKENIZER = Path(__file__).parents[1] / "golden" / "tokenizer" / "tokenizer.model"
REPEATS = 3
FIRST, SECOND = (40, 30, 210, 180), (220, 60, 300, 190)
QUESTION, FOLLOW_UP = "What is <region1>?", "And why is it next to <region2>?"


def real_gpt4roi() -> GPT4RoI:
    tokenizer = tokenizer_from_sentencepiece(TOKENIZER)
    config = GPT4RoIConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 2,
            "num_attention_heads": 32,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<im_patch>"),
        region_token_id=tokenizer.convert_tokens_to_ids("<bbox>"),
    )
    torch.manual_seed(0)
    model = GPT4RoIForConditionalGeneration(config)
    processor = GPT4RoIProcessor(GPT4RoIImageProcessor(), tokenizer, config.num_image_tokens)
    return GPT4RoI(model, processor, "random weights of the original's sizes")


def has_bf16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def run() -> Iterator[dict[str, object]]:
    gpt4roi = real_gpt4roi()
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    session = gpt4roi.session(image)  # also warms up
    encoded = session._encoded

    def first() -> None:
        type(encoded)(gpt4roi, session.image).region_tokens([FIRST])

    def new_box() -> None:
        encoded._known.clear()
        encoded.region_tokens([SECOND])

    found = measured({"first": first, "new": new_box}, REPEATS)
    ratio, detail = quotient(found["new"], found["first"])
    what = "vision and region work of a second question with a new box / of the first"
    yield {"what": what, "ratio": ratio, "demand": "<= 0.05", "detail": detail}

    lengths: list[int] = []
    hook = gpt4roi.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    first_answer = session.ask(QUESTION, [FIRST], max_new_tokens=8)
    lengths.clear()
    follow_up = session.ask(FOLLOW_UP, [SECOND], max_new_tokens=8)
    hook.remove()
    new_tokens = follow_up.prompt_tokens - first_answer.prompt_tokens
    yield {
        "what": "tokens that a follow-up computes before its answer / tokens by which its prompt is longer",
        "ratio": lengths[0] / new_tokens,
        "demand": "<= 1.2",  # the mark that closed the first prompt is read again
        "detail": f"{lengths[0]} of {follow_up.prompt_tokens}; the first prompt had {first_answer.prompt_tokens}",
    }

    if has_bf16():
        pixel_values = gpt4roi.processor.image_processor(image)["pixel_values"]
        models = {"float32": gpt4roi.model, "bfloat16": copy.deepcopy(gpt4roi.model).to(torch.bfloat16)}
        with torch.inference_mode():
            models["bfloat16"].encode_image(pixel_values)
            encoding = {name: partial(model.encode_image, pixel_values) for name, model in models.items()}
            found = measured(encoding, REPEATS)
        ratio, detail = quotient(found["bfloat16"], found["float32"])
        yield {"what": "encoding an image in bfloat16 / in float32", "ratio": ratio, "demand": "", "detail": detail}
