"""The packages that score answers, imported where they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def tool(module: str, what: str) -> Any:
    """A module of a package of the `evaluate` extra; `what` it computes. Raises ImportError where it is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise ImportError(f"{what} by {package}, which is missing; pip install 'gpt4roi_nb[evaluate]'") from error
