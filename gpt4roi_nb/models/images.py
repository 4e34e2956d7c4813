"""Images as a model of transformers takes them: prepared by its own processor, and encoded once."""

from __future__ import annotations

import hashlib
import inspect
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from gpt4roi_nb.inference.loaded_model import LoadedModel
from gpt4roi_nb.models.conventions import Size

KEPT = 32  # images of a session whose features are kept: the whole one, and crops of the latest regions

_OF_TEXT = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "mm_token_type_ids",
    "labels",
    "image_embeds_position_mask",
)


@dataclass(frozen=True)
class PreparedImage:
    """An image as the processor prepares it.

    Attributes:
        digest: of its pixels.
        ids: what stands for it in a prompt.
        values: what the model takes, on the CPU: `pixel_values` and what belongs to it.
    """

    digest: str
    ids: list[int]
    values: dict[str, Tensor]


def digest_of(image: Image.Image) -> str:
    """Return a name for an image's pixels."""
    return hashlib.sha256(str(image.size).encode() + image.tobytes()).hexdigest()


def prepare(processor: Any, format: str, image: Image.Image) -> PreparedImage:
    """Let a model's own processor prepare an image, and say what stands for it in a prompt."""
    tokenizer = processor.tokenizer
    if format == "kosmos-2":
        made = processor(images=image, text=processor.grd_token, return_tensors="pt")
        ids = made["input_ids"][0].tolist()[:-1]  # without the grounding token
    elif format == "florence2":
        made = processor(images=image, text="", return_tensors="pt")
        ids = [one for one in made["input_ids"][0].tolist() if one == processor.image_token_id]
    elif format == "paligemma":
        made = processor(images=[image], text=[processor.image_token], return_tensors="pt")
        ids = [one for one in made["input_ids"][0].tolist() if one == processor.image_token_id]
    else:
        # Between two tokens that no image has, so that what a tokenizer adds by itself stays outside.
        edge = tokenizer.eos_token
        made = processor(images=[image], text=[f"{edge}{processor.image_token}{edge}"], return_tensors="pt")
        ids = made["input_ids"][0].tolist()
        first = ids.index(tokenizer.eos_token_id)
        ids = ids[first + 1 : ids.index(tokenizer.eos_token_id, first + 1)]
    return PreparedImage(digest_of(image), ids, {key: value for key, value in made.items() if key not in _OF_TEXT})


def resized_size(processor: Any, image: PreparedImage) -> Size | None:
    """Return the (width, height) to which the processor resized an image; None if it resizes to a fixed square."""
    grid = image.values.get("image_grid_thw")
    if grid is None:
        return None
    _, rows, columns = grid[0].tolist()
    patch = processor.image_processor.patch_size
    return columns * patch, rows * patch


def encode(model: Any, image: PreparedImage) -> Any:
    """Encode an image: its features, as `get_image_features` returns them."""
    values = {
        key: value.to(model.device, model.dtype) if value.is_floating_point() else value.to(model.device)
        for key, value in image.values.items()
    }
    if model.config.model_type == "kosmos-2":  # only its class without a head has them
        from transformers.models.kosmos2.modeling_kosmos2 import Kosmos2Model

        return Kosmos2Model.get_image_features(model, **values)
    # In some classes only the inner model has it.
    holder = model if hasattr(model, "get_image_features") else model.model
    return holder.get_image_features(**values)


def together(features: Sequence[Any]) -> Any:
    """Join the features of several images to those of one call."""
    if len(features) == 1:
        return features[0]
    joined: dict[str, Any] = {"pooler_output": _joined([one.pooler_output for one in features])}
    if getattr(features[0], "deepstack_features", None) is not None:
        joined["deepstack_features"] = [
            _joined(layer) for layer in zip(*(one.deepstack_features for one in features), strict=True)
        ]
    return type(features[0])(**joined)


def _joined(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))
    return tuple(one for part in parts for one in part)


def takes_features(model: Any) -> bool:
    """Whether features of images can be passed to a model, so that an image is encoded once for many questions."""
    if model.config.model_type in ("kosmos-2", "florence2"):
        return True
    return "mm_encoder_outputs" in inspect.signature(type(model).forward).parameters


class SessionImages:
    """The images of a session: each prepared once, and encoded once with the present weights."""

    def __init__(self, loaded: LoadedModel, format: str) -> None:
        self._loaded, self._format = loaded, format
        self._prepared: OrderedDict[str, PreparedImage] = OrderedDict()
        self._features: OrderedDict[tuple[str, int], Any] = OrderedDict()

    def prepared(self, image: Image.Image) -> PreparedImage:
        """Return an image as the model's processor prepares it."""
        digest = digest_of(image)
        if digest not in self._prepared:
            self._prepared[digest] = prepare(self._loaded.processor, self._format, image)
        return _kept(self._prepared, digest)

    @torch.inference_mode()
    def features(self, images: Sequence[PreparedImage]) -> Any:
        """Return the features of several images; None if the model does not take any."""
        version = self._loaded.weights_version
        with self._loaded.inference() as model:
            if not takes_features(model):
                return None
            found = []
            for image in images:
                key = (image.digest, version)
                if key not in self._features:
                    self._features[key] = encode(model, image)
                found.append(_kept(self._features, key))
            return together(found)

    def release(self) -> None:
        """Free the memory."""
        self._prepared.clear()
        self._features.clear()


def _kept(known: OrderedDict[Any, Any], key: Any) -> Any:
    """Return an entry and mark it as the latest; drop those that were unused for longest."""
    known.move_to_end(key)
    while len(known) > KEPT:
        known.popitem(last=False)
    return known[key]
