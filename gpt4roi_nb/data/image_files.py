"""Find which images of a data set exist, and their sizes, without decoding them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from gpt4roi_nb.data.problems import NO_IMAGE, OUTSIDE_FOLDER, UNREADABLE_IMAGE, BadRecord
from gpt4roi_nb.files import check_name, check_regular_file
from gpt4roi_nb.images import DAMAGED

HUB_FOLDERS = ("models--", "datasets--", "spaces--")  # of the hub's cache, one per repository
_ORIENTATION = 0x0112
_LYING = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class Folder:
    """A folder that a user has named; `file` finds only what lies in it.

    The folder itself may be a link. A link in it may lead only to another place in it or in one of the folders `also`:
    archives from the web can hold links, and nothing outside a named folder is read. The files of a snapshot in the
    Hugging Face hub's cache are links; the `blobs` that it shares with other snapshots count as part of it.
    """

    def __init__(self, root: Path, also: Iterable[Path] = ()) -> None:
        self.root = root
        named = [os.path.realpath(folder) for folder in (root, *also)]
        self._allowed = (*named, *filter(None, map(_blobs, named)))
        self._inside: dict[str, str] = {}  # by folder below the root: what is wrong with it, or ""

    def __str__(self) -> str:
        return str(self.root)

    def file(self, name: str) -> Path:
        """Return the path of a file below the folder. Raises BadRecord if a link leads out of the folder."""
        folder, _, _ = name.rpartition("/")
        if folder not in self._inside:
            self._inside[folder] = self._leaving(folder)
        file = self.root / name
        if wrong := self._inside[folder] or (self._leaving(name) if os.path.islink(file) else ""):
            raise BadRecord(OUTSIDE_FOLDER, wrong)
        return file

    def unusable(self, names: Iterable[str]) -> dict[str, BadRecord]:
        """Return those of `names`, paths below the folder, that are not files in it, and why.

        Each folder is listed once, since on a network disk one request per file would take minutes.
        """
        listings: dict[str, dict[str, os.DirEntry[str]]] = {}
        found = {}
        for name in names:
            folder, _, file = name.rpartition("/")
            if folder not in listings:
                listings[folder] = self._listing(folder)
            try:
                if (entry := listings[folder].get(file)) is None:
                    raise BadRecord(NO_IMAGE, f"{name!r} is not in {str(self.root)!r}")
                # A link, a pipe or a folder is checked by itself; for plain files, one check of their folder is enough.
                if self._inside.get(folder) != "" or not entry.is_file(follow_symlinks=False):
                    self.file(name)
                    check_regular_file(self.root / name)
            except BadRecord as bad:
                found[name] = bad
            except FileNotFoundError as error:  # a link that leads nowhere
                found[name] = BadRecord(NO_IMAGE, str(error))
            except (OSError, ValueError) as error:
                found[name] = BadRecord(UNREADABLE_IMAGE, str(error))
        return found

    def _listing(self, folder: str) -> dict[str, os.DirEntry[str]]:
        """The entries of a folder by name. Their types are asked for only where needed, at up to one call each."""
        try:
            with os.scandir(self.root / folder) as entries:
                return {entry.name: entry for entry in entries}
        except (OSError, ValueError):  # not there, not a folder, or a name that no folder can have
            return {}

    def _leaving(self, name: str) -> str:
        """What is wrong with a path that leads out of the folder; "" if it stays inside."""
        leads = os.path.realpath(os.path.join(self.root, name))
        if any(leads == allowed or leads.startswith(allowed.rstrip("/") + "/") for allowed in self._allowed):
            return ""
        # What to do comes first: lists of bad records cut long texts.
        return (
            f"{name!r} is a link that leads outside; name the folder of the files themselves, or name it too, with "
            "also=… of load or train, or replace the links by copies or hard links: "
            f"in {str(self.root)!r} it leads to {leads!r}"
        )


def linked_folders(also: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the one or several folders that `also` names. Raises FileNotFoundError, NotADirectoryError."""
    folders = [Path(one) for one in ([also] if isinstance(also, (str, os.PathLike)) else also)]
    for folder in folders:
        check_name(folder)
        if not folder.exists():
            raise FileNotFoundError(
                f"there is no {str(folder)!r} in {os.getcwd()!r}, which also names; check the path and its spelling"
            )
        if not folder.is_dir():
            raise NotADirectoryError(
                f"also must name folders that links in images lead to, but {str(folder)!r} is a file"
            )
    return folders


def _blobs(folder: str) -> str:
    """The folder of the files of a snapshot in the hub's cache, `models--a--b/blobs`; "" for any other folder."""
    for place in Path(folder).parents:
        if place.name == "snapshots" and place.parent.name.startswith(HUB_FOLDERS):
            return str(place.parent / "blobs")
    return ""


def image_size(file: Path) -> tuple[int, int]:
    """Read (width, height) in pixels of the upright image from its header. Raises BadRecord if that fails."""
    try:
        check_regular_file(file)
        with Image.open(file) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(_ORIENTATION) in _LYING else (width, height)
    except FileNotFoundError as error:
        raise BadRecord(NO_IMAGE, f"there is no {str(file)!r}") from error
    except DAMAGED as error:
        raise BadRecord(UNREADABLE_IMAGE, str(error)) from error
