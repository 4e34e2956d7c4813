"""Damage to files that keeps most of their structure, and the ways in which a reader may end that is given one.

`FUZZ_CASES=10000 pytest tests/data/test_fuzz.py` runs that many cases of each reader, other ones each time; without the
variable 25 run, or 200 under CI=true, always the same.
"""

from __future__ import annotations

import copy
import json
import os
import random
import re
import resource
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PACKAGE = tuple(Path(__file__).parents[1] / folder for folder in ("gpt4roi_nb", "widgets"))
CASES = int(os.environ.get("FUZZ_CASES", "200" if os.environ.get("CI") == "true" else "25"))
SECONDS = 30  # a case takes milliseconds
MEMORY = 400  # MiB that a case may add to the most that was ever held
OWN_ERRORS = (ValueError, FileNotFoundError, IsADirectoryError, NotADirectoryError)
# What Python's own conversions say, in whose traceback the line that called them stands last.
PYTHONS_OWN = re.compile(
    r"^(invalid literal for|could not convert|cannot convert|not enough values|too many values|embedded null|"
    r"Invalid isoformat|'[\w-]+' codec can't|.* is not in list|substring not found|Exceeds the limit)"
)

DEEP = "in its place comes a list in a list in a list"
INFINITY = float("inf")
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 64, 0.5, -0.0, 1e300, 10**400, -(10**30), 2**63, INFINITY, -INFINITY,
    float("nan"), "", " ", "0", "1", "x", "\0", "\ud800", "\u2028", "\x85", "<region1>", "<image>", "..", "../a.jpg",
    "/etc/passwd", "~", ".",
    "a" * 5000, "a/" * 3000, "http://[::1", "http://a/../b", "9" * 5000, DEEP, [], {}, [[]], [None], [{}], [1, 2, 3, 4],
    [0, 0, 5, INFINITY], [10**400] * 4, ["a", "b"], {"id": 1}, {"id": "\ud800"}, [[[1]]],
)  # fmt: skip

every_case = settings(
    max_examples=CASES,
    derandomize="FUZZ_CASES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def cases(test: Callable[..., None]) -> Callable[..., None]:
    """Runs a test that takes `rng`, a random.Random, for each case."""
    return every_case(given(rng=st.integers(0, 2**64 - 1).map(random.Random))(test))


def mutated(content: Any, rng: random.Random) -> Any:
    """A copy with some of its nodes changed."""
    content = copy.deepcopy(content)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 5))):
        places = list(_places(content))
        if not places:
            break
        parent, key = rng.choice(places)
        change = rng.random()
        if change < 0.5:
            parent[key] = copy.deepcopy(rng.choice(ODD))
        elif change < 0.6:
            del parent[key]
        elif change < 0.7:
            other, place = rng.choice(places)
            parent[key] = copy.deepcopy(other[place])
        elif change < 0.8 and isinstance(parent, list):
            parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(parent[key]))
        elif change < 0.9:
            parent[key] = [parent[key]] if rng.random() < 0.5 else {"id": parent[key]}
        elif isinstance(parent[key], str):
            parent[key] = parent[key][: rng.randrange(len(parent[key]) + 1)] + str(
                rng.choice(("\ud83d", "\u2028", " ", "<"))
            )
        elif type(parent[key]) in (int, float):
            parent[key] = rng.choice((-parent[key], parent[key] * 1000, str(parent[key]), parent[key] + 1))
    return content


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    waiting = [content]
    while waiting:
        node = waiting.pop()
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            yield node, key
            waiting.append(node[key])


def written(content: Any, rng: random.Random, lines: bool = False) -> bytes:
    """JSON, or JSON lines, perhaps with damage that only a text can have."""
    dump = json.JSONEncoder(ensure_ascii=rng.random() < 0.7).encode
    text = "\n".join(map(dump, content)) + "\n" if lines and isinstance(content, list) else dump(content)
    depth = rng.choice((5, 90, 900, 20_000))
    text = text.replace(json.dumps(DEEP), "[" * depth + "]" * depth)
    data = text.encode("utf-8", errors=rng.choice(("replace", "surrogatepass")))
    if rng.random() < 0.1:
        data = b"\xef\xbb\xbf" + data
    return garbled(data, rng) if rng.random() < 0.3 else data


def garbled(data: bytes, rng: random.Random) -> bytes:
    """The bytes, cut short or with some changed."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, kind = rng.randrange(len(changed) + 1), rng.random()
        if kind < 0.3:
            del changed[at:]
        elif kind < 0.5:
            del changed[at : at + rng.choice((1, 2, 30))]
        elif kind < 0.7:
            changed[at : at + 1] = rng.randbytes(1)
        elif kind < 0.9:
            changed[at:at] = rng.choice(
                (b"\0", b"{", b"]", b",", b'"', b"\\", b"\n", b"\xff", b"9" * 40, rng.randbytes(4))
            )
        else:
            changed[at:at] = changed[at : at + 50]
    return bytes(changed)


@contextmanager
def ends_well() -> Iterator[None]:
    """The block ends, soon and without taking all memory, with an error of the package's own if any."""

    def too_long(*_: object) -> None:
        raise TimeoutError(f"it took more than {SECONDS} s")

    before = _most_memory()
    former = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # NumPy's words for what became infinite
            yield
    except OWN_ERRORS as error:
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if not any(map(raised_in.is_relative_to, PACKAGE)) or len(str(error)) < 20 or PYTHONS_OWN.search(str(error)):
            raise AssertionError(f"no error of our own: {error!r}") from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)
    if (grown := _most_memory() - before) > MEMORY:
        pytest.fail(f"it took {grown:.0f} MiB more")


def _most_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
