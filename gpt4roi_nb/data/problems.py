"""Bad records: told apart by reason, counted, listed in a file; one neither stops an epoch nor vanishes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

from gpt4roi_nb.files import replacing

T = TypeVar("T")

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
REASONS = (
    NO_IMAGE, UNREADABLE_IMAGE, ZERO_AREA, OUTSIDE, OUT_OF_RANGE, MISSING, BROKEN_JSON, WRONG_TYPE, WRONG_TURNS,
    TOO_LONG,
)  # fmt: skip
EXAMPLES = 1  # of each reason in the table


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
        line = json.dumps({"reason": bad.reason, "where": where, "detail": bad.detail}, ensure_ascii=False)
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
        if self.file is not None:
            lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.is_file() else []
        for line in dict.fromkeys(lines):
            yield json.loads(line)

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
    if kind is float and type(value) is int:
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        expected = {str: "a text", int: "a whole number", float: "a number", list: "a list"}.get(kind, kind.__name__)
        raise BadRecord(WRONG_TYPE, f"{key!r} must be {expected}, but is {_shorten(value)}")
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
    except (TypeError, ValueError) as error:
        raise BadRecord(WRONG_TYPE, f"{key!r} must be a number of pixels, but is {_shorten(value)}") from error
    if length < 1:
        raise BadRecord(WRONG_TYPE, f"{key!r} must be at least 1 pixel, but is {length}")
    return length


def _shorten(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
