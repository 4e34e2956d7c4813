"""Saved conversations: image reference, regions and turns as JSON."""

from __future__ import annotations

import hashlib
import itertools
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from gpt4roi_nb.boxes import check_boxes
from gpt4roi_nb.files import read_json, write_json
from gpt4roi_nb.prompt import references
from gpt4roi_nb.session.conversation import Answer, Region, Turn

FORMAT = "gpt4roi_nb.session"
VERSION = 1
_ANSWER_FIELDS = ("text", "tokens", "token_ids", "logprobs", "prompt_tokens", "reused_tokens", "seconds", "stopped")


def write_conversation(
    path: str | os.PathLike[str],
    image: Image.Image,
    source: str | None,
    regions: Sequence[Region],
    turns: Sequence[Turn],
) -> None:
    """Write a conversation as JSON; see `RegionSession.save`.

    source: path of the image's file; without one the image is written beside the JSON file.
    """
    target = Path(path).expanduser()
    if not target.name or target.is_dir():
        raise ValueError(f"{str(path)!r} is no name of a file to save to; give one such as 'talk.json'")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no folder {str(target.parent)!r} to save {target.name!r} in; make it first")
    if source is None:
        file = _name_for_image(target)
        image.save(file)
        source = file.name  # beside the file, so that the two can be moved together
    content = {
        "format": FORMAT,
        "version": VERSION,
        "image": {"path": source, "size": list(image.size), "sha256": _fingerprint(image)},
        "regions": [asdict(region) for region in regions],
        "turns": [
            {
                "question": turn.question,
                "answer": {name: getattr(turn.answer, name) for name in _ANSWER_FIELDS},
                "regions": list(turn.regions),
            }
            for turn in turns
        ],
    }
    write_json(target, content)


def _name_for_image(target: Path) -> Path:
    """Where a conversation's image goes: where it was, else under a name that no other file has."""
    try:
        own = read_json(target)["image"]["path"]
    except (OSError, ValueError, LookupError, TypeError):
        own = None  # nothing was saved there yet
    numbers = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
    names = (f"{target.name}.image{number}.png" for number in numbers)
    return next(target.with_name(name) for name in names if name == own or not target.with_name(name).exists())


@dataclass(frozen=True)
class SavedConversation:
    """What a file holds. image: the image's path; size: (width, height) in pixels; sha256: of its pixels, "" if not
    known."""

    image: Path
    size: tuple[int, int]
    sha256: str
    regions: list[Region]
    turns: list[Turn]

    def find_image(self) -> Path:
        """Raises FileNotFoundError where the image has moved."""
        if not self.image.is_file():
            raise FileNotFoundError(
                f"the conversation's image is no longer at {str(self.image)!r}; say where it is: "
                "RegionSession.load(path, gpt4roi, image=…)"
            )
        return self.image

    def check_image(self, image: Image.Image) -> None:
        """Raises ValueError for an image of another size; warns of other pixels."""
        width, height = self.size
        if image.size != self.size:
            raise ValueError(
                f"the conversation is about an image of {width} × {height} pixels, but this one has "
                f"{image.width} × {image.height}; its regions would lie elsewhere"
            )
        if self.sha256 not in ("", _fingerprint(image)):
            warnings.warn(
                "the image has the size of the conversation's image, but other pixels; its regions may lie on other "
                "things",
                stacklevel=3,  # the caller of RegionSession.load
            )


def read_conversation(path: str | os.PathLike[str]) -> SavedConversation:
    """What `write_conversation` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no saved conversation, or a damaged one.
    """
    source = Path(path).expanduser()
    content = _read(source)
    try:
        image = content["image"]
        width, height = image["size"]
        boxes = check_boxes([region["box"] for region in content["regions"]], width, height).tolist()
        regions = [Region(region["number"], tuple(box)) for region, box in zip(content["regions"], boxes, strict=True)]
        turns = [Turn(turn["question"], Answer(**turn["answer"]), tuple(turn["regions"])) for turn in content["turns"]]
        _check(regions, turns)
        reference = source.parent / image["path"]  # an absolute path stays absolute
        return SavedConversation(reference, (width, height), image.get("sha256", ""), regions, turns)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(source)!r} is a damaged conversation: {type(error).__name__} {error}") from error


def _fingerprint(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def _check(regions: list[Region], turns: list[Turn]) -> None:
    """Raises ValueError unless the turns are text and introduce the regions 1, 2, … in their order."""
    numbers = [region.number for region in regions]
    introduced = [number for turn in turns for number in turn.regions]
    if not numbers == introduced == list(range(1, len(regions) + 1)):
        raise ValueError(f"its regions are numbered {numbers}, and its turns introduce {introduced}")
    known = 0
    for turn in turns:
        known += len(turn.regions)
        if isinstance(turn.question, str) and (absent := [n for n in references(turn.question) if not 1 <= n <= known]):
            raise ValueError(f"a question names <region{absent[0]}>, but there are {known} regions by then")
        if isinstance(turn.question, str) and not turn.question.strip():
            raise ValueError("a question is empty")
        if not isinstance(turn.question, str) or not isinstance(turn.answer.text, str):
            raise ValueError(f"questions and answers must be strings, but one turn is {turn!r}")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no saved conversation at {str(path)!r}")
    try:
        content = read_json(path)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not a saved conversation: {error}") from error
    if content.get("format") != FORMAT:
        raise ValueError(f"{str(path)!r} is not a saved conversation; expected a file that RegionSession.save wrote")
    if content.get("version") != VERSION:
        raise ValueError(f"{str(path)!r} has version {content.get('version')}, but this package reads {VERSION}")
    return content
