"""`evaluate`: run a benchmark from its files to a `Result`; resumable at any point, with one or more processes."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from gpt4roi_nb.arguments import check_stop, whole_number
from gpt4roi_nb.batches import BatchSize
from gpt4roi_nb.evaluate.asking import QuestionCost, batched_outcomes
from gpt4roi_nb.evaluate.benchmarks.benchmark import Benchmark
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Prediction
from gpt4roi_nb.evaluate.benchmarks.registry import benchmark, check_files
from gpt4roi_nb.evaluate.card import REGION_TOKENS, ProtocolCard, versions
from gpt4roi_nb.evaluate.journal import Journal
from gpt4roi_nb.evaluate.metrics.scorers import check_scorers
from gpt4roi_nb.evaluate.model_facts import Model, counts_of_way, example_of, facts_of, identity_of, sizes_seen
from gpt4roi_nb.evaluate.predict import BatchedPredictor, Predictor
from gpt4roi_nb.evaluate.processes import RunFolder, data_root, processes
from gpt4roi_nb.evaluate.prompted import PromptedCost, PromptedPredictor, check_capabilities
from gpt4roi_nb.evaluate.questions import Questions, check_words, chosen_of
from gpt4roi_nb.evaluate.read_ahead import read_ahead, windows
from gpt4roi_nb.evaluate.result import Result
from gpt4roi_nb.models.prompted_model import PromptedModel
from gpt4roi_nb.session.gpt4roi import GPT4RoI

if TYPE_CHECKING:
    from accelerate import PartialState

BATCH_SIZE = 16
LESS = (
    "ask with fewer boxes per question or a smaller max_new_tokens (with a folder, finished answers are kept, and the "
    "same call continues from there)"
)


def evaluate(
    name: str,
    model: Model,
    root: str | os.PathLike[str] | None = None,
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    scorer: str | None = None,
    question: str | None = None,
    wording: str | None = None,
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
        model: a GPT4RoI, or a model of `load_model`, which is asked in its own way to present a box. Its weights cannot
            change while the benchmark runs.
        root: folder of the data: the dataset's own, or one in the layout of the generated world, which holds all
            datasets. None writes a small generated world into the user's cache and uses that.
        split: split of the dataset. By default, the benchmark's first.
        limit: maximum number of images (VCR: annotations), drawn with `seed`. None uses all.
        seed: draws the subset for `limit`, the order of options, and the bootstrap samples.
        scorer: "generate" or "likelihood", where the benchmark has both. By default, its first.
        question: replaces the benchmark's own question; must name `<region1>`. ValueError for a benchmark whose
            protocol fixes the exact wording.
        wording: one of the benchmark's `wordings`, for a protocol that was published in several. By default, its first.
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
        ValueError, TypeError: an argument is invalid, the model cannot be asked such questions (the message says why),
            or the folder holds another run.
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
    if not isinstance(model, GPT4RoI | PromptedModel):
        raise TypeError(f"evaluate takes a GPT4RoI or a model of load_model, but {model!r} came")
    mapping_model = None if mapping_model is None else os.fspath(mapping_model)
    split = chosen_of("split", split, chosen.splits)
    scorer = chosen_of("scorer", scorer, chosen.scoring)
    limit = None if limit is None else whole_number(limit, "limit", least=1)
    seed = whole_number(seed, "seed")
    batch_size = whole_number(batch_size, "batch_size", least=1)
    max_new_tokens = None if max_new_tokens is None else whole_number(max_new_tokens, "max_new_tokens", least=1)
    check_stop(stop)
    check_words(chosen, question, wording)
    state = processes()
    place = data_root(root, state)
    check_files(name, place, split)
    if state is None or state.is_main_process:  # which scores
        check_scorers(chosen.scorers, mapping_model)
    with RunFolder(folder, state) as kept, model.hold_weights():  # the same weights for all answers
        config = EvalConfig(
            place, split, seed, scorer, question, mapping_model, kept, folder is not None, limit, wording
        )
        run = _Run(chosen, model, config, batch_size, max_new_tokens or chosen.max_new_tokens)
        return run.result(state, stop=stop, progress=progress)


class _Run:
    """A run of one benchmark with one model and one configuration."""

    def __init__(
        self,
        benchmark: Benchmark,
        model: Model,
        config: EvalConfig,
        batch_size: int,
        max_new_tokens: int,
    ) -> None:
        self.benchmark = benchmark
        self.model = model
        self.config = config
        self.max_new_tokens = max_new_tokens
        self.questions = Questions(benchmark, config)
        self.items = self.questions.items
        if isinstance(model, PromptedModel):
            check_capabilities(model, benchmark.name, self.items, config.scorer)
        self.facts = facts_of(model)
        self.predictor = predictor_of(model, config.scorer, batch_size, max_new_tokens)
        # The same in all processes, whatever batch size each of them ends up with.
        self.windows = windows(self.items, batch_size)
        self.batch = BatchSize(min(batch_size, len(self.items)), "questions", LESS)

    def identity(self) -> dict[str, Any]:
        """What must be equal for answers of an earlier call to be reused."""
        return {
            "benchmark": self.benchmark.name,
            "split": self.config.split,
            "limit": self.config.limit,
            "seed": self.config.seed,
            "scorer": self.config.scorer,
            "max_new_tokens": self.max_new_tokens,
            "questions": self.questions.digest(),
            **identity_of(self.facts),
        }

    def result(self, state: PartialState | None, *, stop: threading.Event | None, progress: bool) -> Result:
        rank, count = (0, 1) if state is None else (state.process_index, state.num_processes)
        journal = Journal(self.config.folder, rank)
        if rank == 0:
            journal.begin(self.identity())
            journal.mend()
            journal.check_images(self.questions.stamp)
            self.questions.warn_of_missing_images(stacklevel=3)
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
            self.batch.fit(self.model, self._cost())
        with tqdm(
            total=total,
            initial=total - left,
            unit="question",
            desc=self.benchmark.name,
            disable=not progress or rank > 0,
        ) as bar:
            for window, images in read_ahead(self.predictor.prepare, open_):
                for outcomes in batched_outcomes(self.predictor, self.batch, window.items, images, settled):
                    journal.add(outcomes, self.batch.size)
                    bar.update(len(outcomes))
                    if stop is not None and stop.is_set():
                        return

    def _cost(self) -> Callable[[int], int]:
        asked = self.items, self.config.scorer, self.max_new_tokens
        if isinstance(self.model, PromptedModel):
            return PromptedCost(self.model, *asked)
        return QuestionCost(self.model, *asked)

    def _judged(self, journal: Journal, interrupted: bool) -> Result:
        outcomes = journal.done()
        unfinished = self.questions.unfinished(outcomes.keys())
        if unfinished:
            message = f"stopped after {len(outcomes)} of {len(self.items)} questions; the metrics cover only these"
            if unfinished == self.questions.unfinished(()):
                early = f"stopped after {len(outcomes)} of {len(self.items)} questions, too few for any metric"
                raise KeyboardInterrupt(early) if interrupted else RuntimeError(early)
            warnings.warn(message + ("; the same call continues from there" if self.config.keep else ""), stacklevel=4)
        return self.questions.judged(outcomes, lambda asked: self._card(asked, journal))

    def _card(self, asked: dict[str, Any], journal: Journal) -> ProtocolCard:
        done = journal.done()
        answered = [(item, one) for item in self.items if isinstance(one := done.get(item.id), Prediction)]
        asked_about = [item for item, _ in answered]
        likely = self.config.scorer == "likelihood"
        tokens = self.facts.way == REGION_TOKENS
        compared = "the options after one shared prefix" if tokens else "each option as the whole answer"
        greedy = f"greedy, at most {self.max_new_tokens} tokens"
        return ProtocolCard(
            **asked | {"counts": asked["counts"] | counts_of_way(self.model, answered)},
            **vars(self.facts),
            decoding=f"log-probability of {compared}" if likely else greedy,
            versions=versions(self.benchmark.scorers),
            batch_sizes=sorted(journal.batch_sizes, reverse=True),
            seen=sizes_seen(self.model, asked_about),
            example=example_of(self.model, asked_about),
        )


def predictor_of(model: Model, scorer: str, batch_size: int, max_new_tokens: int) -> Predictor:
    """Make what answers items with a model; the arguments are those of both predictors."""
    if isinstance(model, PromptedModel):
        return PromptedPredictor(model, scorer, batch_size, max_new_tokens)
    return BatchedPredictor(model, scorer, batch_size, max_new_tokens)
