"""Visual Genome: captions of regions.

    vg/   val.json, test.json (a caption an annotation, as region-captioning work hands them round), or
          region_descriptions.json with image_data.json for all; pictures in VG_100K and VG_100K_2

Splits differ between papers, and with them the figures: GRiT's test split, which GPT4RoI uses, asks about all regions
of an image, GLaMM's about one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.data.visual_genome import ARCHIVES, read_visual_genome
from gpt4roi_nb.evaluate.benchmarks.captions import (
    JUDGES,
    MAX_NEW_TOKENS,
    PROMPT,
    CaptionedRegion,
    caption_items,
    score,
)
from gpt4roi_nb.evaluate.benchmarks.item import Item, Setting
from gpt4roi_nb.evaluate.benchmarks.published import Published
from gpt4roi_nb.evaluate.benchmarks.registry import part

__all__ = [
    "DATASET",
    "FIXED_PROMPT",
    "JUDGES",
    "MAPPING",
    "MAX_NEW_TOKENS",
    "PROMPT",
    "PUBLISHED",
    "SCORERS",
    "SPLITS",
    "files",
    "items",
    "score",
]

DATASET = "Visual Genome region captions"
SPLITS = ("val", "test", "train", "all")
SCORERS = ("generate",)
FIXED_PROMPT = False
MAPPING = ""
_SOURCE = "GPT4RoI (arXiv 2307.03601)"
_PROTOCOL = "all regions of GRiT's test split; prompt and decoding not told"
PUBLISHED = (
    Published(f"{_SOURCE}, 7B", _PROTOCOL, {"METEOR": 16.5, "CIDEr": 134.5}),
    Published(f"{_SOURCE}, 7B fine-tuned on VG", _PROTOCOL, {"METEOR": 17.4, "CIDEr": 145.2}),
    Published(f"{_SOURCE}, 13B fine-tuned on VG", _PROTOCOL, {"METEOR": 17.6, "CIDEr": 146.8}),
)
FOLDERS = ("", *ARCHIVES, "images")  # where a picture may lie


def files(root: Path, split: str) -> dict[str, Path]:
    """The annotations, and a folder of pictures."""
    base = part(root, "vg")
    pictures = {"pictures": next((base / name for name in FOLDERS[1:] if (base / name).is_dir()), base / FOLDERS[1])}
    if split == "all":
        return {"regions": base / "region_descriptions.json", "sizes of images": base / "image_data.json"} | pictures
    return {"annotations": base / f"{split}.json"} | pictures


def items(setting: Setting, problems: Problems) -> Iterator[Item]:
    """An item a region; images are drawn whole."""
    return caption_items("vg", _regions(part(setting.root, "vg"), setting.split, problems), setting)


def _regions(base: Path, split: str, problems: Problems) -> Iterator[CaptionedRegion]:
    found = files(base, split)
    if split == "all":
        source = read_visual_genome(found["regions"], problems, image_data=found["sizes of images"])
    else:
        source = read_visual_genome(found["annotations"], problems)
    for annotation in source:
        places = [base / folder / annotation.image for folder in FOLDERS]
        picture = next((path for path in places if path.is_file()), places[1])
        for number, (box, text) in enumerate(zip(annotation.boxes.tolist(), annotation.texts, strict=True)):
            name = f"{annotation.id}/{number}"
            yield CaptionedRegion(name, picture, (box[0], box[1], box[2], box[3]), (text,), annotation.id)
