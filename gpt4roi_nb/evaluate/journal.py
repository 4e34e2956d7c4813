"""What was answered so far, on disk: one line per batch, appended as it comes, so that a run goes on where it ended."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpt4roi_nb.data.problems import NO_IMAGE, UNREADABLE_IMAGE, BadRecord
from gpt4roi_nb.evaluate.benchmarks.item import Prediction
from gpt4roi_nb.evaluate.predict import Outcome
from gpt4roi_nb.files import read_json, read_json_lines, replacing, write_json

RUN = "run.json"
PATTERN = "answers-*.jsonl"
_NOT_COMPARED = {"batch_size"}  # of run.json, where earlier versions wrote it
_REASON = {"id": str, "reason": str, "detail": str}
_KINDS = {
    "id": str,
    "answer": str,
    "logprob": float | int | None,
    "option_logprobs": list | None,
    "seconds": float | int,
    "width": int,
    "height": int,
    "stamp": str,
}  # of the fields of a prediction


class Journal:
    """The answers of a run, which several processes write, each its own file.

    The files are read once, by `mend` or `read`; what `add` appends is known without that.

    folder: is made here. A line that a kill or a full disk has damaged is dropped, so that its questions are asked
    again.
    """

    def __init__(self, folder: Path, process: int = 0) -> None:
        self.folder = folder
        self.batch_sizes: set[int] = set()  # questions at a time, of all that was answered
        self._outcomes: dict[str, Outcome] = {}
        self._file = folder / f"answers-{process}.jsonl"

    def begin(self, run: dict[str, Any]) -> None:
        """Checks that what is in the folder belongs to this run. Raises ValueError, which says what differs, or that
        nobody can tell."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / RUN
        if not file.is_file():
            if any(self.folder.glob(PATTERN)):
                raise ValueError(f"{str(self.folder)!r} holds answers, but no {RUN} that says of what; name another")
            write_json(file, run)
            return
        try:
            before = read_json(file)
        except ValueError as error:
            raise ValueError(
                f"{error}; so nobody can tell what the answers in {str(self.folder)!r} are of: name another folder, or "
                "remove that one first"
            ) from error
        known = {*before, *run} - _NOT_COMPARED
        differing = [key for key in sorted(known) if before.get(key) != run.get(key)]
        if differing:
            told = "; ".join(f"{key}: {before.get(key)!r}, now {run.get(key)!r}" for key in differing)
            raise ValueError(
                f"{str(self.folder)!r} holds another run ({told}); name another folder, or remove that one first"
            )

    def done(self) -> dict[str, Outcome]:
        """What has been answered, by the id of its question; of one that was asked again, what had its image."""
        return dict(self._outcomes)

    def settled(self) -> set[str]:
        """The questions that need not be asked again. Where an image was not there, it may be by now."""
        return {name for name, outcome in self._outcomes.items() if not _without_image(outcome)}

    def read(self) -> None:
        """Reads what all processes have answered so far. Damaged lines are passed over."""
        for file in sorted(self.folder.glob(PATTERN)):
            for entry in read_json_lines(file)[0]:
                self._take(entry)

    def mend(self) -> None:
        """As `read`, and takes damaged lines out of every file, also those of processes that do not run any more, and
        warns of all but a last one without an end. Nobody may write meanwhile."""
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
                    f"{lost - unfinished} damaged line(s) were taken out of {str(file)!r}; the questions that they "
                    "answered are asked again",
                    stacklevel=2,
                )

    def _take(self, entry: dict[str, Any]) -> bool:
        """Notes what a line tells; False where it is damaged."""
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
        """Checks that answers are of the images that are there now.

        stamp_of: from the id of a question to what differs when its image is another one; "" where it is not there.

        Raises:
            ValueError: images have changed since they were asked about.
        """
        rows = [row for row in self._outcomes.values() if isinstance(row, Prediction) and row.stamp]
        changed = [row.id for row in rows if stamp_of(row.id) not in ("", row.stamp)]
        if changed:
            raise ValueError(
                f"{str(self.folder)!r} holds {len(changed)} answers about images that have changed since, such as that "
                f"of {changed[0]!r}; name another folder, or remove that one first"
            )

    def add(self, outcomes: Sequence[Outcome], batch_size: int) -> None:
        """Appends a batch: whole, or, after a kill in the middle, not at all.

        batch_size: how many questions went side by side at most when it was answered.
        """
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(_line({"batch_size": batch_size, "rows": [_row(outcome) for outcome in outcomes]}))
        self._note(batch_size, outcomes)


def outcome_id(outcome: Outcome) -> str:
    """The id of the question that an outcome is of."""
    return outcome.id if isinstance(outcome, Prediction) else outcome[0]


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _answered(entry: dict[str, Any]) -> tuple[int | None, list[Outcome]] | None:
    """The batch size of a line, where it says one, and what came of its questions; None where the line is damaged."""
    batch_size, rows = entry.get("batch_size"), entry.get("rows")
    if not isinstance(batch_size, int | None) or not isinstance(rows, list) or not rows:
        return None
    try:
        return batch_size, [_outcome(row) for row in rows]
    except (KeyError, TypeError):
        return None


def _without_image(outcome: Outcome) -> bool:
    return not isinstance(outcome, Prediction) and outcome[1].reason in (NO_IMAGE, UNREADABLE_IMAGE)


def _row(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Prediction):
        return {**outcome.__dict__}
    name, bad = outcome
    return {"id": name, "reason": bad.reason, "detail": bad.detail}


def _outcome(row: dict[str, Any]) -> Outcome:
    """What a row tells. Raises KeyError or TypeError where it is damaged."""
    told = {name: kinds for name, kinds in _KINDS.items() if name in row} if "reason" not in row else _REASON
    if not all(isinstance(row[name], kinds) for name, kinds in told.items()):
        raise TypeError("a value is of another type")
    if "reason" in row:
        return row["id"], BadRecord(row["reason"], row["detail"])
    given = row["option_logprobs"]
    if given is not None and not all(isinstance(value, float | int) for value in given):
        raise TypeError("'option_logprobs' must be numbers")
    return Prediction(**{**row, "option_logprobs": None if given is None else tuple(given)})
