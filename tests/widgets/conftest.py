"""Shared set-up of the widgets' tests."""

from __future__ import annotations

import sys
from pathlib import Path

# The stand-in model is also imported by the notebooks of the browser tests, from this folder.
sys.path.insert(0, str(Path(__file__).parent))
