"""Failures as messages to the user, so that nothing is lost silently, and without the memory that they hold."""

from __future__ import annotations

import gc
import logging

import torch

from gpt4roi_nb.memory import is_out_of_memory

_log = logging.getLogger(__name__)

OUT_OF_MEMORY = (
    "There was not enough memory for this. The memory has been freed: undo turns or start a new conversation, use a "
    "smaller image, or close other notebooks that use the same GPU."
)
# The exceptions for bad input, here and in the session; their messages are written for the user.
_TEACHING = (ValueError, RuntimeError, OSError)


def in_words(error: Exception, *, expected: bool = True) -> str:
    """Make the message to the user about a failure. An unexpected one is logged with its traceback.

    Args:
        error: the failure.
        expected: whether bad input may have caused it; False once the input has been checked.
    """
    if is_out_of_memory(error):  # this package's own MemoryErrors already say what would help
        return _sentence(str(error)) if type(error) is MemoryError and str(error) else OUT_OF_MEMORY
    if expected and isinstance(error, _TEACHING) and str(error):
        return _sentence(str(error))
    _log.error("unexpected failure in a widget", exc_info=error)
    return f"Something unexpected went wrong: {type(error).__name__}: {error}. The log has the details."


def strip_traceback(error: Exception) -> Exception:
    """Return the exception without its traceback, whose frames would keep the failed computation's tensors alive.

    For an out-of-memory exception, also empty the caches that hold memory.
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
