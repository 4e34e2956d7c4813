"""The tables in docs/memory.md, for any configuration: `python -m gpt4roi_nb memory`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers.utils import cached_file

from gpt4roi_nb import commands
from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.files import read_json
from gpt4roi_nb.memory import ANSWER_TOKENS, cache_bytes, dtype_name, in_words, session_bytes, skeleton, weight_bytes


def tables(config: GPT4RoIConfig, dtype: torch.dtype = torch.float16, regions: Sequence[int] = (1, 8, 64)) -> str:
    """Make the Markdown tables: weights and sessions in every setting, and what a session consists of."""
    model = skeleton(config)
    count_of = "a session with " + " | ".join(f"{count} region{'s' * (count > 1)}" for count in regions)
    rows = [f"| | weights | {count_of} | weights and a session with {regions[-1]} |", "|---" * (len(regions) + 3) + "|"]
    for name, kind, bits in (
        ("float32", torch.float32, None),
        (dtype_name(dtype), dtype, None),
        ("8-bit", dtype, "8bit"),
        ("4-bit", dtype, "4bit"),
    ):
        weights = weight_bytes(model, kind, bits)
        sessions = [session_bytes(model, kind, count, bits) for count in regions]
        rows.append(f"| {name} | " + " | ".join(map(in_words, [weights, *sessions, weights + sessions[-1]])) + " |")
    rows += ["", f"| a session in {dtype_name(dtype)} | {count_of.removeprefix('a session with ')} |"]
    rows.append("|---" * (len(regions) + 1) + "|")
    caches = [cache_bytes(config, dtype, count) for count in regions]
    sessions = [session_bytes(model, dtype, count) for count in regions]
    for what, sizes in (
        (f"keys and values, {ANSWER_TOKENS} tokens of answer included", caches),
        ("headroom for all else", [session - cache for session, cache in zip(sessions, caches, strict=True)]),
        ("**at most**", sessions),
    ):
        rows.append(f"| {what} | " + " | ".join(map(in_words, sizes)) + " |")
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables, for GPT4RoI-7B or for the model of a checkpoint. Returns the exit code."""
    given = commands.memory().parse_args(argv).checkpoint
    if given is None:
        print(tables(GPT4RoIConfig()))
        return 0
    try:
        file = cached_file(given, "config.json", _raise_exceptions_for_missing_entries=False)
        if file is None:
            raise ValueError("it lacks config.json")
        values = read_json(Path(file))
        if (kind := values.get("model_type")) != GPT4RoIConfig.model_type:
            raise ValueError(f"its config.json says {kind}")
        print(tables(GPT4RoIConfig.from_file(values, given)))
    except (OSError, ValueError) as error:
        return commands.fail(f"{given!r} is no checkpoint of a GPT4RoI: {error}", 2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
