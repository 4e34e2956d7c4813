"""Cityscapes: open-vocabulary recognition of given regions. See `panoptic_files.py` for the files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.evaluate.benchmarks import recognition
from gpt4roi_nb.evaluate.benchmarks.item import Item, Prediction, Scores, Setting
from gpt4roi_nb.evaluate.benchmarks.panoptic_files import needed_files
from gpt4roi_nb.evaluate.benchmarks.published import Published
from gpt4roi_nb.evaluate.benchmarks.recognition import JUDGES, MAPPING, MAX_NEW_TOKENS, PROMPT

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

DATASET = "Cityscapes"
SPLITS = ("val", "train")
SCORERS = ("generate",)
FIXED_PROMPT = False
PUBLISHED = (
    Published(
        "GPT4RoI 7B, as reported by Osprey (arXiv 2312.10032)",
        "val, true boxes in, Sentence-BERT mapping; prompt and synonyms not told",
        {"PQ": 34.70, "AP": 21.93, "mIoU": 36.73},
    ),
    Published(
        "GPT4RoI 7B, as reported by OPAL (ICLR 2026)",
        "val, true boxes in, lexical mapping",
        {"PQ (lexical)": 39.7, "AP (lexical)": 25.3, "mIoU (lexical)": 40.6},
    ),
)


def files(root: Path, split: str) -> dict[str, Path]:
    """What must be there."""
    return needed_files(root, "cityscapes", split)


def items(setting: Setting, problems: Problems) -> Iterator[Item]:
    """An item a region; images are drawn whole."""
    return recognition.items("cityscapes", setting, problems)


def score(items: Sequence[Item], predictions: Sequence[Prediction], setting: Setting) -> Scores:
    """PQ, AP, mIoU and accuracy by both mappings."""
    return recognition.score("cityscapes", items, predictions, setting)
