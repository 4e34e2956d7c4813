"""pycocoevalcap's two Java tools, the PTB tokenizer and METEOR, started so that they end and leave nothing behind.

The package's own wrapper of the tokenizer writes into the folder that it is installed in, which may be read-only, and
its wrapper of METEOR leaves a process to the garbage collector. The jars, what they are called with, and what becomes
of their output are the package's.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np

MEMORY = "-Xmx2G"  # of METEOR, as the package gives it
# Java before 18 reads and writes in the language of the shell; captions are Unicode.
UNICODE = "-Dfile.encoding=UTF-8"


def java() -> str:
    """The path of Java.

    Raises:
        FileNotFoundError: there is none.
    """
    path = shutil.which("java")
    if path is None:
        raise FileNotFoundError(
            "METEOR and the PTB tokenizer are Java programs, and no java is on the PATH; install one (Debian, Ubuntu: "
            "sudo apt install default-jre-headless; conda: conda install -c conda-forge openjdk)"
        )
    return path


def tokenized(texts: Sequence[str]) -> list[str]:
    """Texts in lower case, their words and signs apart by one blank, without punctuation: by the PTB tokenizer.

    Raises:
        FileNotFoundError: there is no Java.
        ImportError: pycocoevalcap is missing.
        RuntimeError: the tokenizer failed.
    """
    if not texts:
        return []
    module = tool("tokenizer.ptbtokenizer")
    folder = Path(module.__file__).parent
    command = [java(), "-cp", module.STANFORD_CORENLP_3_4_1_JAR, "edu.stanford.nlp.process.PTBTokenizer"]
    command += ["-preserveLines", "-lowerCase"]
    # One line a text: every sign that could end a line becomes a blank. A last word shows that none went astray.
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
    """A running METEOR 1.5. Use as `with meteor() as scorer`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def statistics(self, answer: str, references: Sequence[str]) -> np.ndarray:
        """(23,) counts of one answer against its references, all tokenised: lengths, matches, chunks."""
        sides = [side.replace("|||", " ") for side in (*references, answer)]
        return np.array(self._ask(" ||| ".join(("SCORE", *sides))).split(), np.float64)

    def scores(self, statistics: np.ndarray) -> tuple[float, np.ndarray]:
        """METEOR of all, and of each, (N,), from 0 to 1, of (N, 23) statistics."""
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
def meteor() -> Iterator[Meteor]:
    """METEOR as pycocoevalcap runs it, ended with the block.

    Raises:
        FileNotFoundError: there is no Java.
        ImportError: pycocoevalcap is missing.
    """
    module = tool("meteor.meteor")
    command = [java(), UNICODE, "-jar", MEMORY, module.METEOR_JAR, "-", "-", "-stdio", "-l", "en", "-norm"]
    folder = Path(module.__file__).parent
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
    try:
        yield Meteor(process)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):  # what it could not be told before it died
                if stream is not None:
                    stream.close()


# METEOR 1.5's parameters for English; the weights are of exact words, stems, synonyms and paraphrases.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
STATISTICS = 23


def without_chunks_of_perfect(statistics: np.ndarray) -> np.ndarray:
    """(N, 23) statistics as METEOR adds them up: a text that is its reference has no fragments."""
    length, reference, chunks = statistics[:, 0], statistics[:, 1], statistics[:, 20]
    perfect = (statistics[:, 21] == length) & (statistics[:, 22] == reference) & (chunks == 1)
    added = statistics.copy()
    added[perfect, 20] = 0
    return added


def meteor_of_sums(sums: np.ndarray) -> np.ndarray:
    """METEOR (M,) of sums (M, 23) of `without_chunks_of_perfect`: METEOR's own formula, for resampling in no time.

    What figures are made of is the jar; a test holds the two together.
    """
    length, reference, function, reference_function = sums[:, :4].T
    stages = sums[:, 4:20].reshape(-1, 4, 4)  # by stage: content words here and there, function words here and there
    matched = np.einsum("s,nsk->nk", WEIGHTS, stages)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = (DELTA * matched[:, 0] + (1 - DELTA) * matched[:, 2]) / (
            DELTA * (length - function) + (1 - DELTA) * function
        )
        recall = (DELTA * matched[:, 1] + (1 - DELTA) * matched[:, 3]) / (
            DELTA * (reference - reference_function) + (1 - DELTA) * reference_function
        )
        mean = 1 / ((1 - ALPHA) / precision + ALPHA / recall)
        fragmentation = sums[:, 20] / ((sums[:, 21] + sums[:, 22]) / 2)
        scores = mean * (1 - GAMMA * fragmentation**BETA)
    return np.nan_to_num(scores, nan=0.0)


def tool(name: str) -> Any:
    """A module of pycocoevalcap. Raises ImportError, in words, where the package is missing."""
    try:
        return import_module(f"pycocoevalcap.{name}")
    except ImportError as error:
        raise ImportError(
            "captions are scored by pycocoevalcap, which is missing; pip install 'gpt4roi_nb[evaluate]'"
        ) from error
