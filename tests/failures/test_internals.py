"""FiftyOne's internals that `gpt4roi_nb.failures` uses: changes are noticed here, not in the App."""

from __future__ import annotations

import inspect
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.slow  # the first import of FiftyOne takes its time


def test_a_version_that_nobody_tested_is_not_installed(root: Path) -> None:
    """Internals may change with any minor version, so versions after that of constraints.txt are excluded."""
    requirements = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    (fiftyone,) = (Requirement(line) for line in requirements if line.startswith("fiftyone"))
    tested = re.search(r"^fiftyone==(\d+)\.(\d+)", (root / "constraints.txt").read_text(), re.MULTILINE)
    assert tested is not None
    assert fiftyone.specifier.contains(version("fiftyone"))
    assert not fiftyone.specifier.contains(f"{tested[1]}.{int(tested[2]) + 1}.0")


def test_the_wait_for_the_apps_server_can_be_made_longer() -> None:
    from fiftyone.core import service

    assert list(inspect.signature(service.Service._wait_for_child_port).parameters) == ["self", "port", "timeout"]
    assert issubclass(service.ServiceListenTimeout, Exception)


def test_a_session_tells_whether_its_client_is_connected() -> None:
    from fiftyone.core.session.client import Client
    from fiftyone.core.session.session import Session

    client = Client(address="127.0.0.1", auto=False, port=1, remote=True, start_time=0.0)
    assert client._connected in (True, False)
    assert "self._client = " in inspect.getsource(Session.__init__)


def test_a_database_that_was_killed_can_be_forgotten() -> None:
    from fiftyone.core.odm import database

    assert not inspect.signature(database._disconnect).parameters
    assert database._connection_kwargs is not None
    assert "_db_service" in vars(database)
    assert "FIFTYONE_PRIVATE_DATABASE_PORT" in inspect.getsource(database.establish_db_conn)


def test_the_collection_of_a_datasets_samples_has_a_name() -> None:
    from fiftyone.core.dataset import Dataset

    assert isinstance(Dataset._sample_collection_name, property)
