"""PACO: objects and their parts, named as in `lvis.py`; `mug:handle` is "mug handle"."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.evaluate.benchmarks import naming
from gpt4roi_nb.evaluate.benchmarks.item import Item, Setting
from gpt4roi_nb.evaluate.benchmarks.published import Published
from gpt4roi_nb.evaluate.benchmarks.registry import part

DATASET = "PACO-LVIS"
SPLITS = ("val", "test", "train")
SCORERS = ("generate",)
PROMPT = naming.PROMPT
FIXED_PROMPT = True
MAPPING = naming.MAPPING
MAX_NEW_TOKENS = 24
JUDGES = naming.JUDGES
PUBLISHED = (
    Published(
        "GPT4RoI-7B, in Osprey (not checked against it)", "val, Osprey's 1,000 images", {"SS": 48.0, "S-IoU": 12.1}
    ),
)
score = naming.naming_scores


def files(root: Path, split: str) -> dict[str, Path]:
    """The annotations, and COCO's two folders of pictures, in both of which a split's lie."""
    pictures = {f"COCO's {folder}": part(root, "coco") / folder for folder in ("train2017", "val2017")}
    return {"annotations": part(root, "paco") / f"paco_lvis_v1_{split}.json"} | pictures


def items(setting: Setting, problems: Problems) -> Iterator[Item]:
    """Two questions an annotation, of an object or of a part."""
    file = files(setting.root, setting.split)["annotations"]
    return naming.naming_items("paco", file, part(setting.root, "coco"), setting, problems, _kind)


def _kind(name: str) -> str:
    return "part" if ":" in name else "object"
