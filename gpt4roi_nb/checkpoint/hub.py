"""Where a model's files lie: in a folder, or on a hub, from which what is small comes first and the weights last."""

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

CONFIG_FILE = "config.json"
# Configurations and tokenizers of any year.
SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
# What says which files of a hub are meant, and how they are got.
HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder")

FULL = (errno.ENOSPC, errno.EDQUOT)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
HOW_TO_RESUME = (
    "a download that broke off goes on with the same call, or with `hf download {}`: files that are whole are not "
    "fetched again"
)


@dataclass(frozen=True)
class Source:
    """A model's files.

    Attributes:
        name: as it was given.
        folder: where they lie, or will: for a hub id a snapshot in the hub's cache.
        what: how messages call it.
        is_remote: whether it is a hub id, of which only the small files are in the folder before `get_weights`.
    """

    name: str
    folder: Path
    what: str = "checkpoint"
    is_remote: bool = False
    _subfolder: str = ""
    _options: Mapping[str, Any] = field(default_factory=dict)

    def get_weights(self, layouts: Sequence[tuple[str, str]] = LAYOUTS) -> None:
        """Have the weights of a hub id in the folder: of several layouts the first that is whole, as `Shards` reads.

        Nothing is done for a folder. What a hub lacks is missing afterwards, as from a folder.

        Args:
            layouts: names of the index of the shards, and of the one file that takes their place.

        Raises:
            ValueError: an index has no map, or names what is no file of its own folder.
            FileNotFoundError: the hub cannot be reached, and its cache has nothing of it.
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
        """Gets files of these names, of the same revision as the small ones. Returns whether all are there."""
        # With config.json, which every model has, or the hub's library would warn where there is none of the names.
        patterns = [_pattern(self._subfolder, name) for name in (CONFIG_FILE, *names)]
        _snapshot(self.name, self.what, patterns, self._options)
        return all((self.folder / name).is_file() for name in names)


def locate(
    name: str | os.PathLike[str], what: str, options: Mapping[str, Any] | None = None, *, one_word: bool = False
) -> Source:
    """A folder as it is; of a hub id the small files, from the hub, or from its cache where HF_HUB_OFFLINE is set.

    Args:
        name: a folder, which comes first, or a hub id.
        what: how messages call it.
        options: of `HUB_OPTIONS`.
        one_word: whether a hub id may be one word, as those of the hub's first models are.

    Raises:
        FileNotFoundError: there is neither.
        OSError: the disk of the hub's cache is full, or access to it is denied (`PermissionError`).
        ValueError: it is a file.
    """
    options = dict(options or {})
    subfolder = options.pop("subfolder", None) or ""
    given = os.fspath(name)
    path = Path(os.path.expanduser(given))
    if given and path.is_dir():
        return Source(given, path / subfolder, what)
    if given and path.exists():
        raise ValueError(f"the {what} {given!r} is a file; expected a folder, or a hub id")
    slashes = (0, 1) if one_word else (1,)
    if not given or path.is_absolute() or given.startswith((".", "~")) or given.count("/") not in slashes:
        raise FileNotFoundError(f"no {what} at {given!r}; expected a folder, or a hub id such as name/model")
    snapshot = _snapshot(given, what, [os.path.join(glob.escape(subfolder), name) for name in SMALL_FILES], options)
    # The weights are those of the same commit, by whose hash the snapshot is called, whatever is published meanwhile.
    return Source(given, snapshot / subfolder, what, True, subfolder, {**options, "revision": snapshot.name})


def _pattern(subfolder: str, name: str) -> str:
    return glob.escape(os.path.join(subfolder, name))


def _snapshot(repository: str, what: str, patterns: list[str], options: Mapping[str, Any]) -> Path:
    """The folder of a hub id in the hub's cache, with those files that match in it, as far as there are any."""
    if is_offline_mode():  # huggingface_hub 1.31 asks the hub for the list of a commit's files even so
        options = {**options, "local_files_only": True}
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns, **options))
    except IncompleteSnapshotError as error:
        return Path(error.snapshot_path)  # offline: what is needed of it and missing is named by the checks
    except (HTTPError, OSError, ValueError) as error:
        number = getattr(error, "errno", None)
        if number in (*FULL, *DENIED):
            problem = "its disk is full" if number in FULL else "access to it is denied"
            remedy = "free some room there" if number in FULL else "have it made readable and writable"
            raise OSError(
                number,
                f"the {what} {repository!r} could not be put into the hub's cache, "
                f"{os.fspath(options.get('cache_dir') or constants.HF_HUB_CACHE)!r}: {problem} ({error}); {remedy}, or "
                f"set HF_HUB_CACHE to another folder and start again; {HOW_TO_RESUME.format(repository)}",
            ) from error
        refused = isinstance(error, HfHubHTTPError | HFValidationError)  # and nothing broke off
        raise FileNotFoundError(
            f"no {what} at {repository!r}: there is no such folder, and it could not be got as a hub id ({error})"
            + ("" if refused else f"; {HOW_TO_RESUME.format(repository)}")
        ) from error
