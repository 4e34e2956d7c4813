"""RefCOCO, RefCOCO+ and RefCOCOg: referring expressions, in the three forms in which they are distributed.

- MDETR's files (`finetune_refcoco_train.json`): one entry of "images" per sentence.
- UNC's: `refs(unc).p` or `refs(umd).p`, beside COCO's `instances.json`.
- Captions by annotation id (`{"17": [{"image_id": …, "id": 17, "caption": ["…"]}]}`), beside an instances file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.box_check import box_from_xywh, four_numbers
from gpt4roi_nb.data.coco import CocoFile
from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.pickles import PICKLES, read_pickle
from gpt4roi_nb.data.problems import (
    MISSING,
    OUT_OF_RANGE,
    BadRecord,
    Problems,
    UniqueTable,
    field,
    id_field,
    is_blank,
    length_field,
    path_field,
    text_field,
)
from gpt4roi_nb.data.record import EXPRESSION, Annotation, as_boxes, one_line


def read_refcoco(
    file: Path,
    problems: Problems,
    images: Path | None = None,
    *,
    name: str = "refcoco",
    instances: Path | None = None,
    split: str | None = None,
) -> Iterator[Annotation]:
    """Yield one annotation per sentence: a region and the expression that identifies it.

    Args:
        name: the source that records name, if the file does not give it (MDETR's files do).
        instances: COCO's instances file; required for UNC's pickles and for captions by annotation id.
        split: "train", "val", "testA" …: use only this split of UNC's pickles; by default all.

    Raises:
        ValueError: UNC's pickle is given without `instances`, or is damaged.
    """
    if file.suffix in PICKLES:
        return _unc(file, problems, _needed(instances, file), name, split)
    if instances is not None:
        return _captions(file, problems, instances, name)
    return _mdetr(file, problems, name)


def _mdetr(file: Path, problems: Problems, name: str) -> Iterator[Annotation]:
    coco = CocoFile(
        file,
        problems,
        keep=lambda entry: None,
        keep_of_image=lambda entry: (text_field(entry, "caption"), field(entry, "dataset_name", str, name)),
    )
    for image_id, image in coco.images.items():
        caption, source = image.kept
        boxes = [box for box, *_ in coco.boxes_of(image_id)]
        if len(boxes) != 1:
            # An expression means one thing; gRefCOCO's mean none or several, which is another task.
            problems.leave_out("sentences without exactly one usable box")
            continue
        yield Annotation(EXPRESSION, image.file, as_boxes(boxes), (one_line(caption),), source, str(image_id))


def _unc(file: Path, problems: Problems, instances: Path, name: str, split: str | None) -> Iterator[Annotation]:
    refs = read_pickle(file)
    if not isinstance(refs, list):
        raise ValueError(f"{str(file)!r} must hold a list of references, but holds a {type(refs).__name__}")
    wanted = _numbers(refs, "ann_id")
    boxes, images = _instances(instances, problems, wanted)
    for index, ref in enumerate(refs):
        where = f"{file.name}: reference {index}"
        try:
            if split is not None and field(ref, "split", str) != split:
                continue
            # The file name of a reference contains its annotation's number; no image has that name.
            image, width, height = _found(images, field(ref, "image_id", int), "image", instances)
            xywh = _found(boxes, field(ref, "ann_id", int), "annotation", instances)
            box = box_from_xywh(xywh, width, height)
            sentences = field(ref, "sentences", list)
        except BadRecord as bad:
            problems.add(bad, where)
            continue
        for number, sentence in enumerate(sentences):
            try:
                text = one_line(text_field(sentence, "sent"))  # "raw" may be upper-case
                sent_id = id_field(sentence, "sent_id") if "sent_id" in sentence else f"{index}-{number}"
            except BadRecord as bad:
                problems.add(bad, f"{where}, sentence {number}")
                continue
            yield Annotation(EXPRESSION, image, as_boxes([box]), (text,), name, str(sent_id))


def _captions(file: Path, problems: Problems, instances: Path, name: str) -> Iterator[Annotation]:
    entries = list(elements(file, problems))
    wanted = _numbers((entry for _, entry in entries), "id")
    boxes, images = _instances(instances, problems, wanted)
    for key, entry in entries:
        where = f"{file.name}: entry {key}"
        try:
            annotation_id = field(entry, "id", int)
            xywh = _found(boxes, annotation_id, "annotation", instances)
            image, width, height = _found(images, field(entry, "image_id", int), "image", instances)
            box = box_from_xywh(xywh, width, height)
            captions = field(entry, "caption", list)
            if not captions or not all(isinstance(caption, str) and not is_blank(caption) for caption in captions):
                raise BadRecord(MISSING, "'caption' must be a list of texts")
        except BadRecord as bad:
            problems.add(bad, where)
            continue
        for number, caption in enumerate(captions):
            record_id = f"{annotation_id}-{number}"
            yield Annotation(EXPRESSION, image, as_boxes([box]), (one_line(caption),), name, record_id)


def _instances(
    file: Path, problems: Problems, wanted: set[int]
) -> tuple[dict[int, Box], dict[int, tuple[str, int, int]]]:
    """Read an instances file: xywh by annotation id, for those wanted; (path, width, height) by image id."""
    boxes: UniqueTable[int, Box] = UniqueTable()
    images: UniqueTable[int, tuple[str, int, int]] = UniqueTable()
    for number, (key, entry) in enumerate(elements(file, problems)):
        try:
            if key == "annotations" and (annotation := field(entry, "id", int)) in wanted:
                boxes.add(annotation, four_numbers(field(entry, "bbox", list)))
            elif key == "images":
                size = length_field(entry, "width"), length_field(entry, "height")
                images.add(field(entry, "id", int), (path_field(entry, "file_name"), *size))
        except BadRecord as bad:
            problems.add(bad, f"{file.name}: {key}, entry {number} of the file")
    return boxes, images


def _numbers(entries: Iterable[Any], key: str) -> set[int]:
    """The whole numbers at `key`; what is wrong with other entries is noted when they are read."""
    return {entry[key] for entry in entries if isinstance(entry, dict) and type(entry.get(key)) is int}


def _found(table: dict[int, Any], key: int, what: str, file: Path) -> Any:
    if key not in table:
        raise BadRecord(OUT_OF_RANGE, f"{file.name} has no {what} {key}")
    return table[key]


def _needed(instances: Path | None, file: Path) -> Path:
    if instances is None:
        raise ValueError(f"{file.name} has no boxes; name the file that has them: load(…, instances='instances.json')")
    return instances
