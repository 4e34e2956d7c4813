"""The environment that the docs tell users to make: the built wheel with the extra `all`, and JupyterHub."""

from __future__ import annotations

from pathlib import Path

import pytest

PYTHON = Path(__file__).resolve().parents[1] / "build" / "bare" / "bin" / "python"
READY = PYTHON.parents[1] / ".all"


def bare_python() -> str:
    """Its Python; a test that needs it is skipped where it was not made."""
    if not READY.is_file():
        pytest.skip("no environment with the built wheel: `make bare` makes it")
    return str(PYTHON)
