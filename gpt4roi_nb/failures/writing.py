"""Write labels to FiftyOne's database in bulk."""

from __future__ import annotations

import datetime
import math
from typing import TYPE_CHECKING, Any

from gpt4roi_nb.failures.labels import PREDICTED, SHARED, attributes, mask_in_box, relative_box, short_label

if TYPE_CHECKING:
    from pymongo import UpdateOne


class DetectionWriter:
    """Builds the documents that FiftyOne stores for detections.

    FiftyOne's own objects cost two milliseconds per detection, mostly for checks of values that are known to be right.
    So one of them is made, and its document is filled in for each row. A test compares the two.

    Args:
        fo: the module `fiftyone`.
    """

    def __init__(self, fo: Any) -> None:
        from bson import ObjectId

        self._fo, self._new_id = fo, ObjectId
        self._empty = fo.Detection(label="", bounding_box=[0.0, 0.0, 1.0, 1.0]).to_mongo().to_dict()

    def _document(self, label: Any, row: dict[str, Any], columns: dict[str, tuple[str, str]]) -> dict[str, Any]:
        return {
            **self._empty,
            "_id": self._new_id(),
            "tags": [],
            "label": short_label(label),
            "bounding_box": relative_box(row),
            **dict(attributes(row, columns)),
        }

    def ground_truth(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the document of a row's right answer, with its mask if there is one."""
        document = self._document(row["target"], row, SHARED)
        counts = row.get("mask")
        if isinstance(counts, str) and counts and (mask := mask_in_box(counts, row)) is not None:
            document["mask"] = self._fo.Detection(mask=mask).to_mongo()["mask"]
        return document

    def prediction(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the document of a row's answer; `confidence` is exp of its mean log-probability per token."""
        document = self._document(row["answer"], row, PREDICTED)
        logprob = row.get("logprob")
        if logprob is not None:
            document["confidence"] = min(math.exp(logprob), 1.0)
        return document


def get_collection(dataset: Any) -> Any:
    """Return the database collection that holds a dataset's samples."""
    from fiftyone.core.odm import get_db_conn

    return get_db_conn()[dataset._sample_collection_name]


def added_labels(sample: str, changes: dict[str, tuple[bool, list[dict[str, Any]]]]) -> UpdateOne:
    """Build the write that adds detections to a sample, atomically for all fields. Existing detections stay.

    Args:
        sample: its id.
        changes: field → (whether the sample has nothing there yet, documents of detections).
    """
    from bson import ObjectId
    from pymongo import UpdateOne

    now = datetime.datetime.now(datetime.UTC)
    whole: dict[str, Any] = {"last_modified_at": now}
    more: dict[str, Any] = {}
    for field, (empty, documents) in changes.items():
        if empty:
            whole[field] = {"_cls": "Detections", "detections": documents}
        else:
            more[f"{field}.detections"] = {"$each": documents}
    return UpdateOne({"_id": ObjectId(sample)}, {"$set": whole, **({"$push": more} if more else {})})
