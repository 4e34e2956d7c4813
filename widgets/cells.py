"""Callbacks after each cell of the notebook."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from IPython import get_ipython


def after_each_cell(method: Callable[[], bool]) -> None:
    """Call a bound method after each cell, until it returns False or its object is gone; only in a notebook."""
    shell = get_ipython()
    if shell is None:
        return
    known = weakref.WeakMethod(method)

    def call(*_: Any) -> None:
        alive = known()
        if alive is None or not alive():
            shell.events.unregister("post_run_cell", call)

    shell.events.register("post_run_cell", call)
