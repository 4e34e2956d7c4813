"""Bad records: sorted by reason, counted and listed in a file, so that none stops an epoch or is dropped silently."""

from __future__ import annotations

import json
import os
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, overload
from urllib.parse import urlsplit

from gpt4roi_nb.files import check_regular_file, parse_json, replacing
from gpt4roi_nb.prompt import HALF_CHARACTER
from gpt4roi_nb.typed import typed_fields

T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

NO_IMAGE = "no such image"
UNREADABLE_IMAGE = "image cannot be read"
ZERO_AREA = "box without area"
OUTSIDE = "box outside the image"
OUT_OF_RANGE = "index out of range"
MISSING = "missing field"
BROKEN_JSON = "broken JSON"
WRONG_TYPE = "wrong type"
WRONG_TURNS = "turns out of order"
TOO_LONG = "too long"
AMBIGUOUS = "ambiguous id"
OUTSIDE_FOLDER = "path leaves its folder"
REASONS = (
    NO_IMAGE, UNREADABLE_IMAGE, ZERO_AREA, OUTSIDE, OUT_OF_RANGE, MISSING, BROKEN_JSON, WRONG_TYPE, WRONG_TURNS,
    TOO_LONG, AMBIGUOUS, OUTSIDE_FOLDER,
)  # fmt: skip
EXAMPLES = 1  # of each reason in the table
LARGEST = 10**9  # pixels of a side or a coordinate: far above any image, and float32 can hold it
LARGEST_NUMBER = 2**63 - 1
_ENTRY = {"reason": str, "where": str, "detail": str}  # of the list
_UNSEEN = ("Cc", "Cf")  # Unicode's categories of control and format characters
LONGEST_WORDS = 300  # characters of each text in the list
LONGEST_NAME, LONGEST_PATH = 255, 1000  # bytes of a name and characters of a path that all systems take


class BadRecord(ValueError):
    """A record, or one of its boxes, that cannot be used. `reason` is one of `REASONS`; `detail` says more.

    Example:
        >>> from pathlib import Path
        >>> from gpt4roi_nb.data import BadRecord, load
        >>> _ = Path("mine.json").write_text('[{"id": "1", "image": "a.jpg"}]')
        >>> try:
        ...     load("conversations", "mine.json", strict=True, cache="cache")
        ... except BadRecord as bad:
        ...     print(bad.reason)
        missing field
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        # With one string as argument it can be pickled, so that a loader's worker can hand it to the training.
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Problems:
    """What was wrong with the records of a data set.

    Any number of workers can use one: each appends its lines to the same file, and the counts are read from there. A
    problem that is noted twice, as in a second epoch, counts once.

    Args:
        file: lists the bad records, one JSON object per line: reason, where, detail. Without it, the list is in memory.
        strict: raise BadRecord at the first one instead.
    """

    def __init__(self, file: Path | None = None, *, strict: bool = False) -> None:
        self.file = file
        self.strict = strict
        self.left_out: Counter[str] = Counter()  # by what it is: unused, but nothing is wrong with it, such as crowds
        self._lines: list[str] = []

    def add(self, bad: BadRecord, where: str) -> None:
        """Note a bad record.

        Args:
            bad: what is wrong.
            where: which record, such as "instances.json: annotation 17".

        Raises:
            BadRecord: if strict, with these words.
        """
        if self.strict:
            raise BadRecord(
                bad.reason, f"{bad.detail} ({where}); with strict=False such records are counted and left out"
            ) from bad
        words = {"where": cut(where, LONGEST_WORDS), "detail": cut(bad.detail, LONGEST_WORDS)}
        line = whole_characters(json.dumps({"reason": bad.reason, **words}, ensure_ascii=False))
        if self.file is None:
            self._lines.append(line)
            return
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def begin_with(self, *others: Problems) -> None:
        """Replace the list by what others have noted, in one step, since other processes may be reading it."""
        lines = [json.dumps(entry, ensure_ascii=False) for other in others for entry in other]
        if self.file is None:
            self._lines = lines
            return
        with replacing(self.file, shared=True) as partial:
            partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def leave_out(self, what: str) -> None:
        """Count an entry that is not used although nothing is wrong with it."""
        self.left_out[what] += 1

    def __iter__(self) -> Iterator[dict[str, str]]:
        lines = self._lines
        if self.file is not None and self.file.exists():
            check_regular_file(self.file)
            # Not splitlines: an id may contain U+2028 and the like, which JSON does not escape.
            lines = self.file.read_text(encoding="utf-8", errors="replace").split("\n")
        numbers = {line: number for number, line in reversed(list(enumerate(lines, 1)))}
        for line in dict.fromkeys(lines):
            if line.strip():
                yield _entry(line) or self._damaged(numbers[line])

    def _damaged(self, number: int) -> dict[str, str]:
        """The entry in place of a line that a full disk or a kill has left unreadable."""
        detail = "this line of the list of bad records is damaged; load(…, rebuild=True) writes the list again"
        return {"reason": BROKEN_JSON, "where": f"{self.file}: line {number}", "detail": detail}

    def counts(self) -> Counter[str]:
        """Return the number of bad records by reason."""
        return Counter(entry["reason"] for entry in self)

    def table(self, title: str = "records that cannot be used") -> str:
        """Return the counts, each with an example, and the file that lists all."""
        entries = list(self)
        counts = Counter(entry["reason"] for entry in entries)
        lines = [f"{title}: {len(entries)}"]
        for reason, count in counts.most_common():
            shown = [entry for entry in entries if entry["reason"] == reason][:EXAMPLES]
            lines += [f"  {count:>9,}  {reason:<22} e.g. {entry['where']}: {entry['detail']}" for entry in shown]
        lines += [f"  {count:>9,}  left out: {what}" for what, count in self.left_out.most_common()]
        if self.file is not None and entries:
            lines.append(f"  all of them: {self.file}")
        return "\n".join(lines)


class UniqueTable(dict[Key, Value]):
    """The entries of a file by id. Entries that share an id are all dropped: nobody can tell which is meant, and boxes
    would go to the wrong image."""

    def __init__(self) -> None:
        super().__init__()
        self._ambiguous: set[Key] = set()

    def add(self, key: Key, value: Value) -> None:
        """Add an entry. Raises BadRecord if its id already stands for a different one."""
        if key in self._ambiguous or self.setdefault(key, value) != value:
            self._ambiguous.add(key)
            self.pop(key, None)
            raise BadRecord(AMBIGUOUS, f"the id {key!r} stands for different entries; none of them is used")


@overload
def field(entry: Any, key: str, kind: type[T]) -> T: ...
@overload
def field(entry: Any, key: str, kind: type[T], default: T) -> T: ...
def field(entry: Any, key: str, kind: type[T], default: T | None = None) -> T:
    """Return `entry[key]`, checked. Raises BadRecord if it has another type, or is missing and has no default."""
    if not isinstance(entry, Mapping):
        raise BadRecord(WRONG_TYPE, f"expected an object with {key!r}, but got a {type(entry).__name__}")
    value = entry.get(key)
    if value is None:
        if default is not None:
            return default
        raise BadRecord(MISSING, f"there is no {key!r}")
    if type(value) is int and abs(value) > LARGEST_NUMBER:
        raise BadRecord(WRONG_TYPE, f"{key!r} must be at most 2⁶³ − 1, but is {shown(value)}")
    if kind is float and type(value) is int:
        value = float(value)
    elif isinstance(value, str):
        value = whole_characters(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        expected = {str: "a string", int: "a whole number", float: "a number", list: "a list"}.get(kind, kind.__name__)
        raise BadRecord(WRONG_TYPE, f"{key!r} must be {expected}, but is {shown(value)}")
    return value


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: white space, control characters, and such as U+200B and U+FEFF."""
    return all(character.isspace() or unicodedata.category(character) in _UNSEEN for character in text)


def text_field(entry: Any, key: str) -> str:
    """Return `entry[key]`, a string. Raises BadRecord if it is blank, or as `field` does."""
    text = field(entry, key, str)
    if is_blank(text):
        raise BadRecord(MISSING, f"{key!r} is empty")
    return text


def length_field(entry: Any, key: str) -> int:
    """Return a side of an image in pixels, which some files write as text; 0 if it is missing."""
    value = entry.get(key) if isinstance(entry, Mapping) else None
    if value is None:
        return 0
    try:
        length = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRecord(WRONG_TYPE, f"{key!r} must be a number of pixels, but is {shown(value)}") from error
    if not 1 <= length <= LARGEST or isinstance(value, bool):
        raise BadRecord(WRONG_TYPE, f"{key!r} must be a number of pixels from 1 to 10⁹, but is {shown(value)}")
    return length


def id_field(entry: Any, key: str) -> int | str:
    """Return `entry[key]`, by which other entries name this one. Raises BadRecord as `field` does."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if type(value) is int and -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
        return value
    return whole_characters(value) if isinstance(value, str) else field(entry, key, int)


def path_field(entry: Any, key: str) -> str:
    """Return `entry[key]`, the path of a file below a folder that the user has named."""
    path = field(entry, key, str)
    if not path.strip():  # other characters that cannot be seen may be a file's name
        raise BadRecord(MISSING, f"{key!r} is empty")
    return relative_path(path, key)


def relative_path(path: str, key: str) -> str:
    """Return the path if it stays in its folder, as far as its text tells. Raises BadRecord if it does not."""
    parts = PurePosixPath(path).parts
    if "\0" in path or not parts:
        raise BadRecord(WRONG_TYPE, f"{key!r} must be a file's path, but is {shown(path)}")
    if path.startswith(("/", "~")) or ".." in parts:
        raise BadRecord(
            OUTSIDE_FOLDER,
            f"{key!r} must be a path below the folder that was named, without '..', but is {shown(path)}",
        )
    if len(path) > LONGEST_PATH or any(len(os.fsencode(whole_characters(part))) > LONGEST_NAME for part in parts):
        raise BadRecord(NO_IMAGE, f"{key!r} is longer than a path may be: {shown(path)}")
    return path


def path_in_url(url: str, key: str) -> str:
    """Return the last folder and the file name of a URL, such as `VG_100K/1.jpg`."""
    try:
        parts = [part for part in urlsplit(url).path.split("/") if part]
    except ValueError as error:
        raise BadRecord(WRONG_TYPE, f"{key!r} must be a URL, but is {shown(url)}: {error}") from error
    return relative_path("/".join(parts[-2:]), key)


def whole_characters(text: str) -> str:
    """Replace each lone surrogate, which no file can hold, by U+FFFD."""
    return text if text.isascii() else HALF_CHARACTER.sub("\ufffd", text)


_REPR = reprlib.Repr()  # neither shows nor reads what lies deep in a value, or far back
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60


def shown(value: object, limit: int = 60) -> str:
    """Return a value of any type as a message shows it, in at most `limit` characters."""
    try:
        return cut(_REPR.repr(value), limit)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists within lists
        return f"a {type(value).__name__} too large to show"


def cut(text: str, limit: int) -> str:
    """Cut a text to at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _entry(line: str) -> dict[str, str] | None:
    """The entry of a line of the list; None if it is damaged."""
    try:
        return typed_fields(parse_json(line, "the line"), _ENTRY, "the line")
    except ValueError:
        return None
