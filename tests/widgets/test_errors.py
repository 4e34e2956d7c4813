"""The messages about failures in a widget."""

from __future__ import annotations

import pytest
import torch

from gpt4roi_nb.widgets.errors import OUT_OF_MEMORY, in_words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError("relevancy needs 9.9 GB, but 2 GB are free"), "Relevancy needs 9.9 GB, but 2 GB are free."),
        (MemoryError(), OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), OUT_OF_MEMORY),
    ],
)
def test_what_was_refused_for_want_of_memory_says_what_would_help(error, words):
    assert in_words(error) == words
