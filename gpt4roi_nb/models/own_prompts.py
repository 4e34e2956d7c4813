"""Whether a model can be asked through this package: its class, and prompts that are those of its own processor."""

from __future__ import annotations

import inspect
from typing import Any

from PIL import Image
from transformers import PreTrainedModel

from gpt4roi_nb.models.families import ANY_OTHER, family_of
from gpt4roi_nb.models.images import prepare
from gpt4roi_nb.models.prompts import apply_template, build

_QUESTION = "What is this?"
_LAYERS = {"full_attention", "sliding_attention", "chunked_attention", "linear_attention"}


def check_class(config: Any, model_class: type[PreTrainedModel], processor: Any) -> None:
    """Check that a model reads images in the place of tokens, and that what its cache holds is known.

    Args:
        config: of the model.
        model_class: its class.
        processor: its own.

    Raises:
        ValueError: if it does not; the message says what is missing.
    """
    kind = config.model_type
    is_known = family_of(kind) is not ANY_OTHER
    text = config.get_text_config(decoder=True)
    others = set(getattr(text, "layer_types", None) or ()) - _LAYERS
    lacking = ""
    if getattr(config, "is_encoder_decoder", False) and not is_known:
        lacking = "it has an encoder and a decoder"
    elif others:
        lacking = f"it has layers of a kind that was not tried here ({', '.join(sorted(others))})"
    elif not is_known and not _in_place_of_tokens(model_class):
        lacking = "its class does not put features of images in the place of tokens"
    elif family_of(kind).format == "chat":
        if not isinstance(getattr(processor, "image_token", None), str):
            lacking = "its processor has no token for an image"
        elif not getattr(processor, "chat_template", None):
            lacking = "its processor has no chat template (that of a base model may lack one; take the instructed one)"
    if lacking:
        raise ValueError(f"{kind} cannot be asked through this package: {lacking}")


def _in_place_of_tokens(model_class: type[PreTrainedModel]) -> bool:
    """Whether a class puts features of images in the place of tokens: it takes them, or computes them of pixels."""
    takes = inspect.signature(model_class.forward).parameters
    return "mm_encoder_outputs" in takes or ("pixel_values" in takes and hasattr(model_class, "get_image_features"))


def differs(format: str, processor: Any) -> str:
    """Compare a prompt with what the processor itself writes; return in words how it differs, "" if it does not.

    format: of `Family`. Families with a format of their own are compared by the tests alone.
    """
    if format != "chat":
        return ""
    image = Image.new("RGB", (64, 48), "grey")
    mine = build(format, processor, [("user", [(_QUESTION, False)])], [prepare(processor, format, image).ids])
    content = [{"type": "image", "image": image}, {"type": "text", "text": _QUESTION}]
    try:
        own = apply_template(
            processor,
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
    except ValueError as error:
        return f"its prompts could not be compared with the processor's own ({error})"
    ids = own["input_ids"][0].tolist()
    if ids == mine.input_ids:
        return ""
    unequal = [place for place, (one, other) in enumerate(zip(ids, mine.input_ids, strict=False)) if one != other]
    same = unequal[0] if unequal else min(len(ids), len(mine.input_ids))
    return f"its prompts differ from the processor's own from token {same} on, so that answers may be worse"
