"""The regions on the image: numbered, locked once they were asked about, and named in questions.

Plain Python: no widget, no browser, no model. Boxes are pixel xyxy in the original (EXIF-oriented) image.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.prompt import enumeration
from gpt4roi_nb.session.references import MENTION, mentioned

MAX_NAME = 40  # characters; a longer name does not fit beside a box


@dataclass(frozen=True)
class DrawnRegion:
    """A region on the image.

    Attributes:
        number: as in `<regionN>`, from 1.
        box: pixel xyxy in the original image.
        asked: whether it is part of the conversation, so that its box cannot change.
        key: stays the same as long as the region exists, whatever its number.
        name: the user's name for it, which questions can use; "" for none.
    """

    number: int
    box: Box
    asked: bool
    key: int
    name: str = ""


@dataclass(frozen=True)
class Question:
    """A question, ready for the session.

    Attributes:
        text: names the new regions as `<regionN>`.
        boxes: of the new regions that it asks about, in the order of their numbers.
        order: keys of all new regions in their new order: those that it asks about first.
        moved: pairs of regions that swap their numbers: the one that is named, and the one whose number it gets.
    """

    text: str
    boxes: tuple[Box, ...]
    order: tuple[int, ...]
    moved: tuple[tuple[int, int], ...]


class RegionBook:
    """The regions of a conversation, followed by new ones that were drawn and not asked about yet."""

    def __init__(self) -> None:
        self._asked: list[DrawnRegion] = []
        self._new: list[DrawnRegion] = []
        self._keys = count(1)

    @property
    def regions(self) -> tuple[DrawnRegion, ...]:
        """All regions, by number."""
        return tuple(self._asked + self._new)

    @property
    def asked(self) -> tuple[DrawnRegion, ...]:
        """The regions of the conversation."""
        return tuple(self._asked)

    @property
    def new(self) -> tuple[DrawnRegion, ...]:
        """The regions that no question has named yet."""
        return tuple(self._new)

    def set_asked(self, boxes: Iterable[Box]) -> None:
        """Set the conversation's regions. Each replaces the new region with the same box, if there is one.

        A region that leaves the conversation (undo, new conversation) becomes a new one again, in front of the others:
        the user drew it, and may want to ask about it again.
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
        """Replace the new regions. names: one per box, "" for none.

        Raises:
            ValueError: there is not one name per box, or `rename` raises it for a name.
        """
        before, boxes = self._new, list(boxes)
        if names is not None and len(names) != len(boxes):
            raise ValueError(f"expected one name per box, but got {len(names)} names for {len(boxes)} boxes")
        self._set_new([DrawnRegion(0, box, False, next(self._keys)) for box in boxes])
        try:
            for region, name in zip(self._new, names or [""] * len(boxes), strict=True):
                self.rename(region.key, name)
        except ValueError:
            self._new = before
            raise

    def add(self, box: Box) -> DrawnRegion:
        """Add a new region after the others, and return it."""
        self._set_new([*self._new, DrawnRegion(0, box, False, next(self._keys))])
        return self._new[-1]

    def change(self, key: int, box: Box) -> None:
        """Give a new region another box."""
        self._set_new([replace(region, box=box) if region.key == key else region for region in self._new])

    def rename(self, key: int, name: str) -> None:
        """Give a region another name, "" for none; also one that was asked about.

        Raises:
            ValueError: another region has the name, with or without "the" before it; or it reads like a region's
                number, or has fewer than two characters (one that is a word by itself, as in Chinese, is enough), more
                than `MAX_NAME`, or no letter.
        """
        name = " ".join(name.split())
        if name and not is_name(name):
            raise ValueError(f"expected a name of 2 to {MAX_NAME} characters, with a letter, but got “{name}”")
        if MENTION.search(name):
            raise ValueError(f"“{name}” reads like the number of a region; choose another name")
        others = [region for region in self.regions if name and region.name and region.key != key]
        taken = next((other for other in others if bare_name(other.name) == bare_name(name)), None)
        if taken is not None:
            raise ValueError(f"region {taken.number} is already called “{taken.name}”; choose another name")
        self._asked, self._new = (
            [replace(region, name=name) if region.key == key else region for region in regions]
            for regions in (self._asked, self._new)
        )

    def remove(self, key: int) -> None:
        """Remove a new region; those after it move up."""
        self._set_new([region for region in self._new if region.key != key])

    def restore(self, regions: Iterable[DrawnRegion]) -> None:
        """Replace all regions by those that the book had before; none removes them."""
        regions = list(regions)
        self._asked = [region for region in regions if region.asked]
        self._new = [region for region in regions if not region.asked]

    def _set_new(self, regions: Sequence[DrawnRegion]) -> None:
        first = len(self._asked) + 1
        self._new = [replace(region, number=first + i, asked=False) for i, region in enumerate(regions)]

    def by_number(self, text: str) -> str:
        """Replace each name in a text, with or without "the" before it, by `<regionN>`."""
        named = {region.name.casefold(): region.number for region in self.regions if region.name}
        if not named:
            return text
        longest_first = "|".join(map(_as_a_word, sorted(named, key=len, reverse=True)))
        names = re.compile(rf"(?:(?<!\w)the )?({longest_first})", re.IGNORECASE)

        def reference(match: re.Match[str]) -> str:
            number = named.get(match[1].casefold())  # some letters match without being alike when folded, as Turkish İ
            return match[0] if number is None else f"<region{number}>"

        return names.sub(reference, text)

    def mentions(self, text: str) -> list[int]:
        """Numbers of the regions that a text names, as `mentions` finds them, or by their names."""
        return mentions(self.by_number(text))

    def question(self, text: str, given: int = 0) -> Question:
        """Resolve a question: which of the new regions it names, and which numbers they get.

        "region 2" means `<region2>` if region 2 is new, and so does its name. A conversation numbers its regions in the
        order in which they are asked about: if a question names region 3 and not region 2, which was never asked about,
        the two swap numbers.

        Args:
            text: as the user wrote it.
            given: this many of the first new regions belong to the question, whether it names them or not.
        """
        text = self.by_number(text)
        by_number = {region.number: region for region in self._new}
        named = sorted({n for n in mentions(text) if n in by_number} | set(list(by_number)[:given]))
        first = list(by_number)[: len(named)]
        moved = tuple(zip((n for n in named if n not in first), (n for n in first if n not in named), strict=True))
        becomes = {number: number for number in by_number} | dict(moved) | {new: old for old, new in moved}
        order = sorted(by_number, key=lambda number: becomes[number])

        def rename(match: re.Match[str]) -> str:
            old = mentioned(match)
            return f"<region{becomes[old]}>" if old in becomes else match[0]

        return Question(
            text=MENTION.sub(rename, text),
            boxes=tuple(by_number[number].box for number in order[: len(named)]),
            order=tuple(by_number[number].key for number in order),
            moved=moved,
        )

    def reorder(self, keys: Sequence[int]) -> None:
        """Number the new regions in this order of their keys."""
        by_key = {region.key: region for region in self._new}
        self._set_new([by_key[key] for key in keys if key in by_key])


def mentions(text: str) -> list[int]:
    """Numbers of the regions that a text names, as `<region1>` or "region 1", in order of appearance, each once."""
    return list(dict.fromkeys(mentioned(match) for match in MENTION.finditer(text)))


def unnamed_notice(numbers: Sequence[int]) -> str:
    """The message to a user who drew new regions, and asks without naming any. numbers: of these regions."""
    it = "it" if len(numbers) == 1 else "them"
    return (
        f"You drew {listed(numbers)}, but the question does not name {it}. Insert {it} with the buttons below, press "
        f"Enter again to ask without {it}, or remove {it} with Clear."
    )


def listed(numbers: Sequence[int]) -> str:
    """List regions in words.

    Args:
        numbers: ascending, at least one.

    >>> listed([2]), listed([1, 3]), listed([2, 3, 4, 5])
    ('region 2', 'regions 1 and 3', 'regions 2 to 5')
    """
    if len(numbers) == 1:
        return f"region {numbers[0]}"
    in_a_row = len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1
    return f"regions {numbers[0]} to {numbers[-1]}" if in_a_row else f"regions {enumeration(list(map(str, numbers)))}"


def is_name(text: str) -> bool:
    """Whether a text is long enough for a name, short enough, and has a letter."""
    least = 1 if any(map(_needs_no_space, text)) else 2
    return least <= len(text) <= MAX_NAME and any(character.isalpha() for character in text)


def bare_name(name: str) -> str:
    """What a question may call a region: its name without "the", in small letters."""
    return name.casefold().removeprefix("the ")


def _needs_no_space(character: str) -> bool:
    """Whether a letter is of a script without capitals: most have no space between words, or join other words to it."""
    return unicodedata.category(character) == "Lo"


def _as_a_word(name: str) -> str:
    """A pattern that finds a name as a word of its own, as far as its script has spaces between words."""
    before = "" if _needs_no_space(name[0]) else r"(?<!\w)"
    after = "" if _needs_no_space(name[-1]) else r"(?!\w)"
    return before + re.escape(name) + after
