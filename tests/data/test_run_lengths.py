"""Compressed run lengths, held against pycocotools, and what cannot be any."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from gpt4roi_nb.data.problems import BadRecord
from gpt4roi_nb.data.run_lengths import compressed, decompressed, mask_from_lengths
from gpt4roi_nb.data.scenes.formats.masks import run_lengths

GOOD = {"size": [6, 8], "counts": "61T13mN"}


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 1.0])
def test_texts_boxes_and_areas_are_pycocotools(share: float) -> None:
    rng = np.random.default_rng(round(100 * share))
    for height, width in ((1, 1), (1, 40), (40, 1), (7, 9), (64, 300), (300, 64)):
        mask = rng.random((height, width)) < share
        mask[rng.integers(height), rng.integers(width)] = True
        theirs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        text = theirs["counts"].decode()
        runs = run_lengths(mask)["counts"]
        assert compressed(runs) == text and decompressed(text) == runs
        found = mask_from_lengths({"size": [height, width], "counts": text})
        x, y, w, h = coco_mask.toBbox(theirs)
        assert found.box == (x, y, x + w, y + h)
        assert found.area == mask.sum()
        assert found.fill == pytest.approx(mask.sum() / (w * h))


def test_runs_of_a_large_mask_come_back() -> None:
    runs = [10**9, 1, 5, 10**12, 0, 7, 10**9 - 1]
    assert decompressed(compressed(runs)) == runs


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"counts": "0"}, "do not add up"),
        ({"counts": "61T13mN1"}, "do not add up"),
        ({"counts": "`1"}, "mask is empty"),  # 48 pixels outside
        ({"counts": ""}, "'counts' is empty"),
        ({"counts": "61T1\x00mN"}, "not compressed run lengths"),
        ({"counts": "61T13mé"}, "not compressed run lengths"),
        ({"counts": "P" * 5000}, "not compressed run lengths"),  # a number without an end
        ({"counts": "61T1P"}, "end within a number"),
        ({"counts": "O1P1"}, "do not add up"),  # a run of -1
        ({"counts": [6, 1, 41]}, "'counts' must be a string"),
        ({"counts": None}, "no 'counts'"),
        ({"size": [6, 9]}, "do not add up"),
        ({"size": [8]}, r"must be \[height, width\]"),
        ({"size": [0, 8]}, r"must be \[height, width\]"),
        ({"size": [True, 48]}, r"must be \[height, width\]"),
        ({"size": "6, 8"}, "'size' must be a list"),
        ({"size": [10**10, 8]}, r"must be \[height, width\]"),
    ],
)
def test_what_is_no_mask_is_a_bad_record(changes: dict, words: str) -> None:
    with pytest.raises(BadRecord, match=words):
        mask_from_lengths(GOOD | changes)
    with pytest.raises(BadRecord, match="expected an object"):
        mask_from_lengths("61T13mN")
