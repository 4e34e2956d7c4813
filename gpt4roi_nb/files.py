"""Small files, and words for what is wrong with them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def read_json(file: Path, what: str = "the folder") -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileNotFoundError: there is no such file; `what` is how the message calls the place that lacks it.
        ValueError: it is truncated or no JSON object.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{what} {str(file.parent)!r} lacks {file.name}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{str(file)!r} is truncated or no JSON file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(file)!r} must hold a JSON object, but holds a {type(content).__name__}")
    return content


@contextmanager
def replacing(file: Path, *, shared: bool = False) -> Iterator[Path]:
    """Write a file under another name, so that an interrupted write leaves no half file.

    Args:
        file: takes its name, and the place of a file that has it, when the block ends without an error.
        shared: several processes may write the same file at once; each then writes under a name of its own.

    Returns:
        The name to write to, `file` + ".part", of an empty new file; it is removed where the block raises.

    Raises:
        ValueError: `file` is a folder, a device or a pipe, which a file must not take the place of.
    """
    target = Path(os.path.realpath(file))  # a link stays, and what it leads to is replaced
    if target.exists() and not target.is_file():
        kind = "a folder" if target.is_dir() else "a device or a pipe"
        raise ValueError(f"expected a file to write to, or a new name, but {str(file)!r} is {kind}")
    partial = target.with_name(f"{target.name}.part{os.getpid() if shared else ''}")
    partial.unlink(missing_ok=True)
    partial.touch(exist_ok=False)  # never through a link that somebody put there
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_json(file: Path, content: dict[str, Any], indent: int | None = 1) -> None:
    """Write a JSON object as a whole file or not at all (see `replacing`)."""
    with replacing(file) as partial:
        partial.write_text(json.dumps(content, indent=indent, ensure_ascii=False), encoding="utf-8")
