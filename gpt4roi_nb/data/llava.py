"""LLaVA-Instruct: conversations about a picture, with the boxes that a detector found in it.

The detector's boxes come beside the conversations, normalised, in one of three forms:

- `.pkl`: a list of `{"filename", "pred_bboxes": (N, 5) normalised xyxy and score, "labels": (N,)}`;
- `.parquet`: the columns `filename` and `pred_bboxes`, a list of N lists of 5;
- `.npz`: `filename` (P,), `pred_bboxes` (M, 5) of all pictures one after another, `offsets` (P + 1,): picture p has the
  rows offsets[p] to offsets[p + 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.box_check import box_from_xyxy
from gpt4roi_nb.data.image_files import image_size
from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.pickles import PICKLES, read_pickle
from gpt4roi_nb.data.problems import MISSING, WRONG_TURNS, WRONG_TYPE, BadRecord, Problems, field, text_field
from gpt4roi_nb.data.record import DIALOGUE, Annotation, as_boxes, harmless

IMAGE_MARK = "<image>"
SPEAKERS = ("human", "gpt")
MIN_SCORE = 0.3
MAX_BOXES = 20

Detections = dict[str, np.ndarray[Any, Any]]  # (N, 5) by bare file name: normalised xyxy and score


def read_llava(
    file: Path,
    problems: Problems,
    images: Path | None = None,
    *,
    name: str = "llava",
    boxes: Path | None = None,
    min_score: float = MIN_SCORE,
    max_boxes: int = MAX_BOXES,
) -> Iterator[Annotation]:
    """An annotation a conversation; without `boxes` it has no regions.

    Args:
        images: the pictures' folder; with `boxes` it is needed, since they count in pictures, not in pixels.
        boxes: the detector's file.
        min_score, max_boxes: the best `max_boxes` of each picture that score at least `min_score`.
    """
    if boxes is not None and images is None:
        raise ValueError("the detector's boxes are shares of the picture's sides; give the pictures' folder too")
    detections = read_detections(boxes) if boxes is not None else {}
    for index, (_, entry) in enumerate(elements(file, problems)):
        where = f"{file.name}: conversation {index}"
        try:
            image = text_field(entry, "image")
            texts = _turns(field(entry, "conversations", list))
            found = detections.get(PurePosixPath(image).name)
            rows: list[Box] = []
            if found is not None and images is not None:
                width, height = image_size(images / image)
                for row in _best(found, min_score, max_boxes):
                    try:
                        xyxy = [row[0] * width, row[1] * height, row[2] * width, row[3] * height]
                        rows.append(box_from_xyxy(xyxy, width, height))
                    except BadRecord as bad:
                        problems.add(bad, f"{where}, a detected box")
            # One picture has conversations of several sorts, all under the picture's id.
            record_id = f"{field(entry, 'id', str)}-{index}"
            yield Annotation(DIALOGUE, image, as_boxes(rows), texts, name, record_id)
        except BadRecord as bad:
            problems.add(bad, where)


def read_detections(file: Path) -> Detections:
    """The detector's boxes. Raises ValueError where the file is of none of the three forms."""
    try:
        if file.suffix in PICKLES:
            entries = [(entry["filename"], entry["pred_bboxes"]) for entry in read_pickle(file, arrays=True)]
        elif file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as content:
                parts = np.split(content["pred_bboxes"], content["offsets"][1:-1])
                entries = list(zip(content["filename"].tolist(), parts, strict=True))
        elif file.suffix == ".parquet":
            import pyarrow.parquet

            table = pyarrow.parquet.read_table(file, columns=["filename", "pred_bboxes"])
            entries = list(zip(table["filename"].to_pylist(), table["pred_bboxes"].to_pylist(), strict=True))
        else:
            raise ValueError(f"expected .pkl, .npz or .parquet, but it is {file.suffix!r}")
        return {PurePosixPath(str(name)).name: np.asarray(rows, np.float64).reshape(-1, 5) for name, rows in entries}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{str(file)!r} is no file of detected boxes: {error!r}; each entry needs 'filename' and 'pred_bboxes' of "
            "shape (N, 5)"
        ) from error


def _best(rows: np.ndarray[Any, Any], min_score: float, count: int) -> list[list[float]]:
    best = rows[np.argsort(-rows[:, 4], kind="stable")]
    return best[best[:, 4] >= min_score][:count].tolist()


def _turns(turns: list[Any]) -> tuple[str, ...]:
    """The texts in turn, the human's first, without the picture's mark, which stands at either end of the first."""
    if not turns or len(turns) % 2:
        raise BadRecord(WRONG_TURNS, f"human and gpt must take turns, gpt last, but there are {len(turns)} turns")
    texts = []
    for index, turn in enumerate(turns):
        speaker = field(turn, "from", str)
        if speaker != SPEAKERS[index % 2]:
            raise BadRecord(WRONG_TURNS, f"turn {index} must be {SPEAKERS[index % 2]!r}'s, but is {speaker!r}'s")
        text = text_field(turn, "value").strip()
        if index == 0:
            text = text.removeprefix(IMAGE_MARK).removesuffix(IMAGE_MARK).strip()
        if IMAGE_MARK in text:
            raise BadRecord(WRONG_TYPE, f"turn {index} speaks of another picture: {IMAGE_MARK} within the text")
        text = harmless(text)
        if not text:
            raise BadRecord(MISSING, f"turn {index} says nothing")
        texts.append(text)
    return tuple(texts)
