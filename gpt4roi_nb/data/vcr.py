"""VCR: questions about people and things in a film still, with answers and rationales that point at them.

A line of `train.jsonl` or `val.jsonl` names an image and its metadata file, which has the boxes. Objects are read from
the tokenised fields, where an object is a list of 0-based indices. The plain texts count objects from 1 and contain
ordinary numbers too ("at 3 o'clock").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.box_check import box_from_xyxy
from gpt4roi_nb.data.image_files import Folder
from gpt4roi_nb.data.json_stream import lines, parsed
from gpt4roi_nb.data.problems import (
    BROKEN_JSON,
    MISSING,
    OUT_OF_RANGE,
    WRONG_TYPE,
    BadRecord,
    Problems,
    field,
    is_blank,
    length_field,
    path_field,
    shown,
    text_field,
)
from gpt4roi_nb.data.record import ANSWER_CHOICE, RATIONALE_CHOICE, REASONING, Annotation, as_boxes, unbracketed
from gpt4roi_nb.files import check_regular_file
from gpt4roi_nb.prompt import listed

# all: every object of the image is listed. single: only questions and answers that cite one object, which alone is
# listed; the rationale follows if it cites no other. several: only those that cite more objects, which alone are
# listed. choice: all objects are listed, and a letter is asked for, once for the answer and once for the rationale.
RENDERINGS = ("all", "single", "several", "choice")
# As choice, for the test split, which does not give the right options: the rationale is asked for after each of the
# four answers. Nothing can be trained on it.
UNLABELLED = "unlabelled"
OPTIONS = 4

_CLOSING = re.compile(r"^(?:[.,;:!?%)\]]|\.\.\.|n't|'(?:s|m|re|ve|ll|d|t)?)$", re.IGNORECASE)
_OPENING = ("(", "[", "$", "#")

Tokens = Sequence[Any]


def read_vcr(
    file: Path,
    problems: Problems,
    images: Path | None = None,
    *,
    also: Sequence[Path] = (),
    name: str = "vcr",
    rendering: str = "all",
    metadata: Path | None = None,
) -> Iterator[Annotation]:
    """Yield one annotation per line that fits the rendering; two with "choice", five with "unlabelled".

    Args:
        images: the folder `vcr1images`.
        also: folders that links in it may lead to.
        name: the source that records name.
        rendering: one of `RENDERINGS`, or `UNLABELLED`.
        metadata: the folder of the metadata files; by default that of the images.

    Raises:
        ValueError: an unknown rendering, or neither `images` nor `metadata`.
    """
    if rendering not in (*RENDERINGS, UNLABELLED):
        raise ValueError(f"rendering must be one of {', '.join(map(repr, RENDERINGS))}, but is {rendering!r}")
    folder = metadata if metadata is not None else images
    if folder is None:
        raise ValueError(
            "VCR's boxes are in files beside its images; name the folder: load('vcr', 'train.jsonl', 'vcr1images')"
        )
    boxes = _MetadataFiles(Folder(folder, also))
    for number, entry in lines(file, problems):
        where = f"{file.name}: line {number}"
        try:
            yield from _Item(entry, boxes, problems, where, name, rendering != UNLABELLED).render(rendering)
        except BadRecord as bad:
            problems.add(bad, where)


class _MetadataFiles:
    """Boxes and size of an image. Lines about the same image follow one another, so only the latest file is kept."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._name = ""
        self._content: Any = None

    def __call__(self, name: str) -> Any:
        if name != self._name:
            file = self._folder.file(name)
            try:
                check_regular_file(file)
                self._content = parsed(file.read_text(encoding="utf-8-sig"))
            except OSError as error:
                raise BadRecord(MISSING, f"there is no metadata file {name!r} in {str(self._folder)!r}") from error
            except ValueError as error:  # `parsed` raises it too
                raise BadRecord(BROKEN_JSON, f"the metadata file {name!r} cannot be read: {error}") from error
            self._name = name
        return self._content


class _Item:
    """One line with its boxes."""

    def __init__(
        self, entry: Any, metadata: _MetadataFiles, problems: Problems, where: str, name: str, labelled: bool
    ) -> None:
        self.image = path_field(entry, "img_fn")
        self.id = text_field(entry, "annot_id")
        self.source = name
        self.question = _tokens(entry, "question")
        self.answers = _choices(entry, "answer_choices")
        self.answer = _label(entry, "answer_label") if labelled else -1
        self.rationales = _choices(entry, "rationale_choices")
        self.rationale = _label(entry, "rationale_label") if labelled else -1
        self.problems = problems
        facts = metadata(path_field(entry, "metadata_fn"))
        given = field(facts, "boxes", list)
        count = len(field(entry, "objects", list))
        if len(given) != count:
            raise BadRecord(OUT_OF_RANGE, f"the line lists {count} objects, but its metadata file {len(given)} boxes")
        size = length_field(facts, "width"), length_field(facts, "height")
        said = (self.question, *self.answers, *self.rationales)
        cited = set(_cited(*said))
        for index in cited:
            if not 0 <= index < count:
                raise BadRecord(OUT_OF_RANGE, f"object {index} is cited, but there are {count}, counted from 0")
        self.boxes: dict[int, Box] = {}
        for index, row in enumerate(given):
            try:
                self.boxes[index] = box_from_xyxy(row[:4] if isinstance(row, list) else row, *size)
            except BadRecord as bad:
                if index in cited:
                    raise
                problems.add(bad, f"{where}, object {index}")  # not cited: the line is as good without it

    def render(self, rendering: str) -> Iterator[Annotation]:
        parts = [self.question, self.answers[self.answer], self.rationales[self.rationale]]
        if rendering == "single":
            if len(set(_cited(*parts[:2]))) == 1 < len(set(_cited(*parts))):
                parts.pop()  # a rationale that cites more belongs to another rendering
            objects = list(dict.fromkeys(_cited(*parts)))
        elif rendering == "several":
            objects = list(dict.fromkeys(_cited(*parts)))
        else:
            objects = list(self.boxes)
        if (rendering == "single" and len(objects) != 1) or (rendering == "several" and len(objects) < 2):
            self.problems.leave_out(f"questions that do not fit the rendering {rendering!r}")
            return
        numbers = {index: number for number, index in enumerate(objects, 1)}
        question, answer, *rationale = (_text(tokens, numbers) for tokens in parts)
        if rendering not in ("choice", UNLABELLED):
            yield self._annotation(REASONING, objects, (question, answer, *rationale), f"{self.id}/{rendering}")
            return
        answers = [_text(tokens, numbers) for tokens in self.answers]
        rationales = [_text(tokens, numbers) for tokens in self.rationales]
        texts = (question, *answers)
        yield self._annotation(ANSWER_CHOICE, objects, texts, f"{self.id}/answer", self.answer)
        if rendering == UNLABELLED:
            for index, given in enumerate(answers):
                texts = (question, given, *rationales)
                yield self._annotation(RATIONALE_CHOICE, objects, texts, f"{self.id}/rationale{index}")
            return
        texts = (question, answer, *rationales)
        yield self._annotation(RATIONALE_CHOICE, objects, texts, f"{self.id}/rationale", self.rationale)

    def _annotation(
        self, kind: str, objects: list[int], texts: tuple[str, ...], record_id: str, choice: int = -1
    ) -> Annotation:
        boxes = as_boxes([self.boxes[index] for index in objects])
        return Annotation(kind, self.image, boxes, texts, self.source, record_id, choice)


def _text(tokens: Tokens, numbers: Mapping[int, int]) -> str:
    """Tokens as a sentence. numbers: region number by object index."""
    pieces: list[str] = []
    quoted = False
    glue = True  # no blank before the next word
    for token in tokens:
        if isinstance(token, list):
            word = listed([numbers[index] for index in dict.fromkeys(token)])
        else:
            word = unbracketed(token)
        ends = word == '"' and quoted
        if not (glue or ends or _CLOSING.match(word)):
            pieces.append(" ")
        pieces.append(word)
        glue = word in _OPENING or (word == '"' and not quoted)
        quoted ^= word == '"'
    return "".join(pieces).strip()


def _cited(*texts: Tokens) -> Iterator[int]:
    for tokens in texts:
        for token in tokens:
            if isinstance(token, list):
                yield from token


def _tokens(entry: Any, key: str) -> Tokens:
    return _checked_tokens(field(entry, key, list), key)


def _choices(entry: Any, key: str) -> list[Tokens]:
    choices = field(entry, key, list)
    if len(choices) != OPTIONS:
        raise BadRecord(WRONG_TYPE, f"{key!r} must hold {OPTIONS} options, but holds {len(choices)}")
    return [_checked_tokens(choice, key) for choice in choices]


def _checked_tokens(tokens: Any, key: str) -> Tokens:
    if not isinstance(tokens, list):
        raise BadRecord(WRONG_TYPE, f"{key!r} must be a list of tokens, but holds {shown(tokens)}")
    if all(isinstance(token, str) and is_blank(token) for token in tokens):
        raise BadRecord(MISSING, f"{key!r} is empty")
    for token in tokens:
        is_objects = isinstance(token, list) and token and all(type(index) is int for index in token)
        if not isinstance(token, str) and not is_objects:
            raise BadRecord(
                WRONG_TYPE, f"a token of {key!r} must be a string or a list of objects, but is {shown(token)}"
            )
    return tokens


def _label(entry: Any, key: str) -> int:
    label = field(entry, key, int)  # the test split has none
    if not 0 <= label < OPTIONS:
        raise BadRecord(OUT_OF_RANGE, f"{key!r} must lie between 0 and {OPTIONS - 1}, but is {label}")
    return label
