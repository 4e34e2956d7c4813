"""`evaluate`: run a benchmark from its files to a `Result`; resumable at any point, with one or more processes."""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from gpt4roi_nb.arguments import check_stop, whole_number
from gpt4roi_nb.batches import BatchSize
from gpt4roi_nb.data.image_files import Folder
from gpt4roi_nb.data.problems import AMBIGUOUS, NO_IMAGE, OUTSIDE_FOLDER, BadRecord, Problems
from gpt4roi_nb.evaluate.asking import QuestionCost, answers
from gpt4roi_nb.evaluate.benchmarks.benchmark import Benchmark
from gpt4roi_nb.evaluate.benchmarks.item import EMPTY_ANSWER, EvalConfig, Item, Prediction
from gpt4roi_nb.evaluate.benchmarks.registry import benchmark, check_files
from gpt4roi_nb.evaluate.card import ProtocolCard, checkpoint_hash, device_name, versions
from gpt4roi_nb.evaluate.journal import Journal
from gpt4roi_nb.evaluate.metrics.scorers import check_scorers, mapping_of
from gpt4roi_nb.evaluate.metrics.statistics import intervals
from gpt4roi_nb.evaluate.predict import BatchedPredictor
from gpt4roi_nb.evaluate.predictions import predictions_table
from gpt4roi_nb.evaluate.processes import RunFolder, data_root, processes
from gpt4roi_nb.evaluate.read_ahead import read_ahead, windows
from gpt4roi_nb.evaluate.result import Result
from gpt4roi_nb.files import stamp_of, write_json
from gpt4roi_nb.session.gpt4roi import GPT4RoI
from gpt4roi_nb.session.region_model import needs_gpt4roi

if TYPE_CHECKING:
    from accelerate import PartialState

BATCH_SIZE = 16
LEFT_OUT = "left_out.json"
LESS = (
    "ask with fewer boxes per question or a smaller max_new_tokens (with a folder, finished answers are kept, and the "
    "same call continues from there)"
)


def evaluate(
    name: str,
    gpt4roi: GPT4RoI,
    root: str | os.PathLike[str] | None = None,
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    scorer: str | None = None,
    question: str | None = None,
    mapping_model: str | os.PathLike[str] | None = None,
    batch_size: int = BATCH_SIZE,
    max_new_tokens: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    stop: threading.Event | None = None,
    progress: bool = True,
) -> Result:
    """Measure a model on a benchmark.

    Under `accelerate launch` the processes share the work, and each returns the whole result.

    Args:
        name: one of `BENCHMARKS`.
        gpt4roi: the model. Its weights cannot change while the benchmark runs.
        root: folder of the data: the dataset's own, or one in the layout of the generated world, which holds all
            datasets. None writes a small generated world into the user's cache and uses that.
        split: split of the dataset. By default, the benchmark's first.
        limit: maximum number of images (VCR: annotations), drawn with `seed`. None uses all.
        seed: draws the subset for `limit`, the order of options, and the bootstrap samples.
        scorer: "generate" or "likelihood", where the benchmark has both. By default, its first.
        question: replaces the benchmark's own question; must name `<region1>`. ValueError for a benchmark whose
            protocol fixes the exact wording.
        mapping_model: folder or hub id of the sentence embedder. By default, all-MiniLM-L6-v2.
        batch_size: questions per batch. Where memory is short or runs out, batches shrink, with a warning. It changes
            at most the last digit of a log-probability, so a run may be resumed with another batch size.
        max_new_tokens: maximum length of an answer. By default, the benchmark's own.
        folder: where answers are saved as they are written. The same call continues an earlier one, with the result of
            an uninterrupted run. None saves nothing.
        stop: an event that ends the run early, as an interrupt does. The result then covers the questions answered so
            far, and its card says that it is not complete.
        progress: show a progress bar.

    Returns:
        Metrics with intervals, the protocol card, and all predictions.

    Raises:
        FileNotFoundError: data is missing (the message names each file), or Java or the embedder is.
        ImportError: a package that scores the answers is missing.
        ValueError, TypeError: an argument is invalid, the model is not a GPT4RoI, or the folder holds another run.
        FloatingPointError: the model computes NaN or infinity.
        RuntimeError: `stop` was set before there was enough for any metric.
        MemoryError: memory does not suffice for one question at a time; the message says what helps. Earlier answers
            are kept.

    >>> from gpt4roi_nb import GPT4RoI
    >>> from gpt4roi_nb.data.scenes.formats.write import write_world
    >>> from gpt4roi_nb.evaluate import evaluate
    >>> world = write_world("world", 2, progress=False)  # two images with the files of all datasets
    >>> result = evaluate("vcr", GPT4RoI.from_pretrained(), world, progress=False)
    >>> list(result.metrics), len(result.predictions)
    (['Q→A', 'QA→R', 'Q→AR'], 6)
    """
    chosen = benchmark(name)
    needs_gpt4roi(gpt4roi, "evaluate")
    mapping_model = None if mapping_model is None else os.fspath(mapping_model)
    split = _chosen("split", split, chosen.splits)
    scorer = _chosen("scorer", scorer, chosen.scoring)
    limit = None if limit is None else whole_number(limit, "limit", least=1)
    seed = whole_number(seed, "seed")
    batch_size = whole_number(batch_size, "batch_size", least=1)
    max_new_tokens = None if max_new_tokens is None else whole_number(max_new_tokens, "max_new_tokens", least=1)
    check_stop(stop)
    if question is not None and chosen.fixed_prompt:
        raise ValueError(f"the protocol of {name} fixes its wording, {chosen.prompt!r}; omit `question`")
    state = processes()
    place = data_root(root, state)
    check_files(name, place, split)
    if state is None or state.is_main_process:  # which scores
        check_scorers(chosen.scorers, mapping_model)
    with RunFolder(folder, state) as kept, gpt4roi.hold_weights():  # the same weights for all answers
        config = EvalConfig(
            place, split, seed, scorer, question, mapping_model, kept, keep=folder is not None, limit=limit
        )
        run = _Run(chosen, gpt4roi, config, batch_size, max_new_tokens or chosen.max_new_tokens)
        return run.result(state, stop=stop, progress=progress)


def _chosen(what: str, given: str | None, known: Sequence[str]) -> str:
    if given is None:
        return known[0]
    if given not in known:
        raise ValueError(f"{what} must be one of {', '.join(map(repr, known))}, but is {given!r}")
    return given


class _Run:
    """A run of one benchmark with one model and one configuration."""

    def __init__(
        self,
        benchmark: Benchmark,
        gpt4roi: GPT4RoI,
        config: EvalConfig,
        batch_size: int,
        max_new_tokens: int,
    ) -> None:
        self.benchmark = benchmark
        self.gpt4roi = gpt4roi
        self.config = config
        self.max_new_tokens = max_new_tokens
        self.problems = Problems()
        self.predictor = BatchedPredictor(gpt4roi, config.scorer, batch_size, max_new_tokens)
        self.checkpoint = checkpoint_hash(gpt4roi)
        found = list(benchmark.items(config, self.problems))
        folders = benchmark.image_folders(config.root, config.split)
        self.unusable = unusable_images(folders, {item.image for item in found})
        # Sorted, so that batches do not depend on the order of the file.
        items = draw(list(self._sound(found)), config.limit, config.seed)
        self.items = sorted(items, key=lambda item: (item.image, item.id))
        if not self.items:
            raise ValueError(
                f"{benchmark.name} ({config.split}) has no usable question in {str(config.root)!r}\n"
                + self.problems.table()
            )
        self.image_of = {item.id: item.image for item in self.items}
        # The same in all processes, whatever batch size each of them ends up with.
        self.windows = windows(self.items, batch_size)
        self.batch = BatchSize(min(batch_size, len(self.items)), "questions", LESS)
        self._stamps: dict[str, str] = {}  # by image, as first read

    def _sound(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items that have a unique id and an image inside the data folder; note the others in `problems`."""
        seen = set()
        for item in items:
            bad = self.unusable.get(item.image)
            if item.id in seen:
                self.problems.add(BadRecord(AMBIGUOUS, "another question has the same id"), item.id)
            elif bad is not None and bad.reason == OUTSIDE_FOLDER:
                self.problems.add(bad, item.id)
            else:
                seen.add(item.id)
                yield item

    def look(self) -> None:
        """Warn of missing images before the run starts; their questions will be left out."""
        names = {item.image for item in self.items}
        gone = sorted(name for name in names & self.unusable.keys() if self.unusable[name].reason == NO_IMAGE)
        if gone:
            warnings.warn(
                f"{len(gone):,} of {len(names):,} images are missing, such as {gone[0]}; their questions are left out "
                "and counted",
                stacklevel=4,
            )

    def stamp(self, item_id: str) -> str:
        """A value that changes when the file of a question's image changes; "" for a missing image or an unknown id."""
        image = self.image_of.get(item_id)
        if image is None:
            return ""
        if image not in self._stamps:  # once per image: a network disk is slow
            try:
                self._stamps[image] = stamp_of(image)
            except OSError:
                self._stamps[image] = ""
        return self._stamps[image]

    def identity(self) -> dict[str, Any]:
        """What must be equal for answers of an earlier call to be reused."""
        asked = hashlib.sha256()
        for item in self.items:
            asked.update(f"{item.id}\n{item.question}\n{item.boxes}\n{item.options}\n".encode())
        return {
            "benchmark": self.benchmark.name,
            "split": self.config.split,
            "limit": self.config.limit,
            "seed": self.config.seed,
            "scorer": self.config.scorer,
            "max_new_tokens": self.max_new_tokens,
            "checkpoint": self.checkpoint,
            "questions": asked.hexdigest()[:12],
        }

    def result(self, state: PartialState | None, *, stop: threading.Event | None, progress: bool) -> Result:
        rank, count = (0, 1) if state is None else (state.process_index, state.num_processes)
        journal = Journal(self.config.folder, rank)
        if rank == 0:
            journal.begin(self.identity())
            journal.mend()
            journal.check_images(self.stamp)
            self.look()
        if state is not None:
            state.wait_for_everyone()
        if rank > 0:
            journal.read()
        if state is not None:
            state.wait_for_everyone()  # no process writes while another still reads
        interrupted = False
        try:
            self._ask(journal, rank, count, stop, progress)
        except KeyboardInterrupt:
            interrupted = True
        if state is not None:
            state.wait_for_everyone()
        if rank == 0:
            if state is not None:
                journal.read()  # answers of the other processes
            result = self._judged(journal, interrupted)
            if self.config.keep or state is not None:
                result.save(self.config.folder)
        if state is not None:
            state.wait_for_everyone()
        return result if rank == 0 else Result.load(self.config.folder)

    def _ask(self, journal: Journal, rank: int, count: int, stop: threading.Event | None, progress: bool) -> None:
        mine = [window for window in self.windows if window.index % count == rank]
        settled = journal.settled()
        open_ = [window for window in mine if any(item.id not in settled for item in window.items)]
        total = sum(len(window.items) for window in mine)
        left = sum(item.id not in settled for window in open_ for item in window.items)
        if open_:
            cost = QuestionCost(self.gpt4roi, self.items, self.config.scorer, self.max_new_tokens)
            self.batch.fit(self.gpt4roi, cost)
        with tqdm(
            total=total,
            initial=total - left,
            unit="question",
            desc=self.benchmark.name,
            disable=not progress or rank > 0,
        ) as bar:
            for window, images in read_ahead(self.gpt4roi, open_):
                for outcomes in answers(self.predictor, self.batch, window.items, images, settled):
                    journal.add(outcomes, self.batch.size)
                    bar.update(len(outcomes))
                    if stop is not None and stop.is_set():
                        return

    def _judged(self, journal: Journal, interrupted: bool) -> Result:
        outcomes = journal.done()
        unfinished = {item.group or item.id for item in self.items if item.id not in outcomes}
        if unfinished:
            message = f"stopped after {len(outcomes)} of {len(self.items)} questions; the metrics cover only these"
            if unfinished == {item.group or item.id for item in self.items}:
                early = f"stopped after {len(outcomes)} of {len(self.items)} questions, too few for any metric"
                raise KeyboardInterrupt(early) if interrupted else RuntimeError(early)
            warnings.warn(message + ("; the same call continues from there" if self.config.keep else ""), stacklevel=4)
        items, predictions, left_out = [], [], Counter(self.problems.counts())
        details = list(self.problems)
        for item in self.items:
            outcome = outcomes.get(item.id)
            if isinstance(outcome, Prediction):
                if (item.group or item.id) not in unfinished:  # a group counts as a whole or not at all
                    items.append(item)
                    predictions.append(outcome)
            elif outcome is not None:
                left_out[outcome[1].reason] += 1
                details.append({"reason": outcome[1].reason, "where": item.id, "detail": outcome[1].detail})
        if not items:
            reasons = ", ".join(f"{count} × {reason}" for reason, count in left_out.items())
            raise ValueError(f"none of the {len(self.items)} questions could be asked: {reasons}; {details[-1]}")
        if self.config.keep:
            (self.config.folder / LEFT_OUT).unlink(missing_ok=True)  # of an earlier call
            if details:
                write_json(self.config.folder / LEFT_OUT, {"left_out": details})
        scores = self.benchmark.score(items, predictions, self.config)
        empty = sum(not prediction.answer for prediction in predictions)
        if empty:
            scores.counts.setdefault(EMPTY_ANSWER, empty)
        left_out.update(self.problems.left_out)
        return Result(
            benchmark=self.benchmark.name,
            metrics={name: metric.value for name, metric in scores.metrics.items()},
            intervals=intervals(scores.metrics, self.config.seed),
            card=self._card(items, predictions, dict(left_out), scores.counts, journal.batch_sizes, not unfinished),
            predictions=predictions_table(items, predictions, scores),
            notes=scores.notes,
            folder=self.config.folder if self.config.keep else None,
        )

    def _card(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        left_out: dict[str, int],
        counts: dict[str, int],
        batch_sizes: set[int],
        complete: bool,
    ) -> ProtocolCard:
        likely = self.config.scorer == "likelihood"
        greedy = f"greedy, at most {self.max_new_tokens} tokens"
        return ProtocolCard(
            benchmark=self.benchmark.name,
            dataset=self.benchmark.title,
            split=self.config.split,
            images=len({item.image for item in items}),
            regions=len({(item.image, box) for item in items for box in item.boxes}),
            questions=len(items),
            limit=self.config.limit,
            seed=self.config.seed,
            prompt=self.config.question or self.benchmark.prompt,
            scorer=self.config.scorer,
            decoding="log-probability of the options after one shared prefix" if likely else greedy,
            # With likelihoods the answer is one of the options, so nothing is mapped.
            mapping="" if likely else mapping_of(self.benchmark.mapping, self.config.mapping_model),
            checkpoint=self.checkpoint,
            checkpoint_name="demo" if self.gpt4roi.is_demo else self.gpt4roi.source,
            dtype=str(self.gpt4roi.model.dtype).removeprefix("torch."),
            device=device_name(self.gpt4roi),
            versions=versions(self.benchmark.scorers),
            seconds=sum(prediction.seconds for prediction in predictions),
            batch_sizes=sorted(batch_sizes, reverse=True),
            complete=complete,
            left_out=left_out,
            counts=counts,
        )


def unusable_images(folders: Sequence[Path], images: Collection[str]) -> dict[str, BadRecord]:
    """Find images that are not files inside the data folders.

    Args:
        folders: the data folders, inner ones first.
        images: absolute paths. Those below none of the folders are not checked.

    Returns:
        Image → what is wrong with it.
    """
    found: dict[str, BadRecord] = {}
    rest = set(images)
    for folder in folders:
        prefix = str(folder.absolute()).rstrip("/") + "/"
        below = {image for image in rest if image.startswith(prefix)}
        rest -= below
        wrong = Folder(folder).unusable(image.removeprefix(prefix) for image in below)
        found |= {prefix + name: bad for name, bad in wrong.items()}
    return found


def draw(items: list[Item], limit: int | None, seed: int) -> list[Item]:
    """Choose the items of at most `limit` groups by seed, independently of the order of the items."""
    groups = dict.fromkeys(item.group or item.id for item in items)
    if limit is None or len(groups) <= limit:
        return items

    def rank(group: str) -> bytes:
        return hashlib.sha256(f"{seed}/{group}".encode()).digest()

    chosen = set(sorted(groups, key=rank)[:limit])
    return [item for item in items if (item.group or item.id) in chosen]
