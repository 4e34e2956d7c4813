"""What every test can rely on: no network, few threads, and under CI=true no skip for want of a tool."""

import gc
import os
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import find_chromium
from hypothesis import settings
from mongo import Mongo
from mongod import find_mongod

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT.parent / "shared" / "samples"
IN_CI = os.environ.get("CI") == "true"
# What a machine may lack without a test being lost: an accelerator, the reference records beside the checkout, and
# leave to mount a disk.
MAY_SKIP = {"gpu", "samples", "tmpfs"}

# Set before torch and transformers are imported, and inherited by the kernels that browser tests start. Only in xdist's
# workers: they inherit what their controller sets, and two workers with a thread a core each wait on one another.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    _workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _workers)))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["FIFTYONE_DO_NOT_TRACK"] = "true"

# Examples are the same in every run, and a busy machine is no failure.
settings.register_profile("project", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("project")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout's top folder."""
    return ROOT


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the original model's reference numbers."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def canonical(golden: Path) -> Any:
    """The tokenizer that the reference prompts were recorded with, from its SentencePiece file."""
    from gpt4roi_nb.tokenizer import tokenizer_from_sentencepiece

    return tokenizer_from_sentencepiece(golden / "tokenizer" / "tokenizer.model")


@pytest.fixture(scope="session")
def reloaded(canonical: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same, saved and loaded."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    canonical.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def samples() -> Path:
    """Folder of genuine annotation records; tests that use it are marked `samples`."""
    if not SAMPLES.is_dir():
        pytest.skip(f"the reference annotation records are not at {SAMPLES}")
    return SAMPLES


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium that starts."""
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium: `make test` as root installs it, else `sudo apt install chromium`")
    return path


@pytest.fixture(scope="session")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongo]:
    """A MongoDB of this run's own, to which FiftyOne connects here and in the kernels of the browser tests."""
    mongod = find_mongod()
    if mongod is None:
        pytest.skip("no mongod in this environment: `make setup` brings one")
    running = Mongo(mongod, tmp_path_factory.mktemp("mongo"))
    running.start()
    os.environ["FIFTYONE_DATABASE_URI"] = running.uri
    yield running
    if "fiftyone" in sys.modules:
        from fiftyone.core.odm import database

        database._disconnect()  # else FiftyOne looks for it at the end of the process, for half a minute
    running.kill()


@pytest.fixture()
def fiftyone(mongo: Mongo) -> Iterator[Any]:
    """The module, connected to `mongo`; datasets are gone afterwards."""
    from gpt4roi_nb.failures.database import connect

    fo = connect()
    assert fo.config.database_uri == mongo.uri
    yield fo
    for name in fo.list_datasets():
        fo.delete_dataset(name)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests share one JupyterLab, so one worker runs them all; the longest chain starts first.

    Then the modules with the most slow tests, so that short ones are left for the end, when workers run out of work.
    """
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker("browser")
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.xdist_group("browser"))
        elif "mongo" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("mongo"))  # one database, and one import of FiftyOne
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.get_closest_marker("browser") is None, -slow[item.path]))


def pytest_collection_finish() -> None:
    """What was imported stays until the end: each collection of garbage, half a second else, need not look at it."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, pytest.TestReport]:
    report: pytest.TestReport = yield
    if not any(item.get_closest_marker(name) for name in MAY_SKIP):
        _no_skip_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, pytest.CollectReport]:
    report: pytest.CollectReport = yield
    _no_skip_in_ci(report)
    return report


def _no_skip_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI=true does not allow here: {reason}"
