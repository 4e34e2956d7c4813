"""LVIS: what a region is called (SS, S-IoU), and which of two names is its."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.evaluate.benchmarks import naming
from gpt4roi_nb.evaluate.benchmarks.item import Item, Setting
from gpt4roi_nb.evaluate.benchmarks.published import Published
from gpt4roi_nb.evaluate.benchmarks.registry import part

DATASET = "LVIS v1"
SPLITS = ("val", "train")
SCORERS = ("generate",)
PROMPT = naming.PROMPT
FIXED_PROMPT = True
MAPPING = naming.MAPPING
MAX_NEW_TOKENS = 24
JUDGES = naming.JUDGES
PUBLISHED = (
    Published(
        "GPT4RoI-7B, in Osprey (not checked against it)", "val, Osprey's 1,000 images", {"SS": 51.3, "S-IoU": 12.0}
    ),
    Published("GPT4RoI, box", "val, 1,548 questions, ControlMLLM's draw of false names", {"binary choice": 58.59}),
    Published("GPT4RoI, box", "val, Ferret's own draw of false names", {"binary choice": 61.76}),
)
score = naming.naming_scores


def files(root: Path, split: str) -> dict[str, Path]:
    """The annotations, and COCO's folders of pictures, of which a split's lie in two."""
    return {
        "annotations": part(root, "lvis") / f"lvis_v1_{split}.json",
        "COCO's pictures": part(root, "coco") / f"{split}2017",
    }


def items(setting: Setting, problems: Problems) -> Iterator[Item]:
    """Two questions an annotation."""
    file = files(setting.root, setting.split)["annotations"]
    return naming.naming_items("lvis", file, part(setting.root, "coco"), setting, problems, lambda name: "object")
