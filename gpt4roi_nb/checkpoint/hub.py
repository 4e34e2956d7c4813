"""Where a model's files are: in a folder, or on a hub, from which the small files come first and the weights last."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import constants, is_offline_mode, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # type: ignore[attr-defined]  # of httpx or its successor, as huggingface_hub has it
    IncompleteSnapshotError,
)

from gpt4roi_nb.checkpoint.shards import LAYOUTS, weight_map
from gpt4roi_nb.files import given_path

CONFIG_FILE = "config.json"
# Configurations and tokenizers in every format that was ever used.
SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
# Keywords that choose which files of a hub are meant, and how they are downloaded.
HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder")

FULL = (errno.ENOSPC, errno.EDQUOT)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
HOW_TO_RESUME = (
    "to resume an interrupted download, repeat the call or use `hf download {}`: complete files are not downloaded "
    "again"
)


@dataclass(frozen=True)
class Source:
    """A model's files.

    Attributes:
        name: the folder or hub id, as the caller gave it.
        folder: where they are, or will be: for a hub id, a snapshot in the hub's cache.
        what: what messages call it, such as "checkpoint".
        is_remote: whether it is a hub id; before `get_weights`, only its small files are in the folder.
    """

    name: str
    folder: Path
    what: str = "checkpoint"
    is_remote: bool = False
    _subfolder: str = ""
    _options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def revision(self) -> str:
        """The commit of a hub id, by which the hub's cache names its snapshot; "" for a folder."""
        before, _, after = self.folder.as_posix().rpartition("/snapshots/")
        return after.partition("/")[0] if self.is_remote and before else ""

    def get_weights(self, layouts: Sequence[tuple[str, str]] = LAYOUTS) -> None:
        """Download the weights of a hub id: of several layouts the first that is complete, as `Shards` reads.

        For a folder this does nothing. Files that the hub lacks are missing afterwards, as they would be in a folder.

        Args:
            layouts: pairs of names: the index of the shards, and the single file that replaces them.

        Raises:
            ValueError: an index has no map, or names a file outside its own folder.
            FileNotFoundError: the hub cannot be reached, and its cache has none of the files.
            OSError: the disk of its cache is full, or access to it is denied (`PermissionError`).
        """
        if not self.is_remote:
            return
        for index, single in layouts:
            if self._get([single]):
                return
            if (self.folder / index).is_file() and self._get(sorted(set(weight_map(self.folder / index).values()))):
                return

    def _get(self, names: list[str]) -> bool:
        """Download these files, of the same revision as the small ones. Returns whether all of them exist."""
        # With config.json, which every model has: otherwise huggingface_hub warns if none of the names exists.
        patterns = [_pattern(self._subfolder, name) for name in (CONFIG_FILE, *names)]
        _snapshot(self.name, self.what, patterns, self._options)
        return all((self.folder / name).is_file() for name in names)


def locate(
    name: str | os.PathLike[str], what: str, options: Mapping[str, Any] | None = None, *, one_word: bool = False
) -> Source:
    """Find a model's files; a hub id's small files are downloaded, or come from the cache if HF_HUB_OFFLINE is set.

    Args:
        name: a folder or a hub id; an existing folder takes precedence.
        what: what messages call it, such as "checkpoint".
        options: keywords of `HUB_OPTIONS`.
        one_word: whether a hub id may be one word, as for the hub's first models.

    Returns:
        Where the files are; weights of a hub id come with `Source.get_weights`.

    Raises:
        FileNotFoundError: there is no such folder and no such hub id.
        OSError: the disk of the hub's cache is full, or access to it is denied (`PermissionError`).
        ValueError: it is a file, or no name that the system takes.
    """
    options = dict(options or {})
    subfolder = options.pop("subfolder", None) or ""
    given = os.fspath(name)
    path = given_path(given)
    if given and path.is_dir():
        return Source(given, path / subfolder, what)
    if given and path.exists():
        raise ValueError(f"the {what} {given!r} is a file; expected a folder, or a hub id")
    slashes = (0, 1) if one_word else (1,)
    if not given or path.is_absolute() or given.startswith((".", "~")) or given.count("/") not in slashes:
        raise FileNotFoundError(f"no {what} at {given!r}; expected a folder, or a hub id such as name/model")
    snapshot = _snapshot(given, what, [os.path.join(glob.escape(subfolder), name) for name in SMALL_FILES], options)
    # The snapshot's name is its commit's hash: the weights come from that commit, whatever is published meanwhile.
    return Source(given, snapshot / subfolder, what, True, subfolder, {**options, "revision": snapshot.name})


def _pattern(subfolder: str, name: str) -> str:
    return glob.escape(os.path.join(subfolder, name))


def _snapshot(repository: str, what: str, patterns: list[str], options: Mapping[str, Any]) -> Path:
    """The folder of a hub id in the hub's cache, with those matching files that exist."""
    if is_offline_mode():  # huggingface_hub 1.31 otherwise asks the hub for a commit's list of files, even offline
        options = {**options, "local_files_only": True}
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns, **options))
    except IncompleteSnapshotError as error:
        return Path(error.snapshot_path)  # offline: later checks name the files that are needed and missing
    except (HTTPError, OSError, ValueError) as error:
        number = getattr(error, "errno", None)
        if number in (*FULL, *DENIED):
            problem = "its disk is full" if number in FULL else "access to it is denied"
            remedy = "free some space there" if number in FULL else "make it readable and writable"
            raise OSError(
                number,
                f"the {what} {repository!r} could not be downloaded to the hub's cache, "
                f"{os.fspath(options.get('cache_dir') or constants.HF_HUB_CACHE)!r}: {problem} ({error}); {remedy}, or "
                f"set HF_HUB_CACHE to another folder and start again; {HOW_TO_RESUME.format(repository)}",
            ) from error
        refused = isinstance(error, HfHubHTTPError | HFValidationError)  # so no download was interrupted
        raise FileNotFoundError(
            f"no {what} at {repository!r}: there is no such folder, and downloading it as a hub id failed ({error})"
            + ("" if refused else f"; {HOW_TO_RESUME.format(repository)}")
        ) from error
