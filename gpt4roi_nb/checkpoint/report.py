"""What a conversion did with every tensor."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fate:
    """What a conversion did with one tensor.

    Attributes:
        name: our name; empty if the tensor was ignored.
        original: its name in the file that it came from.
        folder: the folder of that file.
        what: "copied", "added", "rows added" or "ignored".
        shape: in the result; for an ignored tensor, in its file.
        why: a few words.
    """

    name: str
    original: str
    what: str
    shape: tuple[int, ...]
    why: str = ""
    folder: str = ""


@dataclass
class ConversionReport:
    """What a conversion did with every tensor: `print(report)` is a summary, `report.table()` has a line per tensor."""

    source: str
    target: str
    base: str | None
    vision: str
    dtype: str
    fates: list[Fate]
    seconds: float = 0.0
    resumed_files: int = 0
    base_checked: int = 0
    verified: str | None = None
    doubts: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.target}: {self.source}" + (f" + {self.base}" if self.base else "") + f", {self.dtype}"]
        counts = Counter((fate.what, fate.why) for fate in self.fates)
        lines += [f"{count:6} {what}" + (f": {why}" if why else "") for (what, why), count in counts.items()]
        if self.doubts:
            lines.append(
                f"FORCED: the base does NOT look like the delta's, for {len(self.doubts)} reasons; the first: "
                f"{self.doubts[0]}"
            )
        if self.base and (self.base_checked or not self.doubts):
            lines.append(
                f"{self.base_checked} tensors show that the base is the delta's"
                if self.base_checked
                else "the base could NOT be checked: the delta does not contain differences of float16 numbers"
            )
        if self.resumed_files:
            lines.append(f"an earlier run had finished {self.resumed_files} of the files")
        if self.verified is not None:
            lines.append(f"verified: it loads, and its answer about a region of a test image is {self.verified!r}")
        return "\n".join(lines)

    def table(self) -> str:
        """One line per tensor: what happened, our name, the authors' name, the shape."""
        width = max(len(fate.name) for fate in self.fates)
        return "\n".join(
            f"{fate.what:10}  {fate.name:{width}}  {fate.original}  {list(fate.shape)}  {fate.why}"
            for fate in self.fates
        )
