"""The attention modules of models of transformers, their eager mode, and names for the parts of a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from gpt4roi_nb.capture.spans import FIRST_TOKEN
from gpt4roi_nb.models.prompts import PromptedPrompt


def spans_of(prompt: PromptedPrompt, model: Any) -> dict[str, list[int]]:
    """Return prompt positions by name, each in one: as `capture.spans.named_spans`, with "image2", … if more are shown.

    An image's are those that hold its features; what else stands in its place belongs to the marks. "first token" is
    empty where the first image begins the prompt, as in PaliGemma.
    """
    last = max((name for name in prompt.spans if name.startswith("question")), key=lambda name: int(name[8:]))
    turns = [name for name in prompt.spans if name.startswith(("question", "answer")) and name != last]
    images = {
        f"image{number + 1}" if number else "image": features_at(prompt, number, model)
        for number in sorted({image for image in prompt.images if image >= 0})
    }
    first = {0} & {place for places in images.values() for place in places}
    spans: dict[str, list[int]] = {FIRST_TOKEN: [] if first else [0], **images}
    spans["earlier turns"] = sorted(place for name in turns for place in prompt.spans[name])
    spans["question"] = list(prompt.spans[last])
    taken = {place for places in spans.values() for place in places}
    spans["marks"] = [place for place in range(len(prompt.input_ids)) if place not in taken]
    return spans


def features_at(prompt: PromptedPrompt, image: int, model: Any) -> list[int]:
    """Return the positions of a prompt that hold the features of one of its images, in their order."""
    places = [place for place, shown in enumerate(prompt.images) if shown == image]
    if model.config.model_type == "kosmos-2":
        return places[-1 - model.config.latent_query_num : -1]  # the last is a mark; a mark and `<s>` stand before them
    feature = getattr(model.config, "image_token_id", None)
    return [place for place in places if prompt.input_ids[place] == feature] or places


def attention_modules(model: Any) -> list[nn.Module]:
    """Return the modules that attend to the prompt, one per layer of the language model, in order; [] if unknown.

    Florence-2's decoder attends to it by cross-attention.
    """
    if model.config.model_type == "kosmos-2":
        layers, name = model.text_model.model.layers, "self_attn"
    elif model.config.model_type == "florence2":
        layers, name = model.model.language_model.decoder.layers, "encoder_attn"
    else:
        inner = getattr(model, "model", None)
        language = getattr(inner, "language_model", getattr(inner, "text_model", None))
        layers, name = getattr(language, "layers", ()), "self_attn"
    found: list[nn.Module] = [getattr(layer, name) for layer in layers if hasattr(layer, name)]
    return found if len(found) == len(layers) else []


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Switch all of a model to eager mode, where attention weights exist, and back, also after an error."""
    configs = {id(config): config for part in model.modules() if (config := getattr(part, "config", None)) is not None}
    before = {key: config._attn_implementation_internal for key, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation_internal = "eager"
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = before[key]
