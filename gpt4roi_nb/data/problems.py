"""Bad records: told apart by reason, counted, listed in a file; one neither stops an epoch nor vanishes."""

from __future__ import annotations

import json
import reprlib
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, overload
from urllib.parse import urlsplit

from gpt4roi_nb.files import check_regular_file, replacing
from gpt4roi_nb.prompt import HALF_CHARACTER

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
LARGEST = 10**9  # pixels, of a side or a coordinate: no image comes near it, and float32 can hold it
LARGEST_NUMBER = 2**63 - 1
LONGEST_WORDS = 300  # characters of what the list says of a record


class BadRecord(ValueError):
    """A record, or a box of it, that cannot be used. `reason` is one of `REASONS`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        # With one text alone it is made anew from its words: so a loader's worker hands it on to the training.
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Problems:
    """What was wrong with the records of a data set.

    Safe to hand to any number of workers: each writes its lines to the end of the same file, and the counts are read
    from there. What is told twice, as in a second epoch, counts once.

    Args:
        file: where they are listed, one JSON object a line: reason, where, detail. Without one, in memory.
        strict: raise at the first instead.
    """

    def __init__(self, file: Path | None = None, *, strict: bool = False) -> None:
        self.file = file
        self.strict = strict
        self.left_out: Counter[str] = Counter()  # by what: rightly unused, such as crowds; nothing is wrong with them
        self._lines: list[str] = []

    def add(self, bad: BadRecord, where: str) -> None:
        """Notes a bad record; `where` says which, such as "instances.json: annotation 17".

        Raises BadRecord, with these words, if strict.
        """
        if self.strict:
            raise BadRecord(
                bad.reason, f"{bad.detail} ({where}); strict=False counts such records and goes on"
            ) from bad
        words = {"where": cut(where, LONGEST_WORDS), "detail": cut(bad.detail, LONGEST_WORDS)}
        line = whole_characters(json.dumps({"reason": bad.reason, **words}, ensure_ascii=False))
        if self.file is None:
            self._lines.append(line)
            return
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def begin_with(self, *others: Problems) -> None:
        """Lists what others have noted, and forgets what this has; all at once, since others may be reading."""
        lines = [json.dumps(entry, ensure_ascii=False) for other in others for entry in other]
        if self.file is None:
            self._lines = lines
            return
        with replacing(self.file, shared=True) as partial:
            partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def leave_out(self, what: str) -> None:
        """Counts an entry that is fine, but of no use here."""
        self.left_out[what] += 1

    def __iter__(self) -> Iterator[dict[str, str]]:
        lines = self._lines
        if self.file is not None and self.file.exists():
            check_regular_file(self.file)
            # Not splitlines: an id may hold U+2028 and its like, which JSON leaves as they are.
            lines = self.file.read_text(encoding="utf-8", errors="replace").split("\n")
        numbers = {line: number for number, line in reversed(list(enumerate(lines, 1)))}
        for line in dict.fromkeys(lines):
            if line.strip():
                yield _entry(line) or self._damaged(numbers[line])

    def _damaged(self, number: int) -> dict[str, str]:
        """What is said in place of a line that a full disk or a kill has left unreadable."""
        detail = "this list of bad records is damaged there; load(…, rebuild=True) makes it anew"
        return {"reason": BROKEN_JSON, "where": f"{self.file}: line {number}", "detail": detail}

    def counts(self) -> Counter[str]:
        """How many of each reason."""
        return Counter(entry["reason"] for entry in self)

    def table(self, title: str = "records that cannot be used") -> str:
        """The counts with an example each, and where all are listed."""
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
    """The entries of a file by id. Of an id that stands for different things none is kept: which is meant nobody can
    tell, and boxes would go to another image."""

    def __init__(self) -> None:
        super().__init__()
        self._ambiguous: set[Key] = set()

    def add(self, key: Key, value: Value) -> None:
        """Raises BadRecord where the id stands for something else already."""
        if key in self._ambiguous or self.setdefault(key, value) != value:
            self._ambiguous.add(key)
            self.pop(key, None)
            raise BadRecord(AMBIGUOUS, f"the id {key!r} stands for different entries; none of them is used")


@overload
def field(entry: Any, key: str, kind: type[T]) -> T: ...
@overload
def field(entry: Any, key: str, kind: type[T], default: T) -> T: ...
def field(entry: Any, key: str, kind: type[T], default: T | None = None) -> T:
    """`entry[key]`, checked. Raises BadRecord if it is missing, without a default, or of another type."""
    if not isinstance(entry, Mapping):
        raise BadRecord(WRONG_TYPE, f"expected an object with {key!r}, but a {type(entry).__name__} came")
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
        expected = {str: "a text", int: "a whole number", float: "a number", list: "a list"}.get(kind, kind.__name__)
        raise BadRecord(WRONG_TYPE, f"{key!r} must be {expected}, but is {shown(value)}")
    return value


def text_field(entry: Any, key: str) -> str:
    """`entry[key]`, a text that says something."""
    text = field(entry, key, str)
    if not text.strip():
        raise BadRecord(MISSING, f"{key!r} is empty")
    return text


def length_field(entry: Any, key: str) -> int:
    """A side of an image in pixels, which some files write as a text; 0 where it is not said."""
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
    """`entry[key]`, by which other entries name this one."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if type(value) is int and -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
        return value
    return whole_characters(value) if isinstance(value, str) else field(entry, key, int)


def path_field(entry: Any, key: str) -> str:
    """`entry[key]`, the path of a file below a folder that the user has named."""
    return relative_path(text_field(entry, key), key)


def relative_path(path: str, key: str) -> str:
    """A path that stays in its folder, as far as its letters tell. Raises BadRecord for any other."""
    parts = PurePosixPath(path).parts
    if "\0" in path or not parts:
        raise BadRecord(WRONG_TYPE, f"{key!r} must be a file's path, but is {shown(path)}")
    if path.startswith(("/", "~")) or ".." in parts:
        raise BadRecord(
            OUTSIDE_FOLDER,
            f"{key!r} must be a path below the folder that was named, without '..', but is {shown(path)}",
        )
    return path


def path_in_url(url: str, key: str) -> str:
    """The folder and the name of the file that an address ends in, such as `VG_100K/1.jpg`."""
    try:
        parts = [part for part in urlsplit(url).path.split("/") if part]
    except ValueError as error:
        raise BadRecord(WRONG_TYPE, f"{key!r} must be an address, but is {shown(url)}: {error}") from error
    return relative_path("/".join(parts[-2:]), key)


def whole_characters(text: str) -> str:
    """The text with a sign in place of each lone surrogate, which no file can hold."""
    return text if text.isascii() else HALF_CHARACTER.sub("\ufffd", text)


_REPR = reprlib.Repr()  # of what lies deep within it, or far behind, nothing is shown, nor looked at
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60


def shown(value: object, limit: int = 60) -> str:
    """A value as a message shows it, whatever it is."""
    try:
        return cut(_REPR.repr(value), limit)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists within lists
        return f"a {type(value).__name__} too large to show"


def cut(text: str, limit: int) -> str:
    """A text of at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _entry(line: str) -> dict[str, str] | None:
    """A line of the list; None where it is damaged."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    told = isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("reason", "where", "detail"))
    return entry if told else None
