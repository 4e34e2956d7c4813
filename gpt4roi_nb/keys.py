"""Names of a GPT4RoI's tensors: ours and those of the authors' state dict (commit 00273ad)."""

from __future__ import annotations

import re

# Ours and theirs, as prefixes; the first that fits is taken.
_PREFIXES = (
    ("region_encoder.fusion.input_convs.", "model.spi_module.mlvl_fuse.input_conv."),
    ("region_encoder.fusion.rounds.", "model.spi_module.mlvl_fuse.fuse_convs."),
    ("region_encoder.head.level_convs.", "model.spi_module.roi_align.pconvs."),
    ("region_encoder.head.flatten_projection.", "model.spi_module.roi_align.flatten_linear."),
    ("region_encoder.head.position_embedding.", "model.spi_module.roi_align.pos_embedd."),
    ("region_encoder.head.output_projection.", "model.spi_module.roi_align.updims."),
    ("multi_modal_projector.", "model.mm_projector."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("vision_tower.", "vision_tower.vision_model."),
)
_OUR_NORM = re.compile(r"^(region_encoder\.fusion\.rounds\.\d+)\.norm\.")
_THEIR_NORM = re.compile(r"^(model\.spi_module\.mlvl_fuse\.fuse_convs\.\d+)\.gn\.")


def to_original(name: str) -> str:
    """The authors' name of a tensor. The tower's tensors, which they do not store, keep their names."""
    name = _OUR_NORM.sub(r"\1.gn.", name)
    for ours, theirs in _PREFIXES:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def from_original(name: str) -> str:
    """Our name of a tensor of the authors'; the reverse of `to_original`."""
    name = _THEIR_NORM.sub(r"\1.norm.", name)
    for ours, theirs in _PREFIXES:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
