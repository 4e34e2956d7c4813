"""RefCOCOg: captions of regions, which its referring expressions are.

    refcocog/   finetune_refcocog_val.json and …_test.json (MDETR), or refs(umd).p with instances.json
    coco/       train2014

A region that several expressions are about is asked about once, and all of them are its references.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.data.record import Annotation
from gpt4roi_nb.data.refcoco import read_refcoco
from gpt4roi_nb.evaluate.benchmarks.captions import (
    JUDGES,
    MAX_NEW_TOKENS,
    PROMPT,
    CaptionedRegion,
    caption_items,
    score,
)
from gpt4roi_nb.evaluate.benchmarks.item import Box, Item, Setting
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

DATASET = "RefCOCOg region captions"
SPLITS = ("val", "test")
SCORERS = ("generate",)
FIXED_PROMPT = False
MAPPING = ""
PUBLISHED = (
    Published(
        "Osprey-7B (arXiv 2312.10032), for reference: none is published for GPT4RoI",
        "val split; another model, with masks",
        {"METEOR": 16.6, "CIDEr": 108.3},
    ),
)
PICTURES = "train2014"


def files(root: Path, split: str) -> dict[str, Path]:
    """The annotations in one of their two forms, and the folder of pictures."""
    base = part(root, "refcocog")
    mdetr, pickle = base / f"finetune_refcocog_{split}.json", base / "refs(umd).p"
    pictures = {"pictures": _pictures(base)}
    if not mdetr.is_file() and pickle.is_file():
        return {"references": pickle, "boxes": base / "instances.json"} | pictures
    return {"annotations": mdetr} | pictures


def items(setting: Setting, problems: Problems) -> Iterator[Item]:
    """An item a region; images are drawn whole."""
    return caption_items("refcocog", _regions(part(setting.root, "refcocog"), setting.split, problems), setting)


def _pictures(base: Path) -> Path:
    """COCO's pictures beside the data set, as the generated world has them, or within it."""
    places = [folder / PICTURES for folder in (base.parent / "coco", base, base / "coco", base.parent)]
    return next((path for path in places if path.is_dir()), places[0])


def _regions(base: Path, split: str, problems: Problems) -> Iterator[CaptionedRegion]:
    found = files(base, split)
    if "references" in found:
        source = read_refcoco(found["references"], problems, name="refcocog", instances=found["boxes"], split=split)
    else:
        source = read_refcoco(found["annotations"], problems, name="refcocog")
    grouped: dict[tuple[str, Box], list[Annotation]] = {}
    for annotation in source:
        x1, y1, x2, y2 = annotation.boxes[0].tolist()
        grouped.setdefault((annotation.image, (x1, y1, x2, y2)), []).append(annotation)
    for (image, box), said in grouped.items():
        references = tuple(annotation.texts[0] for annotation in said)
        yield CaptionedRegion(said[0].id, found["pictures"] / image, box, references, Path(image).stem)
