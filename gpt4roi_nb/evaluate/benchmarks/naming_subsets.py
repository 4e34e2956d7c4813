"""The questions behind the published figures of LVIS and PACO, as their authors distribute them.

    lvis/lvis_val_1k_category.json    Osprey: 1,000 images, 4,004 objects, for SS and S-IoU
    paco/paco_val_1k_category.json    Osprey: 1,000 images, 4,263 objects and parts
    lvis/lvis_eval.jsonl              Ferret: 1,548 binary choices on COCO's val2017
    lvis/question_roc.json            ControlMLLM: its first 1,548 lines are the test part; JSON Lines, too

Images lie in COCO's folders; for ControlMLLM's file also in its own `LVIS/image`, beside the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.box_check import box_from_xywh, box_from_xyxy, four_numbers
from gpt4roi_nb.data.json_stream import elements, lines
from gpt4roi_nb.data.problems import (
    MISSING,
    WRONG_TYPE,
    BadRecord,
    Problems,
    field,
    length_field,
    path_field,
    path_in_url,
    shown,
    text_field,
    whole_characters,
)
from gpt4roi_nb.data.protocol_texts import CHOICE_PROMPT, clean_name
from gpt4roi_nb.data.record import harmless
from gpt4roi_nb.evaluate.benchmarks.item import Item
from gpt4roi_nb.evaluate.benchmarks.naming_items import Asked, choice_item, name_item
from gpt4roi_nb.evaluate.metrics.similarity import surface_forms

COCO_FOLDERS = ("train2017", "val2017")
OWN_IMAGES = "LVIS/image"  # ControlMLLM's, beside its file
CONTROLMLLM_TEST = 1548  # lines, as in `task/ROC/eval.py`
_LOCATION = "<location>"
_OFFERED = re.compile(r"\ba (.+) or a (.+?)\s*\?")


@dataclass(frozen=True)
class Subset:
    """A file of questions.

    Attributes:
        file: its name.
        what: its content, for the message that it is missing.
        folders: of COCO, that it needs.
        records: (file, problems) → its entries with their numbers from 0.
        items: (file, number, entry, COCO's folder, problems) → the items of an entry.
        questions: entry → number of its questions.
        masks: (stem of the file, number, entry) → the masks of an entry's items; the default is for files without any.
    """

    file: str
    what: str
    folders: tuple[str, ...]
    records: Callable[[Path, Problems], Iterator[tuple[int, Any]]]
    items: Callable[[Path, int, Any, Path, Problems], Iterator[Item]]
    questions: Callable[[Any], int]
    masks: Callable[[str, int, Any], Iterator[tuple[str, Sequence[Any]]]] = lambda stem, number, entry: iter(())

    @property
    def split(self) -> str:
        """Name of the split: the stem of the file."""
        return Path(self.file).stem

    def read(self, file: Path, coco: Path, problems: Problems) -> Iterator[Item]:
        """Yield all questions of the file; bad records go to `problems`."""
        for number, entry in self.records(file, problems):
            try:
                yield from self.items(file, number, entry, coco, problems)
            except BadRecord as bad:
                problems.add(bad, f"{file.name}: record {number}")

    def size(self, file: Path) -> int:
        """Count the questions of the file, asked or not, for the card."""
        return sum(self.questions(entry) for _, entry in self.records(file, Problems()))

    def all_masks(self, file: Path) -> Iterator[tuple[str, Sequence[Any]]]:
        """Yield (id of an item, its mask in one of COCO's forms) for the items of the file that have one."""
        for number, entry in self.records(file, Problems()):
            yield from self.masks(file.stem, number, entry)


def _one(entry: Any) -> int:
    return 1


def _one_per_category(entry: Any) -> int:
    names = entry.get("categories") if isinstance(entry, dict) else None
    return len(names) if isinstance(names, list) else 0


def _whole(file: Path, problems: Problems) -> Iterator[tuple[int, Any]]:
    """Yield the entries of a JSON list."""
    yield from enumerate(entry for key, entry in elements(file, problems) if key == "")


def _all_lines(file: Path, problems: Problems) -> Iterator[tuple[int, Any]]:
    yield from ((number - 1, entry) for number, entry in lines(file, problems))


def _first_lines(file: Path, problems: Problems) -> Iterator[tuple[int, Any]]:
    """Yield ControlMLLM's test part."""
    for number, entry in _all_lines(file, problems):
        if number >= CONTROLMLLM_TEST:
            return
        yield number, entry


def _place(name: str, folders: list[Path]) -> str:
    """Return the path of an image: in the first folder that has it, else in the first folder."""
    return str(next((path for folder in folders if (path := folder / name).is_file()), folders[0] / name))


def _osprey(file: Path, number: int, entry: Any, coco: Path, problems: Problems) -> Iterator[Item]:
    """Read an image: `file_name`, `height`, `width`, `categories` (names), and one of `annotations` for each."""
    name = path_field(entry, "file_name")
    width, height = length_field(entry, "width"), length_field(entry, "height")
    names, annotations = field(entry, "categories", list), field(entry, "annotations", list)
    if len(names) != len(annotations):
        raise BadRecord(WRONG_TYPE, f"there are {len(names)} 'categories', but {len(annotations)} 'annotations'")
    # The original file names no folder; some copies do.
    image = _place(name, [*(coco / folder for folder in COCO_FOLDERS), coco])
    for place, (category, annotation) in enumerate(zip(names, annotations, strict=True)):
        try:
            box = box_from_xywh(field(annotation, "bbox", list), width, height)
            if not isinstance(category, str) or not category.strip():
                raise BadRecord(WRONG_TYPE, f"a category must be a name, but is {shown(category)}")
        except BadRecord as bad:
            problems.add(bad, f"{file.name}: record {number}, annotation {place}")
            continue
        yield name_item(
            Asked(f"{file.stem}/{number}/{place}", image, box, f"{file.stem}/{name}"), whole_characters(category)
        )


def _osprey_masks(stem: str, number: int, entry: Any) -> Iterator[tuple[str, Sequence[Any]]]:
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    for place, annotation in enumerate(annotations if isinstance(annotations, list) else ()):
        if isinstance(annotation, dict):
            yield f"{stem}/{number}/{place}", [annotation.get("segmentation")]


def _ferret(file: Path, number: int, entry: Any, coco: Path, problems: Problems) -> Iterator[Item]:
    """Read a line: `image_path`, `width`, `height`, `bbox_norm` (xyxy, 0 to 1), `name`, `synonyms`, `neg_class`."""
    name = Path(path_in_url(text_field(entry, "image_path"), "image_path")).name
    width, height = length_field(entry, "width"), length_field(entry, "height")
    if not width or not height:
        raise BadRecord(MISSING, "'bbox_norm' needs 'width' and 'height'")
    x1, y1, x2, y2 = four_numbers(field(entry, "bbox_norm", list))
    box = box_from_xyxy([x1 * width, y1 * height, x2 * width, y2 * height], width, height)
    true, false = (harmless(text_field(entry, key)) for key in ("name", "neg_class"))
    pair = (true, false) if number % 2 == 0 else (false, true)  # as in Ferret: every other line has the true name first
    asked = Asked(f"{file.stem}/{number}", _place(name, [coco / "val2017"]), box, f"{file.stem}/{name}")
    yield choice_item(asked, CHOICE_PROMPT.format(*pair), pair, true, _synonyms(entry), _forms(false))


def _controlmllm(file: Path, number: int, entry: Any, coco: Path, problems: Problems) -> Iterator[Item]:
    """Read a line: `image_path`, `bbox` (pixel xywh), `name`, `synonyms`, and `text`, a question with `<location>`."""
    text, name = text_field(entry, "text"), text_field(entry, "name")
    if text.count(_LOCATION) != 1 or "<region" in text:
        raise BadRecord(WRONG_TYPE, f"'text' must name {_LOCATION} once, as in Ferret's question")
    path = path_in_url(text_field(entry, "image_path"), "image_path")  # such as val2017/000000000009.jpg
    image = _place(path, [file.parent / OWN_IMAGES, coco])
    box: Box = box_from_xywh(field(entry, "bbox", list), length_field(entry, "width"), length_field(entry, "height"))
    found = _OFFERED.search(text)
    offered: tuple[str, ...] = found.groups() if found else ()
    others = [one for one in offered if clean_name(one) != clean_name(name)]
    false = field(entry, "neg_class", str, others[0] if len(others) == 1 else "")
    asked = Asked(f"{file.stem}/{number}", image, box, f"{file.stem}/{path}")
    yield choice_item(asked, text.replace(_LOCATION, "<region1>"), offered, name, _synonyms(entry), _forms(false))


def _forms(name: str) -> tuple[str, ...]:
    return surface_forms(clean_name(name)) if name.strip() else ()


def _synonyms(entry: Any) -> list[str]:
    return [text for text in field(entry, "synonyms", list, []) if isinstance(text, str)]


OSPREY_LVIS, OSPREY_PACO = (
    Subset(
        f"{name}_val_1k_category.json",
        f"Osprey's {what} of 1,000 images",
        COCO_FOLDERS,
        _whole,
        _osprey,
        _one_per_category,
        _osprey_masks,
    )
    for name, what in (("lvis", "objects"), ("paco", "objects and parts"))
)
FERRET = Subset("lvis_eval.jsonl", "Ferret's 1,548 choices", ("val2017",), _all_lines, _ferret, _one)
CONTROLMLLM = Subset("question_roc.json", "ControlMLLM's 1,548 choices", (), _first_lines, _controlmllm, _one)
