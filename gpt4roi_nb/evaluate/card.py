"""The protocol card: what each number measures. Without it, numbers cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from typing import Any

VERSIONS = ("gpt4roi_nb", "torch", "transformers")
# How long and on what it was computed, not what was asked: cards that differ only here describe the same protocol.
INCIDENTAL = ("seconds", "device", "versions", "checkpoint_name", "revision", "batch_sizes", "example")
REGION_TOKENS = "region tokens"  # the way of a GPT4RoI
OF_THE_WAY = ("source", "status")  # of `told`: what is known of the way, and not what the model is told


@dataclass(frozen=True)
class ProtocolCard:
    """Everything that determines a metric.

    Attributes:
        benchmark: name of the benchmark.
        dataset: title of its dataset; with "(generated world)" if the files are generated ones in its form.
        split: split of the dataset.
        images, regions, questions: how many were asked about. A region counts once, however often it is asked about.
        limit: how many groups of questions were drawn with `seed`; None: all.
        seed: of the draw, the order of options and the intervals.
        prompt: the wording, with `<region1>` for the region; `told["region"]` is what the model gets in its place.
        scorer: "generate" or "likelihood".
        decoding: how answers were chosen.
        mapping: how answers became classes; "" if they did not.
        checkpoint: hash of the names, shapes and bytes of all weights as used; of imported answers, of what their file
            says about the model.
        checkpoint_name: where the weights came from; "demo" for the embedded checkpoint.
        dtype, device: of the model.
        versions: package → version, of what computed and what scored the answers.
        seconds: time of all answers together.
        batch_sizes: questions per batch, largest first. There are several if memory ran out, or if the run was resumed
            with another size.
        complete: False if the run ended early.
        left_out: reason → number of records or questions that could not be asked, or were left out on purpose.
        counts: special cases in scoring → how often they came up.
        way: how boxes were presented to the model: "region tokens" for a GPT4RoI, else one of `models.WAYS`, or what
            the file of imported answers says.
        told: what else is said of that way, by name: "region", "convention", "coordinates", "colours", "line_width",
            "margin", "frame", "source", "status", …, as far as they apply.
        seen: the size in which the model got its images, or the smallest and the largest of a sample of questions; ""
            if it was not recorded.
        processor: class of the processor, and of that of images.
        revision: commit of a hub id; "" for a folder.
        example: the first question as the model read it, with its box; "" for region tokens.

    >>> from gpt4roi_nb import GPT4RoI
    >>> from gpt4roi_nb.data.scenes.formats.write import write_world
    >>> from gpt4roi_nb.evaluate import evaluate
    >>> gpt4roi, world = GPT4RoI.from_pretrained(), write_world("world", 2, progress=False)
    >>> cards = [evaluate("vcr", gpt4roi, world, seed=seed, progress=False).card for seed in (0, 1)]
    >>> cards[0].questions, cards[0].images, cards[0].scorer
    (6, 1, 'likelihood')
    >>> cards[0].differences(cards[1])
    {'seed': (0, 1)}
    """

    benchmark: str
    dataset: str
    split: str
    images: int
    regions: int
    questions: int
    limit: int | None
    seed: int
    prompt: str
    scorer: str
    decoding: str
    mapping: str
    checkpoint: str
    checkpoint_name: str
    dtype: str
    device: str
    versions: dict[str, str]
    seconds: float
    batch_sizes: list[int] = field(default_factory=list)
    complete: bool = True
    left_out: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    way: str = REGION_TOKENS
    told: dict[str, str] = field(default_factory=dict)
    seen: str = ""
    processor: str = ""
    revision: str = ""
    example: str = ""

    @property
    def model(self) -> str:
        """The model in a few words: its name, and unless boxes were region tokens, their way with its line."""
        return self.checkpoint_name + ("" if self.way == REGION_TOKENS else f", {self.shown}")

    @property
    def shown(self) -> str:
        """The way in a few words: "crop", or "draw, red, 3 pixels"."""
        if self.way != "draw" or not {"colours", "line_width"} <= self.told.keys():  # as of answers that were imported
            return self.way
        return f"{self.way}, {self.told['colours'].partition(',')[0]}, {' '.join(self.told['line_width'].split()[:2])}"

    def differences(self, other: ProtocolCard) -> dict[str, tuple[Any, Any]]:
        """Compare two protocols.

        Args:
            other: another card.

        Returns:
            Name → (own value, other value) of entries that influence metrics and differ; empty for the same protocol.
        """
        mine, its = asdict(self), asdict(other)
        found = {
            one.name: (mine[one.name], its[one.name])
            for one in fields(self)
            if one.name not in (*INCIDENTAL, "told") and mine[one.name] != its[one.name]
        }
        for name in {**self.told, **other.told}:
            pair = self.told.get(name, ""), other.told.get(name, "")
            if pair[0] != pair[1] and name not in OF_THE_WAY:
                found[f"told: {name}"] = pair
        return found

    def text(self) -> str:
        """Return the card as text, one line per entry."""
        rows = {
            "dataset": f"{self.dataset}, {self.split}",
            "asked": f"{self.questions:,} questions about {self.regions:,} regions of {self.images:,} images"
            + ("" if self.limit is None else f" (limit {self.limit})")
            + ("" if self.complete else "; NOT COMPLETE: the run was ended early"),
            "left out": _counted(self.left_out) or "nothing",
            "counted": _counted(self.counts),
            "prompt": self.prompt,
            "scorer": f"{self.scorer}: {self.decoding}",
            "mapping": self.mapping,
            "seed": str(self.seed),
            "regions": "\n".join((self.way, *(f"{name}: {text}" for name, text in self.told.items()))),
            "read, for example, as": self.example,
            "image seen": self.seen,
            "processor": self.processor,
            "checkpoint": f"{self.checkpoint} ({self.checkpoint_name}), {self.dtype} on {self.device}",
            "revision": self.revision,
            "versions": ", ".join(f"{name} {number}" for name, number in self.versions.items()),
            "batch size": self._batch_sizes(),
            "seconds": f"{self.seconds:,.1f}",
        }
        width = max(map(len, rows))
        indent = "\n" + " " * (width + 2)
        return "\n".join(f"{name:<{width}}  {value.replace(chr(10), indent)}" for name, value in rows.items() if value)

    def _batch_sizes(self) -> str:
        sizes = " and ".join(map(str, self.batch_sizes))
        return sizes + (" (may change the last digit of a log-probability)" if len(self.batch_sizes) > 1 else "")

    def line(self) -> str:
        """Return the card as one line, for the foot of a table."""
        parts = [
            f"{self.dataset} {self.split}",
            f"{self.questions:,} questions, {self.regions:,} regions, {self.images:,} images",
            f"asked “{_shortened(self.prompt)}”",
            f"{self.scorer} ({self.decoding})",
            self.mapping.partition(";")[0],
            _counted(self.counts),
            f"seed {self.seed}" if self.limit is not None else "",
            f"regions as {self.shown}",
            self.told.get("coordinates", ""),
            f"image seen {self.seen}" if self.seen else "",
            f"checkpoint {self.checkpoint} ({self.checkpoint_name}), {self.dtype}",
            "" if self.complete else "NOT COMPLETE",
        ]
        return "; ".join(part for part in parts if part)

    def __str__(self) -> str:
        return self.text()


def _shortened(text: str, limit: int = 70) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} × {what}" for what, count in counts.items())


def versions(scorers: Sequence[str] = ()) -> dict[str, str]:
    """Return package → version, of what computes the answers and of the packages that score them."""
    return {name: version(name) for name in (*VERSIONS, *scorers)}
