"""Failures in words, so that nothing is lost silently, and without the memory that they hold on to."""

from __future__ import annotations

import gc
import logging

import torch

from gpt4roi_nb.memory import is_out_of_memory

_log = logging.getLogger(__name__)

OUT_OF_MEMORY = (
    "There was not enough memory for this. The memory has been given back: undo turns or begin a new conversation, "
    "take a smaller image, or close other notebooks that use the same GPU."
)
# What bad input raises, here and in the session; these messages are written for the user.
_TEACHING = (ValueError, RuntimeError, OSError)


def in_words(error: Exception, *, expected: bool = True) -> str:
    """What to tell the user about a failure. An unexpected one is logged with its traceback.

    expected: whether it may come of bad input. Once input has been checked, nothing does.
    """
    if is_out_of_memory(error):  # what this package raises before it begins says what would help
        return _sentence(str(error)) if type(error) is MemoryError and str(error) else OUT_OF_MEMORY
    if expected and isinstance(error, _TEACHING) and str(error):
        return _sentence(str(error))
    _log.error("unexpected failure in a widget", exc_info=error)
    return f"Something unexpected went wrong: {type(error).__name__}: {error}. The log has the details."


def strip_traceback(error: Exception) -> Exception:
    """The exception without its traceback, whose frames would keep the tensors of the failed computation alive.

    An exception for want of memory also empties the caches that hold memory back.
    """
    error.__cause__ = error.__context__ = None
    error = error.with_traceback(None)
    if is_out_of_memory(error):
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return error


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
