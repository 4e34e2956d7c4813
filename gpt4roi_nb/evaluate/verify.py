"""Check whether a checkpoint behaves as published: measure parts of benchmarks, and compare with published figures.

The published figure is compared with the 95% interval over images of the measured one. The verdict is "as published" if
the whole interval lies within a tolerance of the published figure, and "below" or "above" if the whole interval lies
outside. Otherwise, or with too few images, the verdict is "cannot tell". The published figures are those of the
benchmarks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpt4roi_nb.arguments import whole_number
from gpt4roi_nb.evaluate.benchmarks.benchmark import Published
from gpt4roi_nb.evaluate.benchmarks.naming_subsets import OSPREY_LVIS
from gpt4roi_nb.evaluate.benchmarks.registry import benchmark, check_files
from gpt4roi_nb.evaluate.benchmarks.visual7w import VIP_LLAVA
from gpt4roi_nb.evaluate.metrics.scorers import check_scorers
from gpt4roi_nb.evaluate.model_facts import Model
from gpt4roi_nb.evaluate.result import Result
from gpt4roi_nb.evaluate.run import BATCH_SIZE, evaluate
from gpt4roi_nb.evaluate.tables import Table, aligned, shown
from gpt4roi_nb.models.families import FAMILIES

ITEMS = 500
LEAST_IMAGES = 100  # an interval over fewer images is not trusted
AS_PUBLISHED, BELOW, ABOVE, UNTOLD = "as published", "below", "above", "cannot tell"
HEAD = ("benchmark", "split", "metric", "measured", "published", "tolerance", "verdict")


@dataclass(frozen=True)
class Check:
    """A part of a benchmark that a model is measured on.

    Attributes:
        benchmark, split, scorer: as for `evaluate`.
        items_per_group: average number of questions behind the published figures per group that `limit` draws (VCR: an
            annotation; LVIS: an image).
        tolerances: metric → by how many points a checkpoint may miss the published figure and still behave as
            published. They allow for what the protocols do not fix (sampling, library versions), and are wide enough
            for the interval of 500 items.
        caveat: what to know if the figures differ.
        question, wording: as for `evaluate`.
        whole: whether all of the split is asked, since a part has figures of another level.
    """

    benchmark: str
    split: str
    scorer: str
    items_per_group: float
    tolerances: Mapping[str, float]
    caveat: str = ""
    question: str | None = None
    wording: str | None = None
    whole: bool = False


# To add a model, add an entry here, its figures to the `published` of the benchmarks, and its weights to `WEIGHTS`.
CHECKS: dict[str, tuple[Check, ...]] = {
    "GPT4RoI-7B": (
        Check(
            "vcr",
            "val",
            "generate",
            1,
            {"Q→A": 7, "QA→R": 7, "Q→AR": 8},
            "VCR's figures were published for weights fine-tuned to its answer format, and it is not stated whether "
            "the released weights are these; if only VCR differs and many answers have no letter, measure it with the "
            "likelihood scorer, too",
        ),
        Check(
            "lvis",
            OSPREY_LVIS.split,
            "generate",
            4,
            {"SS": 7, "S-IoU": 6},
            "the figures of LVIS were sampled at temperature 0.2 by Osprey's authors; here decoding is greedy",
        ),
    ),
    "Kosmos-2": (
        Check(
            "refcocog",
            "val",
            "generate",
            2,
            {"METEOR": 1.5, "CIDEr": 8},
            "the authors state neither split nor decoding nor how boxes between the words were removed; here val, "
            "greedy, without them. CIDEr depends on the set of regions, so the whole split is asked",
            question="Describe <region1>.",
            whole=True,
        ),
    ),
    "ViP-LLaVA-7B": (
        Check(
            "visual7w",
            "test",
            "generate",
            5,
            {"pointing": 6},
            "the figure was measured with half-transparent lines in colours drawn by chance, and sampled at "
            "temperature 0.2; here lines are opaque, in a fixed order of colours, and decoding is greedy. Options "
            "begin with “the object”, there with “The object”",
            wording=VIP_LLAVA,
        ),
    ),
}
# Model → (hub id of its weights, or a folder of the model's name; way to present a box, None for a GPT4RoI).
WEIGHTS: dict[str, tuple[str, str | None]] = {
    "GPT4RoI-7B": ("GPT4RoI-7B", None),
    "Kosmos-2": (FAMILIES["kosmos-2"].weights, "native"),
    "ViP-LLaVA-7B": (FAMILIES["vipllava"].weights, "draw"),
}


@dataclass(frozen=True)
class Finding:
    """A published figure beside the measured one, in per cent.

    Attributes:
        benchmark, split, metric: what was measured.
        published: the published figure.
        tolerance: in points.
        source, protocol: of the published figure.
        measured: NaN if there is none.
        interval: 95%, over images; None if there is none.
        questions, images: numbers of what the benchmark was measured on.
        verdict: `AS_PUBLISHED`, `BELOW`, `ABOVE` or `UNTOLD`.
        reason: of the verdict, in words.
    """

    benchmark: str
    split: str
    metric: str
    published: float
    tolerance: float
    source: str
    protocol: str
    measured: float
    interval: tuple[float, float] | None
    questions: int
    images: int
    verdict: str
    reason: str


@dataclass(frozen=True, eq=False)
class Verification:
    """The outcome of `verify`.

    Attributes:
        model: name of the published model.
        findings: one per published figure.
        results: benchmark → result, with its card.
        notes: what a reader of the figures should know.
    """

    model: str
    findings: list[Finding]
    results: dict[str, Result]
    notes: list[str]

    @property
    def complete(self) -> bool:
        """False if the run ended early."""
        return all(result.card.complete for result in self.results.values())

    @property
    def behaves_as_published(self) -> bool | None:
        """Whether all figures are as published; None if that cannot be told."""
        verdicts = {finding.verdict for finding in self.findings}
        if verdicts & {BELOW, ABOVE}:
            return False
        return None if UNTOLD in verdicts or not self.complete else True

    @property
    def sentence(self) -> str:
        """Whether the checkpoint behaves as published; if not, or if that cannot be told, why."""
        name = next((result.card.checkpoint_name for result in self.results.values()), "")
        behaves = self.behaves_as_published
        if behaves:
            return (
                f"{name} behaves as published for {self.model}: all {len(self.findings)} figures are within tolerance."
            )
        wanted = (BELOW, ABOVE) if behaves is False else (UNTOLD,)
        reasons = "; ".join(one.reason for one in self.findings if one.verdict in wanted)
        if behaves is False:
            return f"{name} does not behave as published for {self.model}: {reasons}."
        ended = f"Whether {name} behaves as published for {self.model} cannot be told"
        if not self.complete:
            return f"{ended}: the run ended early; the same call continues from there."
        return f"{ended}: {reasons}. Ask about more items."

    def rows(self) -> list[tuple[str, ...]]:
        """Return the cells of the findings, to stand below `HEAD`."""
        return [
            (
                one.benchmark,
                one.split,
                one.metric,
                shown(one.measured, one.interval),
                f"{one.published:g}",
                f"±{one.tolerance:g}",
                one.verdict,
            )
            for one in self.findings
        ]

    def table(self) -> Table:
        """Return the findings in columns, the sources of the published figures, and the sentence."""
        return Table("\n".join([*aligned([HEAD, *self.rows()], left=len(HEAD)), "", *self._foot()]))

    def markdown(self) -> str:
        """Return the same as Markdown."""
        lines = [f"| {' | '.join(row)} |" for row in (HEAD, ("---",) * len(HEAD), *self.rows())]
        return "\n".join([*lines, "", *(f"- {line}" for line in self._foot())])

    def as_json(self) -> dict[str, Any]:
        """Return the same as JSON data; `behaves_as_published` is null if that cannot be told."""
        findings = [asdict(one) for one in self.findings]
        for one in findings:
            one["measured"] = None if one["measured"] != one["measured"] else one["measured"]
        return {
            "model": self.model,
            "behaves_as_published": self.behaves_as_published,
            "sentence": self.sentence,
            "complete": self.complete,
            "findings": findings,
            "notes": self.notes,
            "cards": {name: asdict(result.card) for name, result in self.results.items()},
        }

    def _foot(self) -> list[str]:
        cards = [f"{name}: {result.card.line()}" for name, result in self.results.items()]
        sources = [f"published, {one.benchmark}: {one.source}; {one.protocol}" for one in self.findings]
        return [*cards, *dict.fromkeys(sources), *(f"Note: {note}" for note in self.notes), self.sentence]

    def __str__(self) -> str:
        return str(self.table())


def checks_of(model: str) -> tuple[Check, ...]:
    """Return the checks of a model. Raises ValueError if it is not in `CHECKS`."""
    if model not in CHECKS:
        raise ValueError(f"there are no checks for {model!r}; choose from {', '.join(CHECKS)}")
    return CHECKS[model]


def check_data(model: str, root: Path, mapping_model: str | Path | None = None) -> None:
    """Check that everything is there that the checks of a model need, before anything takes long.

    Args:
        model: one of `CHECKS`.
        root: folder of the data.
        mapping_model: as for `evaluate`.

    Raises:
        ValueError: the model has no checks.
        FileNotFoundError: data is missing (the message names each file of each benchmark), or the sentence embedder is.
        ImportError: a package that scores the answers is missing.
    """
    missing = []
    for check in checks_of(model):
        try:
            check_files(check.benchmark, root, check.split)
        except FileNotFoundError as error:
            missing.append(str(error))
    if missing:
        raise FileNotFoundError("\n".join(dict.fromkeys(missing)))
    for check in checks_of(model):
        check_scorers(benchmark(check.benchmark).scorers, mapping_model)


def verify(
    model: str,
    loaded: Model,
    root: str | os.PathLike[str],
    *,
    items: int = ITEMS,
    seed: int = 0,
    mapping_model: str | os.PathLike[str] | None = None,
    batch_size: int = BATCH_SIZE,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Verification:
    """Measure a checkpoint on parts of the benchmarks that its model was published with.

    Args:
        model: one of `CHECKS`, such as "GPT4RoI-7B".
        loaded: the checkpoint to measure; boxes must be presented to it as `WEIGHTS` says.
        root: folder of the data, as for `evaluate`; there is no default, since a generated world has no published
            figures.
        items: approximate number of items per benchmark, drawn with `seed`: annotations of VCR (two questions each),
            objects of LVIS and questions of Visual-7W, which are drawn by whole images. RefCOCOg is asked as a whole.
        seed: of the draw.
        mapping_model, batch_size, progress: as for `evaluate`.
        folder: where answers are saved, one folder per benchmark. The same call continues an earlier one.

    Returns:
        The findings. After an interrupt it covers the benchmarks that were begun, and is not `complete`.

    Raises:
        ValueError: the model has no checks, boxes are presented to it in another way, or an argument is invalid.
        FileNotFoundError, ImportError, MemoryError: as `evaluate` raises them.

    >>> from gpt4roi_nb.evaluate.verify import CHECKS, published
    >>> [(check.benchmark, check.split) for check in CHECKS["GPT4RoI-7B"]]
    [('vcr', 'val'), ('lvis', 'lvis_val_1k_category')]
    >>> published("GPT4RoI-7B", CHECKS["GPT4RoI-7B"][0]).metrics["Q→A"]
    87.4
    """
    items = whole_number(items, "items", least=1)
    checks = checks_of(model)
    way = WEIGHTS[model][1]
    if way is not None and loaded.way != way:
        raise ValueError(f"the figures of {model} were published with regions={way!r}, but {loaded!r} came; load it so")
    findings: list[Finding] = []
    results: dict[str, Result] = {}
    notes: list[str] = []
    for check in checks:
        result = results[check.benchmark] = evaluate(
            check.benchmark,
            loaded,
            root,
            split=check.split,
            scorer=check.scorer,
            question=check.question,
            wording=check.wording,
            limit=None if check.whole else -int(-items // check.items_per_group),
            seed=seed,
            mapping_model=mapping_model,
            batch_size=batch_size,
            folder=None if folder is None else Path(folder) / check.benchmark,
            progress=progress,
        )
        findings += judge(model, check, result)
        if check.caveat:
            notes.append(check.caveat)
        if result.card.left_out:
            counted = ", ".join(f"{count:,} × {reason}" for reason, count in result.card.left_out.items())
            notes.append(f"left out of {check.benchmark}: {counted}")
        if not result.card.complete:
            break
    return Verification(model, findings, results, notes)


def published(model: str, check: Check) -> Published:
    """Return the published figures that a check is about. Raises ValueError if there are none."""
    for entry in benchmark(check.benchmark).published:
        if entry.model == model and entry.split == check.split and check.tolerances.keys() <= entry.metrics.keys():
            return entry
    raise ValueError(
        f"no figures of {model} on {check.benchmark} ({check.split}) are known: {', '.join(check.tolerances)}"
    )


def judge(model: str, check: Check, result: Result) -> Iterator[Finding]:
    """Yield one finding for each published figure of a check."""
    entry = published(model, check)
    for metric, tolerance in check.tolerances.items():
        measured = result.metrics.get(metric, float("nan"))
        interval = result.intervals.get(metric)
        verdict, why = _verdict(entry.metrics[metric], tolerance, measured, interval, result.card.images)
        yield Finding(
            benchmark=check.benchmark,
            split=check.split,
            metric=metric,
            published=entry.metrics[metric],
            tolerance=tolerance,
            source=entry.source,
            protocol=entry.protocol,
            measured=measured,
            interval=interval,
            questions=result.card.questions,
            images=result.card.images,
            verdict=verdict,
            reason=f"{check.benchmark} {metric} {why}",
        )


def _verdict(
    expected: float, tolerance: float, measured: float, interval: tuple[float, float] | None, images: int
) -> tuple[str, str]:
    """Return the verdict on a figure, and the reason in words."""
    if interval is None:
        return UNTOLD, f"has no interval ({images} images)"
    if images < LEAST_IMAGES:
        return UNTOLD, f"covers {images} images, fewer than {LEAST_IMAGES}"
    low, high = interval
    beside = f"is {shown(measured, interval)}, published {expected:g} ± {tolerance:g}"
    if high < expected - tolerance:
        return BELOW, f"{beside}: below"
    if low > expected + tolerance:
        return ABOVE, f"{beside}: above"
    if expected - tolerance <= low and high <= expected + tolerance:
        return AS_PUBLISHED, beside
    return UNTOLD, f"{beside}: the interval is too wide or crosses the bound"
