"""METEOR, CIDEr, BLEU-4 and ROUGE-L of region captions, computed by pycocoevalcap 1.2 after the PTB tokenizer.

Units are those of the papers: METEOR, BLEU-4 and ROUGE-L from 0 to 100; CIDEr is 100 for a score of 1, and a caption
equal to its reference gets up to 1000. CIDEr weights words by how rare they are among the references at hand, so scores
of few and of many images are not comparable; a reference of fewer than four words cannot reach 1000.

The tokenizer and METEOR are Java programs, started here so that they end and leave nothing behind. The package's own
wrapper of the tokenizer writes into its installation folder, which may be read-only, and its wrapper of METEOR leaves a
process to the garbage collector. The jars, their arguments, and the processing of their output are the package's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from gpt4roi_nb.evaluate.metrics.statistics import Counts, Metric, mean_metric
from gpt4roi_nb.evaluate.metrics.tools import tool

METRICS = ("METEOR", "CIDEr", "BLEU-4", "ROUGE-L")
GRAMS = 4
CLOSEST = "closest"  # which of several references determines BLEU's reference length
MEMORY = "-Xmx2G"  # for METEOR, as in the package
# Before version 18, Java reads and writes in the shell's encoding; captions are Unicode.
UNICODE = "-Dfile.encoding=UTF-8"
# Within `one_meteor`: the stack that ends METEOR, and METEOR itself once it runs.
_kept: ContextVar[tuple[ExitStack, list[Meteor]] | None] = ContextVar("_kept", default=None)


def java() -> str:
    """Return the path of Java. Raises FileNotFoundError if there is none."""
    path = shutil.which("java")
    if path is None:
        raise FileNotFoundError(
            "METEOR and the PTB tokenizer are Java programs, and no java is on the PATH; install one (Debian, Ubuntu: "
            "sudo apt install default-jre-headless; conda: conda install -c conda-forge openjdk)"
        )
    return path


def tokenized(texts: Sequence[str]) -> list[str]:
    """Tokenise texts with the PTB tokenizer: lower case, tokens separated by one blank, no punctuation.

    Raises:
        FileNotFoundError: there is no Java.
        ImportError: pycocoevalcap is missing.
        RuntimeError: the tokenizer failed.
    """
    if not texts:
        return []
    module = _coco("tokenizer.ptbtokenizer")
    folder = Path(module.__file__).parent
    command = [java(), "-cp", module.STANFORD_CORENLP_3_4_1_JAR, "edu.stanford.nlp.process.PTBTokenizer"]
    command += ["-preserveLines", "-lowerCase"]
    # One line per text: every character that could end a line becomes a blank. A last word shows that no line is lost.
    lines = "\n".join([*(" ".join(text.split()) for text in texts), "end"]) + "\n"
    done = subprocess.run(command, cwd=folder, input=lines.encode(), capture_output=True, check=False)
    found = done.stdout.decode().split("\n")
    if done.returncode or found[len(texts) :] != ["end", ""]:
        raise RuntimeError(
            f"the PTB tokenizer failed on {len(texts)} texts (exit {done.returncode}, {len(found)} lines): "
            f"{done.stderr.decode(errors='replace')[-500:]}"
        )
    return [
        " ".join(word for word in line.rstrip().split(" ") if word not in module.PUNCTUATIONS)
        for line in found[: len(texts)]
    ]


class Meteor:
    """A running METEOR 1.5. Use `with meteor() as scorer`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def statistics(self, answer: str, references: Sequence[str]) -> np.ndarray:
        """Return the (23,) counts of an answer against its references, all tokenised: lengths, matches, chunks."""
        sides = [side.replace("|||", " ") for side in (*references, answer)]
        return np.array(self._ask(" ||| ".join(("SCORE", *sides))).split(), np.float64)

    def scores(self, statistics: np.ndarray) -> tuple[float, np.ndarray]:
        """Return METEOR of all, and of each, (N,), from 0 to 1, for (N, 23) statistics."""
        rows = (" ".join(map(repr, row)) for row in statistics.tolist())
        first = self._ask(" ||| ".join(("EVAL", *rows)))
        each = [first, *(self._read() for _ in range(len(statistics)))]
        return float(each[-1]), np.array([float(score) for score in each[:-1]])

    def _ask(self, line: str) -> str:
        writing: IO[bytes] | None = self._process.stdin
        if writing is None:
            raise RuntimeError("METEOR has ended")
        try:
            writing.write(f"{line}\n".encode())
            writing.flush()
        except BrokenPipeError as error:
            raise self._ended() from error
        return self._read()

    def _read(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout else b""
        if not line:
            raise self._ended()
        return line.decode().strip()

    def _ended(self) -> RuntimeError:
        return RuntimeError(f"METEOR ended unexpectedly (exit {self._process.wait()}); it needs 2 GB of memory")


@contextmanager
def one_meteor() -> Iterator[None]:
    """Use one METEOR for all captions scored within the block; the first of them starts it.

    Loading its paraphrases takes about 10 seconds of processor time.
    """
    with ExitStack() as stack:
        token = _kept.set((stack, []))
        try:
            yield
        finally:
            _kept.reset(token)


@contextmanager
def meteor(*, paraphrases: bool = True) -> Iterator[Meteor]:
    """Run METEOR as pycocoevalcap does. It ends with the block, or with that of `one_meteor`.

    Args:
        paraphrases: whether to load the paraphrase table, which takes seconds; `scores` does not need it.

    Raises:
        FileNotFoundError: there is no Java.
        ImportError: pycocoevalcap is missing.
    """
    kept = _kept.get()
    if kept is None or not (paraphrases or kept[1]):
        with _started(paraphrases) as scorer:
            yield scorer
        return
    stack, running = kept
    if not running:
        running.append(stack.enter_context(_started(paraphrases)))
    yield running[0]


@contextmanager
def _started(paraphrases: bool) -> Iterator[Meteor]:
    module = _coco("meteor.meteor")
    command = [java(), UNICODE, "-jar", MEMORY, module.METEOR_JAR, "-", "-", "-stdio", "-l", "en", "-norm"]
    command += [] if paraphrases else ["-a", os.devnull]
    folder = Path(module.__file__).parent
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
    try:
        yield Meteor(process)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):  # unsent input of a process that died
                if stream is not None:
                    stream.close()


def _coco(name: str) -> Any:
    return tool(f"pycocoevalcap.{name}", "captions are scored")


@dataclass(frozen=True)
class CaptionScores:
    """The scores of captions.

    Attributes:
        corpus: metric → value.
        items: metric → (N,), one value per caption. The corpus values of METEOR and BLEU-4 are not the means of these,
            since both sum counts over all captions first.
        meteor_counts, bleu_counts: (N, 23) and (N, 10), the counts that these two sum.
    """

    corpus: dict[str, float]
    items: dict[str, np.ndarray]
    meteor_counts: np.ndarray
    bleu_counts: np.ndarray

    def metrics(self, units: Sequence[str]) -> dict[str, Metric]:
        """Return the metrics with all that their intervals need.

        In a sample of images, CIDEr's word weights remain those of all references.

        Args:
            units: (N,) the image of each caption.
        """
        names = tuple(dict.fromkeys(units))
        place = {name: k for k, name in enumerate(names)}
        index = np.array([place[unit] for unit in units])

        def summed(rows: np.ndarray) -> np.ndarray:
            sums = np.zeros((len(names), rows.shape[1]))
            np.add.at(sums, index, rows)
            return sums

        meteor_sums = summed(without_chunks_of_perfect(self.meteor_counts))
        bleu_sums = summed(self.bleu_counts)

        def meteor_of(counts: Counts) -> np.ndarray:
            with meteor(paraphrases=False) as scorer:
                return 100 * scorer.scores(counts @ meteor_sums)[1]

        def bleu_of(counts: Counts) -> np.ndarray:
            return 100 * _bleu(counts @ bleu_sums)

        return {
            "METEOR": Metric(self.corpus["METEOR"], names, meteor_of),
            "CIDEr": mean_metric((self.items["CIDEr"] / 100).tolist(), units),
            "BLEU-4": Metric(self.corpus["BLEU-4"], names, bleu_of),
            "ROUGE-L": mean_metric((self.items["ROUGE-L"] / 100).tolist(), units),
        }


def score_captions(answers: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """Score captions against references.

    Args:
        answers: (N,), one per region. An empty one scores 0.
        references: (N,), one or more texts per region.

    Raises:
        ValueError: there is nothing to score, or an answer has no reference.
        FileNotFoundError: there is no Java.
        ImportError: pycocoevalcap is missing.
    """
    if not answers or len(answers) != len(references):
        raise ValueError(
            f"expected at least one caption, and a list of references for each, but got {len(answers)} captions and "
            f"{len(references)} lists of references"
        )
    if not all(references):
        raise ValueError(f"caption {next(k for k, one in enumerate(references) if not one)} has no reference")
    flat = tokenized([*answers, *(text for texts in references for text in texts)])
    said, written = flat[: len(answers)], iter(flat[len(answers) :])
    true = {k: [next(written) for _ in texts] for k, texts in enumerate(references)}
    given = {k: [text] for k, text in enumerate(said)}
    with meteor() as scorer:
        statistics = np.stack([scorer.statistics(said[k], true[k]) for k in true])
        meteor_all, meteor_each = scorer.scores(statistics)
    cider_all, cider_each = _coco("cider.cider").Cider(n=GRAMS).compute_score(true, given)
    rouge_all, rouge_each = _coco("rouge.rouge").Rouge().compute_score(true, given)
    bleu = _coco("bleu.bleu_scorer").BleuScorer(n=GRAMS)
    for k, texts in true.items():
        bleu += (said[k], texts)
    bleu_all, bleu_each = bleu.compute_score(option=CLOSEST)
    corpus = (meteor_all, cider_all, bleu_all[-1], rouge_all)
    items = (meteor_each, cider_each, bleu_each[-1], rouge_each)
    return CaptionScores(
        {name: 100 * float(value) for name, value in zip(METRICS, corpus, strict=True)},
        {name: 100 * np.asarray(values, np.float64) for name, values in zip(METRICS, items, strict=True)},
        statistics,
        np.array([_bleu_counts(bleu, entry) for entry in bleu.ctest], np.float64),
    )


def without_chunks_of_perfect(statistics: np.ndarray) -> np.ndarray:
    """Return (N, 23) statistics as METEOR sums them: a text equal to its reference has no fragments."""
    length, reference, chunks = statistics[:, 0], statistics[:, 1], statistics[:, 20]
    perfect = (statistics[:, 21] == length) & (statistics[:, 22] == reference) & (chunks == 1)
    added = statistics.copy()
    added[perfect, 20] = 0
    return added


def _bleu_counts(bleu: Any, entry: dict[str, Any]) -> list[int]:
    """Return the (10,) counts of a caption that BLEU sums."""
    length = entry["testlen"]
    closest = bleu._single_reflen(entry["reflen"], CLOSEST, length)
    return [length, closest, *entry["guess"], *entry["correct"]]


def _bleu(counts: np.ndarray) -> np.ndarray:
    """Return (M,) BLEU-4 from 0 to 1 of sums (M, 10) of `_bleu_counts`, each treated as one long caption."""
    bleu = _coco("bleu.bleu_scorer").BleuScorer(n=GRAMS)
    bleu.ctest = [
        {"testlen": length, "reflen": [closest], "guess": parts[:GRAMS], "correct": parts[GRAMS:]}
        for length, closest, *parts in counts.tolist()
    ]
    return np.array(bleu.compute_score(option=CLOSEST)[1][-1])
