"""Under CI=true a test that skips for want of a tool fails; elsewhere it skips and says why."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent

TESTS = """
import pytest

def test_wants_a_tool():
    pytest.skip("no such tool")

@pytest.mark.gpu
def test_wants_a_gpu():
    pytest.skip("no GPU")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("ci", "closing"), [("true", "1 failed, 1 skipped"), ("", "2 skipped")])
def test_ci_allows_no_skip_for_want_of_a_tool(tmp_path: Path, ci: str, closing: str) -> None:
    for name in ("conftest.py", "chromium.py", "mongo.py", "mongod.py"):
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "test_inner.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu: needs one\n    browser: needs one\n")
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:xdist", "-p", "no:cacheprovider", str(tmp_path)]
    environment = {**os.environ, "CI": ci}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert closing in result.stdout
    assert "no such tool" in result.stdout
