"""Import the packages that score answers where they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def tool(module: str, what: str) -> Any:
    """Import a module of a package in the `evaluate` extra.

    Args:
        module: its full name.
        what: what it is for, such as "AP is computed"; begins the error message.

    Raises:
        ImportError: the package is missing.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise ImportError(f"{what} by {package}, which is missing; pip install 'gpt4roi_nb[evaluate]'") from error
