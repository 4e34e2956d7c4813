"""Where each tensor comes from, decided before any of them is read."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers.initialization import no_init_weights

from gpt4roi_nb.checkpoint.delta import Adder, check_finite
from gpt4roi_nb.checkpoint.keys import to_original
from gpt4roi_nb.checkpoint.original import ROWS_PER_TOKEN
from gpt4roi_nb.checkpoint.report import Fate
from gpt4roi_nb.checkpoint.shards import Shards
from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.tokenizer import ADDED_TOKENS

TOWER = "vision_tower."  # the prefix of our names for the tower's tensors

# Tensors that are left out on purpose, with the reason.
_BUFFERS = (
    (re.compile(r"rotary_emb\.inv_freq$"), "a buffer of old checkpoints; recomputed from the configuration"),
    (re.compile(r"embeddings\.position_ids$"), "a buffer of old checkpoints that only counts"),
)
_TEXT_HALF = re.compile(r"text_model\.|text_projection\.|visual_projection\.|logit_scale$")
# The tower's tensors in the weights file of a GPT4RoI or a later LLaVA, and in a folder of their own.
_TOWER_IN_SOURCE = re.compile(r"(model\.)?vision_tower\.")
_TOWER_PREFIX = re.compile(r"^((model\.)?vision_tower\.)*(vision_model\.)?")


@dataclass(frozen=True)
class Step:
    """One tensor to make: its fate, the shards to read it from, and those of the base to add."""

    fate: Fate
    source: Shards
    base: Shards | None = None

    def run(self, dtype: torch.dtype, adder: Adder) -> Tensor:
        name = self.fate.original
        tensor = self.source.read(name)
        check_finite(tensor, name, self.source.folder)
        if self.base is not None:
            base = self.base.read(name)
            check_finite(base, name, self.base.folder)
            tensor = adder.add(tensor, base, name)
        if not tensor.is_floating_point():
            raise ValueError(f"{name} is stored as integers ({tensor.dtype}); expected weights that are not quantised")
        converted = tensor.to(dtype).contiguous()
        if dtype != tensor.dtype:
            check_finite(converted, name, self.source.folder, f" in {dtype!s}")
        return converted

    def bytes(self, dtype: torch.dtype) -> int:
        return math.prod(self.fate.shape) * dtype.itemsize


def make_plan(
    config: GPT4RoIConfig, source: Shards, tower: Shards, base: Shards | None
) -> tuple[list[Step], list[Fate]]:
    """Plan a step for every tensor of our model, and list the tensors that are left out.

    Args:
        config: of the converted model.
        source: the authors' tensors.
        tower: the vision tower's; may be the same as `source`.
        base: the base's, if the source is a delta.

    Returns:
        The steps, and the fates of the tensors that are left out.

    Raises:
        ValueError: tensors are missing, unknown, or of another shape; the message names the first of each kind, and
            both shapes.
    """
    with torch.device("meta"), no_init_weights():
        expected = GPT4RoIForConditionalGeneration(config).state_dict()
    tower_names = {_TOWER_PREFIX.sub("", name): name for name in tower.tensors if _is_towers(name, tower, source)}
    steps: list[Step] = []
    missing: list[str] = []
    mismatched: list[str] = []
    for name, tensor in expected.items():
        wanted = tuple(tensor.shape)
        if name.startswith(TOWER):
            own = name.removeprefix(TOWER)
            step = Step(
                Fate(name, tower_names.get(own, own), "copied", wanted, "vision tower", str(tower.folder)), tower
            )
        else:
            step = Step(Fate(name, to_original(name), "copied", wanted, folder=str(source.folder)), source)
        theirs = step.fate.original
        if theirs not in step.source.tensors:
            missing.append(f"{theirs} in {str(step.source.folder)!r}")
            continue
        came = step.source.tensors[theirs].shape
        if came != wanted:
            mismatched.append(f"{theirs}: expected {list(wanted)} by config.json, got {list(came)}")
        elif base is not None and not name.startswith(TOWER):
            step = _with_base(step, base, missing, mismatched)
        steps.append(step)

    taken = {(id(step.source), step.fate.original) for step in steps}
    taken |= {(id(step.base), step.fate.original) for step in steps if step.base is not None}
    ignored: list[Fate] = []
    unknown: list[str] = []
    for shards in dict.fromkeys(filter(None, (source, tower, base))):
        for name, info in shards.tensors.items():
            if (id(shards), name) in taken:
                continue
            if why := _why_ignored(name, shards is tower, tower is not source):
                ignored.append(Fate("", name, "ignored", info.shape, why, str(shards.folder)))
            else:
                unknown.append(f"{name} in {str(shards.folder)!r}")
    complaints = [
        f"{len(names)} {'tensor' if len(names) == 1 else 'tensors'} {what}, first {names[0]}"
        for what, names in (("missing", missing), ("of another shape", mismatched), ("unknown", unknown))
        if names
    ]
    if complaints:
        raise ValueError(f"{str(source.folder)!r} cannot be converted: {'; '.join(complaints)}")
    return steps, ignored


def _with_base(step: Step, base: Shards, missing: list[str], mismatched: list[str]) -> Step:
    """The step with its base, if it has one: language model yes, projector and region module no."""
    fate = step.fate
    if not fate.name.startswith("language_model."):
        return replace(step, fate=replace(fate, why="not in the base"))
    if fate.original not in base.tensors:
        missing.append(f"{fate.original} in {str(base.folder)!r}")
        return step
    came = base.tensors[fate.original].shape
    vocabulary = fate.shape[0] - len(ADDED_TOKENS)
    if fate.original in ROWS_PER_TOKEN and came == (vocabulary, *fate.shape[1:]):
        why = f"rows from {vocabulary} on come from the delta"
        return replace(step, base=base, fate=replace(fate, what="rows added", why=why))
    if came != fate.shape:
        wanted = [vocabulary, *fate.shape[1:]] if fate.original in ROWS_PER_TOKEN else list(fate.shape)
        mismatched.append(f"{fate.original}: the delta has {wanted}, the base has {list(came)}")
    return replace(step, base=base, fate=replace(fate, what="added"))


def holds_tower(name: str) -> bool:
    """Whether a tensor of the authors' files, or of a later LLaVA's, belongs to the vision tower."""
    return _TOWER_IN_SOURCE.match(name) is not None


def _is_towers(name: str, tower: Shards, source: Shards) -> bool:
    return tower is not source or holds_tower(name)


def _why_ignored(name: str, in_tower: bool, tower_apart: bool) -> str | None:
    if tower_apart and not in_tower and _TOWER_IN_SOURCE.match(name):
        return "the tower comes from elsewhere"
    if in_tower and tower_apart and _TEXT_HALF.match(name):
        return "a part of CLIP that GPT4RoI does not use"
    return next((why for pattern, why in _BUFFERS if pattern.search(name)), None)
