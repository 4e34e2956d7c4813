"""The answers so far, on disk: one line is appended per batch, so that an interrupted run can continue."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpt4roi_nb.data.problems import NO_IMAGE, UNREADABLE_IMAGE, BadRecord, whole_characters
from gpt4roi_nb.evaluate.benchmarks.item import Prediction
from gpt4roi_nb.evaluate.predict import Outcome
from gpt4roi_nb.files import read_json, read_json_lines, replacing, write_json
from gpt4roi_nb.typed import typed, typed_fields

RUN = "run.json"
PATTERN = "answers-*.jsonl"
_NOT_COMPARED = {"batch_size"}  # of run.json, written by earlier versions
_REASON = {"id": str, "reason": str, "detail": str}  # of a question that could not be asked


class Journal:
    """The answers of a run. Several processes may write it, each to its own file.

    `mend` or `read` loads the files; answers that `add` appends are known at once. A line damaged by a kill or a full
    disk is dropped, so that its questions are asked again.

    Args:
        folder: of the run; `begin` creates it.
        process: number of this process.
    """

    def __init__(self, folder: Path, process: int = 0) -> None:
        self.folder = folder
        self.batch_sizes: set[int] = set()  # questions per batch, of all answers
        self._outcomes: dict[str, Outcome] = {}
        self._file = folder / f"answers-{process}.jsonl"

    def begin(self, run: dict[str, Any]) -> None:
        """Check that the folder's content belongs to this run, and create the folder if needed.

        Args:
            run: what must be equal for answers to be reused.

        Raises:
            ValueError: the folder holds another run (the message says what differs), or answers of an unknown run.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / RUN
        if not file.is_file():
            if any(self.folder.glob(PATTERN)):
                raise ValueError(
                    f"{str(self.folder)!r} holds answers, but no {RUN} that says which run they belong to; name "
                    "another folder"
                )
            write_json(file, run)
            return
        try:
            before = read_json(file)
        except ValueError as error:
            raise ValueError(
                f"{error}; without it, nobody can tell which run the answers in {str(self.folder)!r} belong to: name "
                "another folder, or remove that one first"
            ) from error
        known = {*before, *run} - _NOT_COMPARED
        differing = [key for key in sorted(known) if before.get(key) != run.get(key)]
        if differing:
            changes = "; ".join(f"{key}: {before.get(key)!r}, now {run.get(key)!r}" for key in differing)
            raise ValueError(
                f"{str(self.folder)!r} holds another run ({changes}); name another folder, or remove that one first"
            )

    def done(self) -> dict[str, Outcome]:
        """Return question id → outcome. Of a question that was asked again, one that had its image is preferred."""
        return dict(self._outcomes)

    def settled(self) -> set[str]:
        """Return the ids of questions that need not be asked again. A missing image may have appeared since."""
        return {name for name, outcome in self._outcomes.items() if not _without_image(outcome)}

    def read(self) -> None:
        """Read what all processes have answered so far, and skip damaged lines."""
        for file in sorted(self.folder.glob(PATTERN)):
            for entry in read_json_lines(file)[0]:
                self._take(entry)

    def mend(self) -> None:
        """Read all files as `read` does, and remove their damaged lines, also for processes that no longer run.

        Warns about damaged lines, except an unfinished last one. No process may write meanwhile.
        """
        for file in sorted(self.folder.glob(PATTERN)):
            entries, damaged = read_json_lines(file)
            whole = [entry for entry in entries if self._take(entry)]
            lost = len(damaged) + len(entries) - len(whole)
            if not lost:
                continue
            unfinished = not file.read_bytes().endswith(b"\n")
            with replacing(file) as partial:
                partial.write_text("".join(map(_line, whole)), encoding="utf-8")
            if lost > unfinished:
                warnings.warn(
                    f"removed {lost - unfinished} damaged line(s) from {str(file)!r}; their questions are asked again",
                    stacklevel=2,
                )

    def _take(self, entry: dict[str, Any]) -> bool:
        """Record the content of a line; return False if it is damaged."""
        answered = _answered(entry)
        if answered is None:
            return False
        batch_size, outcomes = answered
        self._note(batch_size, outcomes)
        return True

    def _note(self, batch_size: int | None, outcomes: Sequence[Outcome]) -> None:
        if batch_size is not None:
            self.batch_sizes.add(batch_size)
        for outcome in outcomes:
            name = outcome_id(outcome)
            if name not in self._outcomes or not _without_image(outcome) or _without_image(self._outcomes[name]):
                self._outcomes[name] = outcome

    def check_images(self, stamp_of: Callable[[str], str]) -> None:
        """Check that the images have not changed since they were asked about.

        Args:
            stamp_of: from a question's id to a value that changes when its image changes; "" if the image is missing.

        Raises:
            ValueError: images have changed.
        """
        rows = [row for row in self._outcomes.values() if isinstance(row, Prediction) and row.stamp]
        changed = [row.id for row in rows if stamp_of(row.id) not in ("", row.stamp)]
        if changed:
            raise ValueError(
                f"{str(self.folder)!r} holds {len(changed)} answers about images that have changed since, such as the "
                f"answer to {changed[0]!r}; name another folder, or remove that one first"
            )

    def add(self, outcomes: Sequence[Outcome], batch_size: int) -> None:
        """Append a batch as one line, which a kill in the middle invalidates as a whole.

        Args:
            outcomes: of the batch.
            batch_size: maximum number of questions per batch when it was answered.
        """
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(_line({"batch_size": batch_size, "rows": [_row(outcome) for outcome in outcomes]}))
        self._note(batch_size, outcomes)


def outcome_id(outcome: Outcome) -> str:
    """Return the id of an outcome's question."""
    return outcome.id if isinstance(outcome, Prediction) else outcome[0]


def _line(entry: dict[str, Any]) -> str:
    return whole_characters(json.dumps(entry, ensure_ascii=False)) + "\n"


def _answered(entry: dict[str, Any]) -> tuple[int | None, list[Outcome]] | None:
    """Return a line's batch size (None if it has none) and outcomes; None if the line is damaged."""
    try:
        batch_size = typed(entry.get("batch_size"), int | None, "the batch size")
        rows = typed(entry.get("rows"), list[Any], "the rows")
        return (batch_size, [_outcome(row) for row in rows]) if rows else None
    except ValueError:
        return None


def _without_image(outcome: Outcome) -> bool:
    return not isinstance(outcome, Prediction) and outcome[1].reason in (NO_IMAGE, UNREADABLE_IMAGE)


def _row(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Prediction):
        return {**outcome.__dict__}
    name, bad = outcome
    return {"id": name, "reason": bad.reason, "detail": bad.detail}


def _outcome(row: Any) -> Outcome:
    """Build the outcome of a row. Raises ValueError if it is damaged."""
    if isinstance(row, dict) and "reason" in row:
        said = typed_fields(row, _REASON, "the row")
        return said["id"], BadRecord(said["reason"], said["detail"])
    return typed(row, Prediction, "the row")
