"""Read and write small files, with clear errors for damaged ones."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import reprlib
import stat
import warnings
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# Far above what any file here has (a tokenizer's "no limit" is 10³⁰), and below what breaks Python or a later reader.
MAX_DIGITS = 100  # of a whole number
MAX_DEPTH = 100  # of nested lists and objects
# What NFS and similar file systems answer to a lock on a folder.
NO_LOCKS = frozenset((errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP))


def given_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that a user gave, with `~` replaced.

    Raises:
        ValueError: as `check_name`.
    """
    given = Path(os.path.expanduser(path))
    check_name(given)
    return given


def check_name(path: str | os.PathLike[str]) -> None:
    """Check that the system takes a path as the name of a file, whether or not there is one.

    Raises:
        ValueError: if it is too long, or holds a null byte or half a character.
    """
    try:
        os.lstat(path)
    except ValueError:
        fault = "holds a null byte, or half a character"
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            return  # there is none, or it cannot be read, which its reader says
        fault = f"has {len(os.fspath(path)):,} characters, more than the file system takes in a name or a path"
    else:
        return
    raise ValueError(f"expected the path of a file or folder, but {reprlib.repr(os.fspath(path))} {fault}; check it")


def check_regular_file(path: str | os.PathLike[str]) -> None:
    """Check that a path leads to a regular file: reading a pipe, a terminal or a device may never end.

    Args:
        path: a file; symbolic links are followed.

    Raises:
        FileNotFoundError: if there is nothing.
        IsADirectoryError: if it is a folder.
        ValueError: if it is a pipe, a socket or a device, or no name at all (`check_name`).
    """
    check_name(path)
    name = repr(os.fspath(path))
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {name}; check the path and its spelling") from None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"expected a file, but {name} is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise ValueError(
            f"expected a regular file, but {name} is {kind}; copy its content into a file, and name that file"
        )


def parse_json(text: str, name: str) -> Any:
    """Parse a JSON text.

    Args:
        text: the JSON text.
        name: its name in messages.

    Raises:
        ValueError: if it is truncated or not JSON, nested more than `MAX_DEPTH` deep, or holds a whole number of more
            than `MAX_DIGITS` digits.
    """
    try:
        content = json.loads(text, parse_int=_whole_number)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} is truncated or not a JSON file: {error}") from error
    except _TooLong as error:
        raise ValueError(
            f"{name} holds a whole number of {error} digits, expected at most {MAX_DIGITS}; it is damaged or not meant "
            "to be read"
        ) from None
    except RecursionError:
        pass  # deeper than Python itself reads
    else:
        if not _is_deeper(content, MAX_DEPTH):
            return content
    raise ValueError(f"{name} nests lists or objects more than {MAX_DEPTH} deep; it is damaged or not meant to be read")


def read_json(file: Path, what: str = "the folder", *, with_mark: bool = True) -> dict[str, Any]:
    """Read the JSON object in a file.

    Args:
        file: the file.
        what: the name of its folder in messages.
        with_mark: whether it may begin with a byte order mark, which transformers does not read.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a regular file, not a JSON object, or `parse_json` rejects it.
    """
    check_name(file)
    if not file.exists():
        raise FileNotFoundError(f"{what} {str(file.parent)!r} lacks {file.name}")
    check_regular_file(file)
    data = file.read_bytes()
    if data.startswith(BOM_UTF8) and not with_mark:
        raise ValueError(
            f"{str(file)!r} begins with a byte order mark, which transformers does not read; save it as UTF-8 without"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(file)!r} is truncated or not a JSON file: {error}") from error
    content = parse_json(text, repr(str(file)))
    if not isinstance(content, dict):
        raise ValueError(f"{str(file)!r} must hold a JSON object, but holds a {type(content).__name__}")
    return content


def read_json_lines(file: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Read a file with one JSON object per line that was written line by line.

    Returns:
        The objects, and the numbers (from 1) of the damaged lines. A last line without a line break is one of them: a
        kill or a full disk has cut it short.

    Raises:
        FileNotFoundError, IsADirectoryError, ValueError: as `check_regular_file`.
    """
    check_regular_file(file)
    *lines, last = file.read_bytes().split(b"\n")
    found, damaged = [], []
    for number, line in enumerate(lines, 1):
        try:
            entry = parse_json(line.decode("utf-8"), "the line")
        except ValueError:
            entry = None
        if isinstance(entry, dict):
            found.append(entry)
        else:
            damaged.append(number)
    return found, damaged + [len(lines) + 1] * bool(last)


class _TooLong(Exception):
    """A whole number has this many digits."""


def _whole_number(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _TooLong(len(digits.lstrip("-")))
    return int(digits)


def _is_deeper(content: Any, depth: int) -> bool:
    """Whether lists and objects are nested more than `depth` deep."""
    level = [content]
    for _ in range(depth):
        level = [value for value in level if isinstance(value, dict | list)]
        if not level:  # files of many lines are parsed line by line
            return False
        level = [child for value in level for child in (value.values() if isinstance(value, dict) else value)]
    return any(isinstance(value, dict | list) for value in level)


@contextmanager
def alone_in(folder: Path, work: str) -> Iterator[None]:
    """Lock a folder, so that no other process, and no other thread of this one, does the same work in it.

    Warns if the (network) file system cannot lock folders.

    Args:
        folder: made if there is none. The system unlocks it, however the process ends.
        work: the work in messages, such as "training".

    Raises:
        FileExistsError: if the folder is locked already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(
                f"another {work} is writing to {str(folder)!r}; wait for it to end, or name another folder"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            warnings.warn(f"{str(folder)!r} cannot be locked; make sure no other {work} writes to it", stacklevel=3)
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(opened, fcntl.LOCK_UN)  # also for processes forked meanwhile, which hold it too
    finally:
        os.close(opened)


def stamp_of(file: str | os.PathLike[str]) -> str:
    """Return a file's size and time of change, to notice when it changes. Raises OSError if there is no such file."""
    facts = os.stat(file)
    return f"{facts.st_size} {facts.st_mtime_ns}"


@contextmanager
def replacing(file: Path, *, shared: bool = False) -> Iterator[Path]:
    """Write a file under a temporary name first, so that an interrupted write does not leave half a file.

    Args:
        file: the final name. An existing file is replaced when the block ends without an error.
        shared: whether several processes may write the same file at once; each then has its own temporary name.

    Yields:
        The temporary name, `file` + ".part" (and the process id, if `shared`), of a new empty file. It is removed if
        the block raises.

    Raises:
        FileNotFoundError: there is no folder for it.
        ValueError: if `file` is a folder, a device or a pipe, which must not be replaced, or `check_name` rejects it.
    """
    check_name(file)
    target = Path(os.path.realpath(file))  # a link stays, and its target is replaced
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{str(file)!r} cannot be written: there is no folder {str(target.parent)!r}")
    if target.exists() and not target.is_file():
        kind = "a folder" if target.is_dir() else "a device or a pipe"
        raise ValueError(f"expected a file to write to, or a new name, but {str(file)!r} is {kind}")
    partial = target.with_name(f"{target.name}.part{os.getpid() if shared else ''}")
    check_name(partial)
    partial.unlink(missing_ok=True)
    partial.touch(exist_ok=False)  # never through a link that somebody put there
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_json(file: Path, content: dict[str, Any], indent: int | None = 1) -> None:
    """Write a JSON object, completely or not at all (see `replacing`)."""
    with replacing(file) as partial:
        # Half a character is written as JSON's escape of it.
        text = json.dumps(content, indent=indent, ensure_ascii=False)
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
