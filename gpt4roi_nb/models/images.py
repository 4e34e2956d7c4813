"""Images as a model of transformers takes them: prepared by its own processor, and encoded once."""

from __future__ import annotations

import hashlib
import inspect
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.images import MAX_PIXELS
from gpt4roi_nb.inference.loaded_model import LoadedModel
from gpt4roi_nb.memory import is_out_of_memory
from gpt4roi_nb.models.ways.conventions import Size
from gpt4roi_nb.prompt import token_id_of
from gpt4roi_nb.tokenizer import IMAGE_TOKEN

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
        padded: whether the image was padded to a square before.
    """

    digest: str
    ids: list[int]
    values: dict[str, Tensor]
    padded: bool = False


def digest_of(image: Image.Image) -> str:
    """Return a name for an image's pixels."""
    return hashlib.sha256(str(image.size).encode() + image.tobytes()).hexdigest()


def crops_to_square(processor: Any) -> bool:
    """Whether a processor shows the model no more than the central square of an image, as CLIP's does."""
    images = processor.image_processor
    tiles = getattr(images, "image_grid_pinpoints", None)  # LLaVA-NeXT resizes to tiles, and crops nothing away
    shortest = getattr(getattr(images, "size", None), "shortest_edge", None)
    return bool(getattr(images, "do_center_crop", False)) and shortest is not None and not tiles


def padding_colour(processor: Any) -> tuple[int, int, int]:
    """Return the mean colour of the images that a tower was trained on, RGB."""
    red, green, blue = (int(255 * mean) for mean in processor.image_processor.image_mean or (0.5, 0.5, 0.5))
    return red, green, blue


def padded(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """Pad an image to a square on both sides, as LLaVA and ViP-LLaVA do (mm_utils.py, expand2square)."""
    if image.width == image.height:
        return image
    side = max(image.size)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def frame_of(processor: Any) -> str:
    """Return in words what is done to an image before the model's processor gets it; "" for nothing."""
    if not crops_to_square(processor):
        return ""
    return f"padded to a square with RGB {padding_colour(processor)}, since the processor crops to one"


def prepare(processor: Any, format: str, image: Image.Image) -> PreparedImage:
    """Let a model's own processor prepare an image, and say what stands for it in a prompt.

    Where the processor would crop to the central square, the image is padded to a square first: what lies outside,
    a drawn box too, would be lost.

    Raises:
        ValueError: if the processor cannot prepare it.
    """
    try:
        return _prepared(processor, format, image)
    except (
        *(ArithmeticError, AttributeError, LookupError, RuntimeError, StrictDataclassError, TypeError, ValueError),
    ) as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"the model's own processor cannot prepare an image of {image.width} × {image.height} pixels "
            f"({type(error).__name__}: {error}); give another image. If it prepares none, the checkpoint's "
            "processor_config.json, preprocessor_config.json or tokenizer is damaged or of another model: copy it again"
        ) from error


def check_image_sizes(processor: Any, source: str) -> None:
    """Raise ValueError if a processor makes larger images than may be read: one would fill the memory.

    Args:
        processor: of transformers.
        source: its checkpoint in the message.
    """
    for name in ("size", "crop_size"):
        given = getattr(getattr(processor, "image_processor", None), name, None)
        height, width, shortest, longest = (
            side if isinstance(side := getattr(given, part, None), int) else 0
            for part in ("height", "width", "shortest_edge", "longest_edge")
        )
        # With both edges, Qwen's mean pixels of the whole image.
        pixels = longest if shortest and longest else max(height * width, shortest**2, longest**2)
        if pixels > MAX_PIXELS:
            raise ValueError(
                f"the image processor of {source!r} makes images of {pixels:,} pixels ({name}), expected at most "
                f"{MAX_PIXELS:,}; preprocessor_config.json or processor_config.json is damaged: copy it again"
            )


def _prepared(processor: Any, format: str, image: Image.Image) -> PreparedImage:
    tokenizer = processor.tokenizer
    digest, pads = digest_of(image), crops_to_square(processor) and image.width != image.height
    if pads:
        image = padded(image, padding_colour(processor))
    if format == "gpt4roi":
        ids = [token_id_of(IMAGE_TOKEN, tokenizer)] * processor.num_image_tokens
        return PreparedImage(digest, ids, {"pixel_values": processor.image_processor.pixels(image)[None]})
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
    return PreparedImage(digest, ids, {key: value for key, value in made.items() if key not in _OF_TEXT}, pads)


def resized_size(processor: Any, image: PreparedImage) -> Size | None:
    """Return the (width, height) to which the processor resized an image; None if it resizes to a fixed square."""
    grid = image.values.get("image_grid_thw")
    if grid is None:
        return None
    _, rows, columns = grid[0].tolist()
    patch = processor.image_processor.patch_size
    return columns * patch, rows * patch


def seen_size(processor: Any, image: PreparedImage) -> str:
    """Return in words the size in which a model gets an image: "336 × 336", or "5 tiles of 448 × 448"."""
    resized = resized_size(processor, image)
    if resized is not None:
        return f"{resized[0]} × {resized[1]}"
    pixels = image.values["pixel_values"]
    height, width = pixels.shape[-2:]
    tiles = pixels.numel() // (pixels.shape[-3] * height * width)
    return f"{width} × {height}" if tiles == 1 else f"{tiles} tiles of {width} × {height}"


def encode(model: Any, image: PreparedImage) -> Any:
    """Encode an image: its features, as `get_image_features` returns them."""
    values = {
        key: value.to(model.device, model.dtype) if value.is_floating_point() else value.to(model.device)
        for key, value in image.values.items()
    }
    if model.config.model_type == GPT4RoIConfig.model_type:
        return BaseModelOutputWithPooling(pooler_output=model.encode_image(**values).image_features)
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


def without_some(features: Any, removed: Tensor) -> Any:
    """Replace some of the N features of one image by their mean.

    Args:
        features: from `encode`.
        removed: (N,) bool.

    Raises:
        RuntimeError: if there are not N.
    """
    names = [name for name in ("pooler_output", "deepstack_features") if getattr(features, name, None) is not None]
    return type(features)(**{name: _without_some(getattr(features, name), removed) for name in names})


def _without_some(part: Any, removed: Tensor) -> Any:
    if not isinstance(part, Tensor):
        return type(part)(_without_some(one, removed) for one in part)
    rows = part.flatten(0, -2)
    if len(rows) != len(removed):
        raise RuntimeError(
            f"expected a feature for each of {len(removed)} image tokens, but the model made {len(rows)}"
        )
    return torch.where(removed[:, None].to(rows.device), rows.mean(dim=0), rows).reshape(part.shape)


def takes_features(model: Any) -> bool:
    """Whether features of images can be passed to a model, so that an image is encoded once for many questions."""
    if model.config.model_type in ("kosmos-2", "florence2", GPT4RoIConfig.model_type):
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
