"""What generation_config.json says: whether transformers can read it, and which tokens end an answer."""

from __future__ import annotations

import math
import reprlib
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

GENERATION_FILE = "generation_config.json"


def check_generation_config(content: dict[str, Any], file: Path) -> None:
    """Raise ValueError if transformers cannot read the content of a generation_config.json."""
    try:
        GenerationConfig.from_dict(content)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{str(file)!r} does not say how to generate ({type(error).__name__}: {error}); copy it again"
        ) from error


def check_end_ids(model: PreTrainedModel, source: str) -> None:
    """Raise ValueError if what is to end a model's answers is not the id of a token, or a list of ids.

    Args:
        model: as transformers loads it.
        source: its checkpoint in the message.
    """
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    rows = getattr(model.config.get_text_config(decoder=True), "vocab_size", None)
    for end in ends if isinstance(ends, list) else [] if ends is None else [ends]:
        if isinstance(end, bool) or not isinstance(end, int) or not 0 <= end < (rows or math.inf):
            most = "" if rows is None else f" below {rows}"
            raise ValueError(
                f"eos_token_id in {GENERATION_FILE} or config.json of {source!r} must be the id of a token{most} or a "
                f"list of ids, but is {reprlib.repr(ends)}; copy both again"
            )
