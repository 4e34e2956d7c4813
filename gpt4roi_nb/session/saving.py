"""Saved conversations: the image's path, regions and turns as JSON."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import reprlib
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from gpt4roi_nb.arguments import whole_number
from gpt4roi_nb.boxes import checked_boxes
from gpt4roi_nb.files import check_name, given_path, read_json, replacing, write_json
from gpt4roi_nb.prompt import references
from gpt4roi_nb.session.conversation import Answer, Region, Turn
from gpt4roi_nb.typed import typed, typed_fields

FORMAT = "gpt4roi_nb.session"
VERSION = 1


_ANSWER_FIELDS: dict[str, Any] = {
    "text": str, "tokens": list[str], "token_ids": list[int], "logprobs": list[float], "prompt_tokens": int,
    "reused_tokens": int, "seconds": float, "stopped": bool,
}  # fmt: skip


def write_conversation(
    path: str | os.PathLike[str],
    image: Image.Image,
    source: str | None,
    regions: Sequence[Region],
    turns: Sequence[Turn],
    way: str = "",
) -> None:
    """Write a conversation as JSON; see `RegionSession.save`.

    Args:
        path: the JSON file.
        image: the conversation's image.
        source: path of the image's file; None writes the image beside the JSON file.
        regions, turns: of the conversation.
        way: how regions were told to the model.
    """
    target = given_path(path)
    if not target.name or (target.exists() and not target.is_file()):
        raise ValueError(f"{str(path)!r} is not the name of a file to save to; give one such as 'talk.json'")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(target.parent)!r} to save {target.name!r} in; make it first")
    if source is None:
        file = _name_for_image(target)
        with replacing(file) as partial:
            image.save(partial, format="PNG")
        source = file.name  # beside the JSON file, so that the two can be moved together
    content = {
        "format": FORMAT,
        "version": VERSION,
        "way": way,
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
    """Return the name for a conversation's image: the one it had, else one that no other file has."""
    try:
        own = read_json(target)["image"]["path"]
    except (OSError, ValueError, LookupError, TypeError):
        own = None  # nothing was saved there yet
    numbers = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
    names = (f"{target.name}.image{number}.png" for number in numbers)
    return next(target.with_name(name) for name in names if name == own or not os.path.lexists(target.with_name(name)))


@dataclass(frozen=True)
class SavedConversation:
    """The content of a file.

    Attributes:
        image: the image's path.
        size: (width, height) in pixels.
        sha256: hash of its pixels, "" if unknown.
        regions, turns: of the conversation.
        way: how regions were told to the model; "" if unknown.
    """

    image: Path
    size: tuple[int, int]
    sha256: str
    regions: list[Region]
    turns: list[Turn]
    way: str = ""

    def check_way(self, way: str) -> None:
        """Warn if regions are told in another way than in the conversation so far."""
        if self.turns and self.way not in ("", way):
            warnings.warn(
                f"the conversation's answers are of a model that was told regions by {self.way!r}, and this one is "
                f"told them by {way!r}: it reads them as if they were its own",
                stacklevel=3,  # the caller of RegionSession.load
            )

    def find_image(self) -> Path:
        """Return the image's path.

        Raises:
            FileNotFoundError: if the image has moved.
        """
        if not self.image.is_file():
            raise FileNotFoundError(
                f"the conversation's image is no longer at {str(self.image)!r}; say where it is: "
                "RegionSession.load(path, gpt4roi, image=…)"
            )
        return self.image

    def check_image(self, image: Image.Image) -> None:
        """Raise ValueError for an image of another size; warn about other pixels."""
        width, height = self.size
        if image.size != self.size:
            raise ValueError(
                f"the conversation is about an image of {width} × {height} pixels, but this one has "
                f"{image.width} × {image.height}; its regions would lie elsewhere"
            )
        if self.sha256 not in ("", _fingerprint(image)):
            warnings.warn(
                "the image has the size of the conversation's image, but other pixels; the regions may lie on other "
                "objects",
                stacklevel=3,  # the caller of RegionSession.load
            )


def read_conversation(path: str | os.PathLike[str]) -> SavedConversation:
    """Read what `write_conversation` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a saved conversation, or a damaged one.
    """
    source = given_path(path)
    content = _read(source)
    try:
        image = content["image"]
        width, height = image["size"]
        for side in (width, height):
            whole_number(side, "each side of the image", least=1)
        boxes = checked_boxes([region["box"] for region in content["regions"]], width, height)
        regions = [Region(region["number"], box) for region, box in zip(content["regions"], boxes, strict=True)]
        turns = [
            Turn(typed(turn["question"], str, "a question"), _answer(turn["answer"]), tuple(turn["regions"]))
            for turn in content["turns"]
        ]
        _check(regions, turns)
        sha256 = typed(image.get("sha256", ""), str, "the image's sha256")
        reference = source.parent / image["path"]  # an absolute path stays absolute
        check_name(reference)
        way = typed(content.get("way", ""), str, "the way of telling regions")
        return SavedConversation(reference, (width, height), sha256, regions, turns, way)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(source)!r} is a damaged conversation: {type(error).__name__} {error}") from error


def _answer(content: Any) -> Answer:
    """Make an answer; raise ValueError for fields other than an answer's, or values of other types."""
    answer = Answer(**typed_fields(content, _ANSWER_FIELDS, "an answer"))
    for name, numbers in (("logprobs", answer.logprobs), ("seconds", [answer.seconds])):
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"an answer's {name} must be finite; got {reprlib.repr(numbers)}")
    counted = {"prompt_tokens": answer.prompt_tokens, "reused_tokens": answer.reused_tokens, "seconds": answer.seconds}
    for name, number in {**counted, "token_ids": min(answer.token_ids, default=0)}.items():
        if number < 0:
            raise ValueError(f"an answer's {name} must be at least 0, but is {number}")
    if not len(answer.tokens) == len(answer.token_ids) == len(answer.logprobs):
        raise ValueError(
            f"an answer has {len(answer.tokens)} tokens, {len(answer.token_ids)} token_ids and "
            f"{len(answer.logprobs)} logprobs, expected equal numbers"
        )
    return answer


def _fingerprint(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def _check(regions: list[Region], turns: list[Turn]) -> None:
    """Raise ValueError unless the turns introduce the regions 1, 2, … in order, and their questions name no others."""
    numbers = [region.number for region in regions]
    introduced = [number for turn in turns for number in turn.regions]
    for number in (*numbers, *introduced):
        whole_number(number, "a region's number")
    if not numbers == introduced == list(range(1, len(regions) + 1)):
        raise ValueError(f"its regions are numbered {numbers}, and its turns introduce {introduced}")
    known = 0
    for turn in turns:
        known += len(turn.regions)
        if absent := [n for n in references(turn.question) if not 1 <= n <= known]:
            raise ValueError(f"a question names <region{absent[0]}>, but there are only {known} regions at that point")
        if not turn.question.strip():
            raise ValueError("a question is empty")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no saved conversation at {str(path)!r}")
    try:
        content = read_json(path)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not a saved conversation: {error}") from error
    if content.get("format") != FORMAT:
        raise ValueError(f"{str(path)!r} is not a saved conversation; expected a file that RegionSession.save wrote")
    if content.get("version") != VERSION:
        raise ValueError(f"{str(path)!r} has version {content.get('version')}, but this package reads {VERSION}")
    return content
