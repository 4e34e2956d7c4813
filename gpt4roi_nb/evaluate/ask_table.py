"""Ask a table of questions about a folder of images: `python -m gpt4roi_nb ask-table photos questions.csv answers.csv`.

Answers are saved after each batch, so that an interrupt or a kill costs at most one batch, and the same call continues.
PyTorch is imported only after the table was read and checked.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gpt4roi_nb import commands
from gpt4roi_nb.evaluate.question_table import QuestionTable, Row, read_table, write_table

if TYPE_CHECKING:
    from gpt4roi_nb.evaluate.journal import Journal
    from gpt4roi_nb.evaluate.predict import Outcome
    from gpt4roi_nb.session.gpt4roi import GPT4RoI

KEPT = ".kept"  # added to the name of the answer table, the folder of the answers so far
NOT_ASKED = "not asked yet; the same call continues from here"
SOME_PROBLEMS, BAD_INPUT, FAILED = 1, 2, 1
_fail = partial(commands.fail, command="ask-table")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = commands.ask_table().parse_args(arguments)
    try:
        table = _checked(given)
    except (ValueError, OSError) as error:
        return _fail(error, BAD_INPUT)
    try:
        return _asked(given, table)
    except ValueError as error:
        return _fail(error, BAD_INPUT)
    except (MemoryError, ImportError, OSError, FloatingPointError) as error:
        return _fail(error, BAD_INPUT if isinstance(error, FileNotFoundError) else FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted; the same call continues from there", commands.INTERRUPTED)


def _checked(given: argparse.Namespace) -> QuestionTable:
    """Return the table of questions. Raises ValueError or OSError if the call as a whole is wrong."""
    if not given.images.is_dir():
        raise ValueError(f"there is no folder {str(given.images)!r}; give the folder of the images")
    answers = given.answers.absolute()
    if not answers.parent.is_dir():
        raise ValueError(f"{str(given.answers)!r} cannot be written: there is no folder {str(answers.parent)!r}")
    if answers.exists() and not _kept(answers).is_dir():
        raise ValueError(f"{str(given.answers)!r} already exists, and this command did not begin it; name another file")
    return read_table(given.questions, given.images)


def _kept(answers: Path) -> Path:
    return answers.with_name(answers.name + KEPT)


def _asked(given: argparse.Namespace, table: QuestionTable) -> int:
    """Ask what can be asked, and write the table, even after an interrupt."""
    good = [row for row in table.rows if not row.problem]
    bad = len(table.rows) - len(good)
    print(f"{len(table.rows)} rows, of which {bad} cannot be asked (see the column problem)" if bad else
          f"{len(table.rows)} rows", file=sys.stderr)  # fmt: skip
    if not good:
        write_table(given.answers, table, [("", row.problem) for row in table.rows])
        return SOME_PROBLEMS

    from gpt4roi_nb.evaluate.journal import Journal
    from gpt4roi_nb.evaluate.model_facts import checkpoint_hash
    from gpt4roi_nb.files import alone_in, stamp_of
    from gpt4roi_nb.logs import no_progress_bar
    from gpt4roi_nb.session.gpt4roi import GPT4RoI

    kept = _kept(given.answers.absolute())
    kept.mkdir(exist_ok=True)
    with alone_in(kept, "run of this command"):
        with nullcontext() if sys.stderr.isatty() else no_progress_bar():
            gpt4roi = GPT4RoI.from_pretrained(
                given.checkpoint, device=given.device, dtype=given.dtype, quantization=given.quantization
            )
        if gpt4roi.is_demo:
            print(f"{gpt4roi.about} For photographs give --checkpoint.", file=sys.stderr)
        journal = Journal(kept)
        journal.begin({"checkpoint": checkpoint_hash(gpt4roi), "max_new_tokens": given.max_new_tokens})
        journal.mend()
        image_of = {_id(row): row.image for row in good}
        journal.check_images(lambda name: stamp_of(image_of[name]) if name in image_of else "")
        try:
            ask(gpt4roi, good, journal, max_new_tokens=given.max_new_tokens, batch_size=given.batch_size)
        finally:
            done = journal.done()
            rows = [_outcome(row, done.get(_id(row))) for row in table.rows]
            write_table(given.answers, table, rows)
    without = sum(bool(problem) for _, problem in rows)
    print(
        f"{len(rows) - without} of {len(rows)} rows have an answer in {str(given.answers)!r}"
        + (f"; for the other {without}, see the column problem" if without else ""),
        file=sys.stderr,
    )
    return SOME_PROBLEMS if without else 0


def ask(gpt4roi: GPT4RoI, rows: Sequence[Row], journal: Journal, *, max_new_tokens: int, batch_size: int) -> None:
    """Ask rows in batches, and add each outcome to a journal under the row's own id.

    Rows that the journal already has are not asked again. When memory is short or runs out, batches shrink.

    Args:
        gpt4roi: the model.
        rows: those that can be asked.
        journal: gets the outcomes.
        max_new_tokens: maximum length of an answer.
        batch_size: maximum number of rows per batch.
    """
    from tqdm import tqdm

    from gpt4roi_nb.batches import BatchSize
    from gpt4roi_nb.evaluate.asking import QuestionCost, batched_outcomes
    from gpt4roi_nb.evaluate.benchmarks.item import Item
    from gpt4roi_nb.evaluate.predict import BatchedPredictor
    from gpt4roi_nb.evaluate.read_ahead import read_ahead, windows

    items = {_id(row): Item(_id(row), row.image, row.boxes, row.question) for row in rows}  # equal rows once
    settled = journal.settled() & items.keys()
    left = [item for name, item in items.items() if name not in settled]
    if not left:
        return
    batch = BatchSize(min(batch_size, len(left)), "questions")
    batch.fit(gpt4roi, QuestionCost(gpt4roi, left, "generate", max_new_tokens))
    predictor = BatchedPredictor(gpt4roi, "generate", batch.size, max_new_tokens)
    with gpt4roi.hold_weights(), tqdm(total=len(items), initial=len(settled), unit="question", disable=None) as bar:
        for window, images in read_ahead(predictor.prepare, windows(left, batch_size)):
            for outcomes in batched_outcomes(predictor, batch, window.items, images, settled):
                journal.add(outcomes, batch.size)
                bar.update(len(outcomes))


def _id(row: Row) -> str:
    """Derive an id from image, question and boxes, independently of the rest of the table."""
    return hashlib.sha256(f"{row.image}\n{row.question}\n{row.boxes}".encode()).hexdigest()[:16]


def _outcome(row: Row, outcome: Outcome | None) -> tuple[str, str]:
    """Return (answer, problem) of a row, one of which is empty. outcome: None if it was not asked."""
    from gpt4roi_nb.evaluate.benchmarks.item import Prediction

    if row.problem:
        return "", row.problem
    if outcome is None:
        return "", NOT_ASKED
    if isinstance(outcome, Prediction):
        return outcome.answer, "" if outcome.answer else "the model gave an empty answer"
    return "", str(outcome[1])


if __name__ == "__main__":
    sys.exit(main())
