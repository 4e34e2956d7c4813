"""Small files, and words for what is wrong with them."""

from __future__ import annotations

import json
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


def write_json(file: Path, content: dict[str, Any], indent: int | None = 1) -> None:
    """Writes under another name first, so that an interrupted write leaves no half file."""
    partial = file.with_name(file.name + ".part")
    partial.write_text(json.dumps(content, indent=indent, ensure_ascii=False), encoding="utf-8")
    partial.replace(file)
