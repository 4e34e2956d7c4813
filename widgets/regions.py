"""The regions on the image: numbered, locked once asked about, and what a question means by their names.

Plain Python: no widget, no browser, no model. Boxes are pixel xyxy in the original (EXIF-oriented) image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.session.references import MENTION, mentioned

MAX_NAME = 40  # characters; more does not fit beside a box


@dataclass(frozen=True)
class DrawnRegion:
    """A region on the image.

    number: as in `<regionN>`, from 1. box: pixel xyxy in the original image. asked: it is part of the conversation,
    so that its box stays. key: the same as long as the region lives, whatever its number. name: what the person calls
    it, "" for nothing but its number; a question may use it.
    """

    number: int
    box: Box
    asked: bool
    key: int
    name: str = ""


@dataclass(frozen=True)
class Question:
    """A question, ready for the session.

    text: the new regions are named `<regionN>`. boxes: those of the new regions, in the order of their numbers.
    order: keys of the new regions that stay behind, after those. moved: (old, new) numbers that had to change.
    """

    text: str
    boxes: tuple[Box, ...]
    order: tuple[int, ...]
    moved: tuple[tuple[int, int], ...]


class RegionBook:
    """The asked regions of a conversation, followed by those that were drawn and not asked about yet."""

    def __init__(self) -> None:
        self._asked: list[DrawnRegion] = []
        self._new: list[DrawnRegion] = []
        self._keys = count(1)

    @property
    def regions(self) -> tuple[DrawnRegion, ...]:
        """All of them, by number."""
        return tuple(self._asked + self._new)

    @property
    def asked(self) -> tuple[DrawnRegion, ...]:
        """Those that the conversation has."""
        return tuple(self._asked)

    @property
    def new(self) -> tuple[DrawnRegion, ...]:
        """Those that no question named yet."""
        return tuple(self._new)

    def set_asked(self, boxes: Iterable[Box]) -> None:
        """The conversation has these regions now. Each takes over the new region with the same box, if there is one.

        A region that leaves the conversation (undo, new conversation) becomes a new one again, in front: the person
        drew it and may want to ask anew.
        """
        asked: list[DrawnRegion] = []
        pool = self._asked + self._new
        for number, box in enumerate(boxes, start=1):
            same = next((region for region in pool if region.box == box), None)
            if same is not None:
                pool.remove(same)
            asked.append(
                replace(same, number=number, asked=True) if same else DrawnRegion(number, box, True, next(self._keys))
            )
        self._asked = asked
        self._set_new(pool)

    def set_new(self, boxes: Iterable[Box], names: Sequence[str] | None = None) -> None:
        """Replaces the new regions. names: one for each box, "" for none.

        Raises ValueError for another count of names than of boxes, and for one that `rename` refuses.
        """
        before, boxes = self._new, list(boxes)
        if names is not None and len(names) != len(boxes):
            raise ValueError(f"expected one name per box, but {len(names)} names came with {len(boxes)} boxes")
        self._set_new([DrawnRegion(0, box, False, next(self._keys)) for box in boxes])
        try:
            for region, name in zip(self._new, names or [""] * len(boxes), strict=True):
                self.rename(region.key, name)
        except ValueError:
            self._new = before
            raise

    def add(self, box: Box) -> DrawnRegion:
        """A new region, behind the others."""
        self._set_new([*self._new, DrawnRegion(0, box, False, next(self._keys))])
        return self._new[-1]

    def change(self, key: int, box: Box) -> None:
        """Gives a new region another box."""
        self._set_new([replace(region, box=box) if region.key == key else region for region in self._new])

    def rename(self, key: int, name: str) -> None:
        """Gives a region another name, "" for none; those that were asked about, too.

        Raises ValueError for a name that another region has, that reads like a region's number, or that has fewer than
        two characters, more than `MAX_NAME`, or no letter.
        """
        name = " ".join(name.split())
        if name and not (2 <= len(name) <= MAX_NAME and any(character.isalpha() for character in name)):
            raise ValueError(f"expected a name of 2 to {MAX_NAME} characters, with a letter, but “{name}” came")
        if MENTION.search(name):
            raise ValueError(f"“{name}” reads like the number of a region; choose another name")
        taken = next((r for r in self.regions if name and r.key != key and r.name.casefold() == name.casefold()), None)
        if taken is not None:
            raise ValueError(f"region {taken.number} is called “{taken.name}” already; choose another name")
        self._asked, self._new = (
            [replace(region, name=name) if region.key == key else region for region in regions]
            for regions in (self._asked, self._new)
        )

    def remove(self, key: int) -> None:
        """Takes a new region away; those behind it move up."""
        self._set_new([region for region in self._new if region.key != key])

    def clear(self) -> None:
        """No regions at all."""
        self._asked, self._new = [], []

    def _set_new(self, regions: Sequence[DrawnRegion]) -> None:
        first = len(self._asked) + 1
        self._new = [replace(region, number=first + i, asked=False) for i, region in enumerate(regions)]

    def by_number(self, text: str) -> str:
        """The text with `<regionN>` in the place of each name, with or without "the"."""
        named = {region.name.casefold(): region.number for region in self.regions if region.name}
        if not named:
            return text
        longest_first = "|".join(re.escape(name) for name in sorted(named, key=len, reverse=True))
        names = re.compile(rf"(?<!\w)(?:the )?({longest_first})(?!\w)", re.IGNORECASE)
        return names.sub(lambda match: f"<region{named[match[1].casefold()]}>", text)

    def mentions(self, text: str) -> list[int]:
        """As `mentions`, by number or by name."""
        return mentions(self.by_number(text))

    def question(self, text: str, given: int = 0) -> Question:
        """What a question asks: which of the new regions it names, and under which numbers.

        The first `given` of the new regions belong to it whether it names them or not.

        "region 2" means `<region2>` where region 2 is new, and so does its name. A conversation numbers its regions in
        the order in which they are asked about; so when a question names region 3 and leaves region 2 unasked, the two
        change places.
        """
        text = self.by_number(text)
        by_number = {region.number: region for region in self._new}
        named = sorted({n for n in mentions(text) if n in by_number} | set(list(by_number)[:given]))
        rest = [number for number in by_number if number not in named]
        first = len(self._asked) + 1
        becomes = {old: first + i for i, old in enumerate(named + rest)}

        def rename(match: re.Match[str]) -> str:
            old = mentioned(match)
            return f"<region{becomes[old]}>" if old in becomes else match[0]

        return Question(
            text=MENTION.sub(rename, text),
            boxes=tuple(by_number[number].box for number in named),
            order=tuple(by_number[number].key for number in named + rest),
            moved=tuple((old, new) for old, new in becomes.items() if old != new),
        )

    def reorder(self, keys: Sequence[int]) -> None:
        """Numbers the new regions in this order of their keys."""
        by_key = {region.key: region for region in self._new}
        self._set_new([by_key[key] for key in keys if key in by_key])


def mentions(text: str) -> list[int]:
    """Numbers of the regions that a text names, as `<region1>` or "region 1", in order, each once."""
    return list(dict.fromkeys(mentioned(match) for match in MENTION.finditer(text)))


def unnamed_notice(numbers: Sequence[int]) -> str:
    """What to tell somebody who drew new regions, and asks without naming any. numbers: of the regions."""
    if len(numbers) == 1:
        drawn, it = f"region {numbers[0]}", "it"
    else:
        drawn, it = f"regions {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}", "them"
    return (
        f"You drew {drawn}, but the question does not name {it}. Insert {it} with the buttons below, or press Enter "
        f"again to ask without {it}."
    )
