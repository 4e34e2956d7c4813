"""What a protocol card says of the model: its weights, its processor, and how boxes were presented to it."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod

import torch

from gpt4roi_nb.checkpoint.load import DEMO_CHECKPOINT
from gpt4roi_nb.evaluate.benchmarks.item import Item, Prediction
from gpt4roi_nb.evaluate.card import OF_THE_WAY
from gpt4roi_nb.models.prompted_model import PromptedModel
from gpt4roi_nb.session.gpt4roi import GPT4RoI

Model = GPT4RoI | PromptedModel

HASH_LENGTH = 12
SAMPLED = 16  # questions whose images are prepared again to learn their size
COVERED = "boxes whose drawn line covers all that is in them"


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before it is asked; a card has these fields.

    Attributes:
        checkpoint: hash of the names, shapes and bytes of all weights as used.
        checkpoint_name: where the weights came from; "demo" for the embedded checkpoint.
        dtype, device: of the model.
        way: how boxes are presented to it.
        told: what else is said of that way: what stands for `<region1>`, convention, colours, line, margin.
        processor: class of the processor, and of the processor of images.
        revision: commit of a hub id; "" for a folder.
    """

    checkpoint: str
    checkpoint_name: str
    dtype: str
    device: str
    way: str
    told: dict[str, str] = field(default_factory=dict)
    processor: str = ""
    revision: str = ""


def facts_of(model: Model) -> ModelFacts:
    """Collect the facts of a model as it is now; its weights are hashed."""
    told = {} if isinstance(model, GPT4RoI) else {name: text for name, text in model.note.items() if name != "way"}
    return ModelFacts(
        checkpoint=checkpoint_hash(model),
        checkpoint_name="demo" if model.source == os.fspath(DEMO_CHECKPOINT) else model.source,
        dtype=str(model.model.dtype).removeprefix("torch."),
        device=device_name(model),
        way=model.way,
        told=told,
        processor=f"{type(model.processor).__name__} with {type(model.processor.image_processor).__name__}",
        revision=model.revision,
    )


def identity_of(facts: ModelFacts) -> dict[str, object]:
    """What must be equal of a model for its earlier answers to be reused."""
    same: dict[str, object] = {"checkpoint": facts.checkpoint}
    if facts.told:  # a GPT4RoI has one way, and folders from before there were others name none
        told = {name: text for name, text in facts.told.items() if name not in OF_THE_WAY}
        same |= {"regions": {"way": facts.way, **told}, "processor": facts.processor}
    return same


def checkpoint_hash(model: Model) -> str:
    """Return the beginning of `fingerprint`, a hash of the weights in memory, which a card has room for."""
    return model.fingerprint()[:HASH_LENGTH]


def device_name(model: Model) -> str:
    """Return the name of the device that computes the answers."""
    device = model.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def sizes_seen(model: Model, items: Sequence[Item]) -> str:
    """Return in words in which sizes the model got its images, "336 × 336" or "448 × 252 to 644 × 476".

    Where sizes depend on the image, those of a sample are prepared again. Images that are gone are passed over.
    """
    if isinstance(model, GPT4RoI):
        side = model.model.config.vision_config.image_size
        return f"{side} × {side}"
    sample = items[:: max(1, len(items) // SAMPLED)][:SAMPLED]
    seen: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # boxes that exceed the image, or that a line covers, were seen before
        for item in sample:
            try:
                seen.update(model.seen(item.image, item.boxes))
            except (OSError, ValueError):
                continue
    sizes = sorted(seen, key=lambda size: (prod(map(int, re.findall(r"\d+", size))), size))
    if len(sizes) < 2:
        return "".join(sizes)
    of = "" if len(sample) == len(items) else f" (in {len(sample)} of {len(items)} questions)"
    return f"{sizes[0]} to {sizes[-1]}{of}"


def example_of(model: Model, items: Sequence[Item]) -> str:
    """Return the first question as the model reads it; "" for a GPT4RoI, or if its image is gone."""
    if isinstance(model, GPT4RoI) or not items:
        return ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return model.render(items[0].image, items[0].question, items[0].boxes).text
        except (OSError, ValueError):
            return ""


def counts_of_way(model: Model, answered: Iterable[tuple[Item, Prediction]]) -> dict[str, int]:
    """Count what presenting boxes in the model's way did to the questions, in the form of `Scores.counts`."""
    if isinstance(model, GPT4RoI) or model.way != "draw":
        return {}
    covered = sum(model.pen.covers(box, (one.width, one.height)) for item, one in answered for box in item.boxes)
    return {COVERED: covered} if covered else {}
