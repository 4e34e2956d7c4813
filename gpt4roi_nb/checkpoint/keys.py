"""Names of a GPT4RoI's tensors: ours and those in the authors' state dict (commit 00273ad)."""

from __future__ import annotations

import re

FUSION = "model.spi_module.mlvl_fuse"
HEAD = "model.spi_module.roi_align"

# Our prefixes and theirs; the first that matches is used.
_PREFIXES = (
    ("region_encoder.fusion.input_convs.", f"{FUSION}.input_conv."),
    ("region_encoder.fusion.rounds.", f"{FUSION}.fuse_convs."),
    ("region_encoder.head.level_convs.", f"{HEAD}.pconvs."),
    ("region_encoder.head.flatten_projection.", f"{HEAD}.flatten_linear."),
    ("region_encoder.head.position_embedding.", f"{HEAD}.pos_embedd."),
    ("region_encoder.head.output_projection.", f"{HEAD}.updims."),
    ("multi_modal_projector.", "model.mm_projector."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("vision_tower.", "vision_tower.vision_model."),
)
_OUR_NORM = re.compile(r"^(region_encoder\.fusion\.rounds\.\d+)\.norm\.")


def to_original(name: str) -> str:
    """The authors' name for a tensor, given ours. The tower's tensors, which they do not store, keep CLIP's names."""
    name = _OUR_NORM.sub(r"\1.gn.", name)
    for ours, theirs in _PREFIXES:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name
