"""What the files of questions and of answers share: their header, and the questions that it stands for.

docs/measuring.md describes both files. The right answers are in neither: `import_answers` reads the benchmark's own
files again, and checks that its questions are those that were exported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gpt4roi_nb.data.image_files import image_size
from gpt4roi_nb.data.problems import UNREADABLE_IMAGE, BadRecord, shown, whole_characters
from gpt4roi_nb.evaluate.benchmarks.benchmark import Benchmark
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Item
from gpt4roi_nb.evaluate.benchmarks.registry import BENCHMARKS, benchmark
from gpt4roi_nb.evaluate.card import ProtocolCard
from gpt4roi_nb.evaluate.model_facts import HASH_LENGTH
from gpt4roi_nb.evaluate.questions import DIGEST_LENGTH, Questions, check_words

FORMAT = "gpt4roi_nb questions 1"
LIKELIHOOD = "likelihood"
NOT_STATED = "not stated"
MAX_TEXT = 500  # characters of what the header says about the model
Sizes = dict[str, tuple[int, int] | BadRecord]


@dataclass(frozen=True)
class Asked:
    """What determines the questions; entries of the header.

    Attributes:
        benchmark: its name.
        split, limit, seed, scorer, question, wording: as for `evaluate`.
    """

    benchmark: str
    split: str
    limit: int | None
    seed: int
    scorer: str
    question: str | None
    wording: str | None

    def header(self) -> dict[str, Any]:
        """Return the entries."""
        return asdict(self)

    def read(
        self, root: Path, folder: Path = Path("."), *, keep: bool = True, mapping_model: str | None = None
    ) -> Questions:
        """Read the questions. root, folder, keep, mapping_model: of `EvalConfig`.

        Raises:
            ValueError: the benchmark's protocol fixes its wording or has no such wording, or no question is usable.
        """
        chosen = benchmark(self.benchmark)
        check_words(chosen, self.question, self.wording)
        config = EvalConfig(
            root, self.split, self.seed, self.scorer, self.question, mapping_model, folder, keep, self.limit,
            self.wording,
        )  # fmt: skip
        return Questions(chosen, config)


@dataclass(frozen=True)
class Answerer:
    """What the header of an answer file says about the model.

    Attributes:
        model: its name.
        revision: of its weights.
        regions: how it was told a region, such as "mask".
        decoding: how its answers were chosen.
    """

    model: str
    revision: str = NOT_STATED
    regions: str = NOT_STATED
    decoding: str = NOT_STATED

    @property
    def checkpoint(self) -> str:
        """A hash of all this, in place of one of the weights."""
        said = "\n".join((self.model, self.revision, self.regions, self.decoding))
        return hashlib.sha256(said.encode()).hexdigest()[:HASH_LENGTH]

    def card(self, asked: dict[str, Any], chosen: Benchmark) -> ProtocolCard:
        """Make the card. asked: its entries about what was asked."""
        return ProtocolCard(
            **asked,
            decoding=f"answered outside this package, decoding {self.decoding}",
            way=self.regions,
            checkpoint=self.checkpoint,
            checkpoint_name=self.model,
            revision=self.revision,
            dtype=f"dtype {NOT_STATED}",
            device=f"a device {NOT_STATED}",
            versions={name: version(name) for name in ("gpt4roi_nb", *chosen.scorers)},
        )


def read_header(said: dict[str, Any], where: str, model: str | None) -> tuple[Asked, str, Answerer]:
    """Check the header of an answer file.

    Args:
        said: the first line.
        where: names it in messages.
        model: name of the model; replaces the header's.

    Returns:
        What was asked, the hash of the questions, and what is said about the model.

    Raises:
        ValueError: an entry is missing or wrong.
    """
    if said.get("format") != FORMAT:
        raise ValueError(
            f"{where} must be the header that `export_questions` wrote, with 'format': {FORMAT!r}, but its 'format' is "
            f"{shown(said.get('format'))}; copy the first line of the questions, and add the model's name"
        )

    def check(key: str, expected: str, right: bool) -> None:
        if not right:
            raise ValueError(f"{where}: {key!r} must be {expected}, but is {shown(said.get(key))}")

    values: tuple[Any, ...] = tuple(said.get(key) for key in (*(one.name for one in fields(Asked)), "questions"))
    name, split, limit, seed, scorer, question, wording, digest = values
    check("benchmark", f"one of {', '.join(BENCHMARKS)}", isinstance(name, str) and name in BENCHMARKS)
    chosen = benchmark(name)
    check("split", f"one of {', '.join(chosen.splits)}", split in chosen.splits)
    check("scorer", f"one of {', '.join(chosen.scoring)}", scorer in chosen.scoring)
    check("limit", "null or a whole number from 1", limit is None or (type(limit) is int and limit >= 1))
    check("seed", "a whole number", type(seed) is int)
    check("question", "null or a text", question is None or isinstance(question, str))
    check("wording", "null or a text", wording is None or isinstance(wording, str))
    check("questions", f"a hash of {DIGEST_LENGTH} digits", isinstance(digest, str) and len(digest) == DIGEST_LENGTH)
    said = said if model is None else said | {"model": model}
    texts = {}
    for key in ("model", "revision", "regions", "decoding"):
        text = said.get(key, "" if key == "model" else NOT_STATED)
        usable = isinstance(text, str) and bool(text.strip()) and len(text) <= MAX_TEXT
        more = " (add it to the header, or give it: model=, on the command line --model)" if key == "model" else ""
        check(key, f"a text of 1 to {MAX_TEXT} characters{more}", usable)
        texts[key] = whole_characters(" ".join(text.split()))
    return Asked(chosen.name, split, limit, seed, scorer, question, wording), digest, Answerer(**texts)


def sizes_of(items: Sequence[Item]) -> Sizes:
    """Return image → (width, height) of the upright image in pixels, or why it cannot be read.

    Only the headers of the files are read.
    """
    found: Sizes = {}
    for image in dict.fromkeys(item.image for item in items):
        try:
            found[image] = image_size(Path(image))
        except BadRecord as bad:
            found[image] = bad
        except (OSError, ValueError) as error:
            found[image] = BadRecord(UNREADABLE_IMAGE, str(error))
    return found
