"""Processes that share a run, and the folders that they agree on."""

from __future__ import annotations

import os
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gpt4roi_nb.evaluate.worlds import own_world

if TYPE_CHECKING:
    from accelerate import PartialState

LONGEST = timedelta(days=7)  # that one process waits for another


def processes() -> PartialState | None:
    """Return the processes of `accelerate launch` (or torchrun); None if this is the only one."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    from accelerate import PartialState

    # Without cpu=True, each process without an accelerator would believe it is the only one.
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=LONGEST)


def data_root(given: str | os.PathLike[str] | None, state: PartialState | None) -> Path:
    """Return the absolute folder of the data; without one given, a generated world that one process writes."""
    if given is not None:
        return Path(given).expanduser().absolute()
    if state is None:
        return own_world()
    with state.main_process_first():
        return own_world()


class RunFolder:
    """The folder of a run, the same in all processes; without a name, a temporary one that is removed at the end."""

    def __init__(self, given: str | os.PathLike[str] | None, state: PartialState | None) -> None:
        self._given = given
        self._state = state
        self._path: Path | None = None

    def __enter__(self) -> Path:
        if self._given is not None:
            self._path = Path(self._given).expanduser().absolute()
        elif self._state is None:
            self._path = Path(tempfile.mkdtemp(prefix="gpt4roi_nb-"))
        else:
            from accelerate.utils import broadcast_object_list

            made = [tempfile.mkdtemp(prefix="gpt4roi_nb-") if self._state.is_main_process else ""]
            self._path = Path(broadcast_object_list(made)[0])
        return self._path

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._given is None and self._path is not None:
            if self._state is not None and kind is None:  # after an error the others would wait forever
                self._state.wait_for_everyone()
            if self._state is None or self._state.is_main_process:
                shutil.rmtree(self._path, ignore_errors=True)
