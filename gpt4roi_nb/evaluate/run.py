"""`evaluate`: a benchmark from its files to a `Result`, resumable at any point and over several processes."""

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
from gpt4roi_nb.evaluate.pictures import read_ahead, windows
from gpt4roi_nb.evaluate.predict import BatchedPredictor
from gpt4roi_nb.evaluate.predictions import predictions_table
from gpt4roi_nb.evaluate.processes import RunFolder, data_root, processes
from gpt4roi_nb.evaluate.result import Result
from gpt4roi_nb.files import stamp_of, write_json
from gpt4roi_nb.session.gpt4roi import GPT4RoI

if TYPE_CHECKING:
    from accelerate import PartialState

BATCH_SIZE = 16
LEFT_OUT = "left_out.json"
LESS = (
    "ask with fewer boxes per question or a smaller max_new_tokens (with a folder, what was answered is kept, and the "
    "same call goes on from there)"
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
    """Measures a model on a benchmark.

    Args:
        name: one of `BENCHMARKS`.
        root: folder of the data: the dataset's own, or one in the layout of the generated world, which holds those of
            all. None writes a small generated world into the user's cache and takes that.
        split: the benchmark's first without.
        limit: at most so many images, or annotations of VCR, drawn by `seed`; None takes all.
        scorer: "generate" or "likelihood", where the benchmark has both; its first without.
        question: asked instead of the benchmark's own; names `<region1>`. Where a protocol fixes the wording to the
            letter, an error.
        mapping_model: folder or hub id of the sentence embedder, all-MiniLM-L6-v2 without.
        batch_size: questions at a time; fewer, with a warning, where memory is short or runs out. Answers do not depend
            on it but for the last digit of their log-probabilities, so that a run may go on with another.
        max_new_tokens: of an answer; the benchmark's own without.
        folder: where answers are kept as they come. The same call goes on where an earlier one ended, and gives what
            one in one go would have given. None keeps nothing.
        stop: an event that ends the run early, as an interrupt does: what was answered makes up the result, which says
            that it is not complete.

    Returns:
        The result. Under `accelerate launch` the processes share the work, and each gets the whole result.

    Raises:
        FileNotFoundError: data is missing, and the message names each file; or Java or the embedder is.
        ImportError: a package that scores the answers is missing.
        ValueError: an argument does not fit, or the folder holds another run.
        RuntimeError: `stop` came before anything had a figure.
        MemoryError: one question at a time is too much; the message says what helps. What was answered by then is kept.
    """
    chosen = benchmark(name)
    mapping_model = None if mapping_model is None else os.fspath(mapping_model)
    split = _chosen("split", split, chosen.splits)
    scorer = _chosen("scorer", scorer, chosen.scoring)
    limit = None if limit is None else whole_number(limit, "limit", least=1)
    seed = whole_number(seed, "seed")
    batch_size = whole_number(batch_size, "batch_size", least=1)
    max_new_tokens = None if max_new_tokens is None else whole_number(max_new_tokens, "max_new_tokens", least=1)
    check_stop(stop)
    if question is not None and chosen.fixed_prompt:
        raise ValueError(f"the protocol of {name} fixes its wording, {chosen.prompt!r}; leave question out")
    state = processes()
    place = data_root(root, state)
    check_files(name, place, split)
    if state is None or state.is_main_process:  # the one that scores
        check_scorers(chosen.scorers, mapping_model)
    with RunFolder(folder, state) as kept, gpt4roi.hold_weights():  # all answers are of the same weights
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
    """One benchmark, one model, one configuration."""

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
        # Sorted: what an answer shares a batch with does not depend on the order of the file.
        items = draw(list(self._sound(found)), config.limit, config.seed)
        self.items = sorted(items, key=lambda item: (item.image, item.id))
        if not self.items:
            raise ValueError(
                f"{benchmark.name} ({config.split}) has no question that can be asked in {str(config.root)!r}\n"
                + self.problems.table()
            )
        self.image_of = {item.id: item.image for item in self.items}
        # The same in all processes, however many questions each of them asks at a time.
        self.windows = windows(self.items, batch_size)
        self.batch = BatchSize(min(batch_size, len(self.items)), "questions", LESS)
        self._stamps: dict[str, str] = {}  # by image, as they were when first asked for

    def _sound(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items whose answers can be told apart, and whose pictures may be opened; of the others it is noted."""
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
        """Warns of pictures that are not there, before an hour goes by; what is about them will be left out."""
        names = {item.image for item in self.items}
        gone = sorted(name for name in names & self.unusable.keys() if self.unusable[name].reason == NO_IMAGE)
        if gone:
            warnings.warn(
                f"{len(gone):,} of {len(names):,} pictures are not there, such as {gone[0]}; questions about them are "
                "left out, and counted",
                stacklevel=4,
            )

    def stamp(self, item_id: str) -> str:
        """What differs when the picture of a question is another one; "" where it is not there, or is not asked
        about."""
        image = self.image_of.get(item_id)
        if image is None:
            return ""
        if image not in self._stamps:  # asked once an image: on a network disk it takes its time
            try:
                self._stamps[image] = stamp_of(image)
            except OSError:
                self._stamps[image] = ""
        return self._stamps[image]

    def identity(self) -> dict[str, Any]:
        """What must be the same for answers of an earlier call to count."""
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
            state.wait_for_everyone()  # nobody writes while another still reads
        interrupted = False
        try:
            self._ask(journal, rank, count, stop, progress)
        except KeyboardInterrupt:
            interrupted = True
        if state is not None:
            state.wait_for_everyone()
        if rank == 0:
            if state is not None:
                journal.read()  # what the others have written since
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
            for window, pictures in read_ahead(self.gpt4roi, open_):
                for outcomes in answers(self.predictor, self.batch, window.items, pictures, settled):
                    journal.add(outcomes, self.batch.size)
                    bar.update(len(outcomes))
                    if stop is not None and stop.is_set():
                        return

    def _judged(self, journal: Journal, interrupted: bool) -> Result:
        outcomes = journal.done()
        unfinished = {item.group or item.id for item in self.items if item.id not in outcomes}
        if unfinished:
            message = f"stopped after {len(outcomes)} of {len(self.items)} questions; the figures are of these alone"
            if unfinished == {item.group or item.id for item in self.items}:
                early = f"stopped after {len(outcomes)} of {len(self.items)} questions, too few for figures"
                raise KeyboardInterrupt(early) if interrupted else RuntimeError(early)
            warnings.warn(message + ("; the same call goes on from there" if self.config.keep else ""), stacklevel=4)
        items, predictions, left_out = [], [], Counter(self.problems.counts())
        details = list(self.problems)
        for item in self.items:
            outcome = outcomes.get(item.id)
            if isinstance(outcome, Prediction):
                if (item.group or item.id) not in unfinished:  # half an image has no figure
                    items.append(item)
                    predictions.append(outcome)
            elif outcome is not None:
                left_out[outcome[1].reason] += 1
                details.append({"reason": outcome[1].reason, "where": item.id, "detail": outcome[1].detail})
        if not items:
            reasons = ", ".join(f"{count} × {reason}" for reason, count in left_out.items())
            raise ValueError(f"none of the {len(self.items)} questions could be asked: {reasons}; {details[-1]}")
        if self.config.keep:
            (self.config.folder / LEFT_OUT).unlink(missing_ok=True)  # of an earlier call, which lacked more
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
            # With likelihoods nothing is mapped: the answer is one of the options.
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
    """Those of `images`, whole paths, that are no file in the folder that they are named below, and why.

    folders: that were named, inner ones first. An image that lies below none of them is left out of the check.
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
    """The items of at most `limit` groups, chosen by seed: the same whatever the order of the items."""
    groups = dict.fromkeys(item.group or item.id for item in items)
    if limit is None or len(groups) <= limit:
        return items

    def rank(group: str) -> bytes:
        return hashlib.sha256(f"{seed}/{group}".encode()).digest()

    chosen = set(sorted(groups, key=rank)[:limit])
    return [item for item in items if (item.group or item.id) in chosen]
