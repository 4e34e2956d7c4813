"""What was answered so far, on disk: one line a batch, appended as it comes, so that a run goes on where it ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt4roi_nb.data.problems import NO_IMAGE, UNREADABLE_IMAGE, BadRecord
from gpt4roi_nb.evaluate.benchmarks.item import Prediction
from gpt4roi_nb.evaluate.predict import Outcome
from gpt4roi_nb.files import write_json

RUN = "run.json"
PATTERN = "answers-*.jsonl"


class Journal:
    """The answers of a run, which several processes write, each its own file.

    folder: is made here. A line that was cut short by a kill is dropped, so that its batch is asked again.
    """

    def __init__(self, folder: Path, process: int = 0) -> None:
        self.folder = folder
        self._file = folder / f"answers-{process}.jsonl"

    def begin(self, run: dict[str, Any]) -> None:
        """Checks that what is in the folder belongs to this run. Raises ValueError, which says what differs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / RUN
        if not file.is_file():
            if any(self.folder.glob(PATTERN)):
                raise ValueError(f"{str(self.folder)!r} holds answers, but no {RUN} that says of what; name another")
            write_json(file, run)
            return
        before = json.loads(file.read_text(encoding="utf-8"))
        differing = [key for key in sorted({*before, *run}) if before.get(key) != run.get(key)]
        if differing:
            told = "; ".join(f"{key}: {before.get(key)!r}, now {run.get(key)!r}" for key in differing)
            raise ValueError(
                f"{str(self.folder)!r} holds another run ({told}); name another folder, or remove that one first"
            )

    def done(self) -> dict[str, list[Outcome]]:
        """What has been answered, by batch; of one that was asked again, what had more of its pictures."""
        found: dict[str, list[Outcome]] = {}
        for file in sorted(self.folder.glob(PATTERN)):
            for line in file.read_bytes().split(b"\n")[:-1]:  # the last, without a line's end, was cut short
                entry = json.loads(line)
                rows = [_outcome(row) for row in entry["rows"]]
                before = found.get(entry["batch"])
                if before is None or _without_picture(rows) <= _without_picture(before):
                    found[entry["batch"]] = rows
        return found

    def settled(self) -> set[str]:
        """The batches that need not be asked again. Where a picture was not there, it may be by now."""
        return {batch for batch, rows in self.done().items() if not _without_picture(rows)}

    def mend(self) -> None:
        """Cuts off the line of this process's file that a kill has left unfinished."""
        if not self._file.is_file():
            return
        with self._file.open("rb+") as stream:
            content = stream.read()
            stream.truncate(content.rfind(b"\n") + 1)

    def add(self, batch: str, outcomes: Sequence[Outcome]) -> None:
        """Appends a batch: whole, or, after a kill in the middle, not at all."""
        line = json.dumps({"batch": batch, "rows": [_row(outcome) for outcome in outcomes]}, ensure_ascii=False)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")


def _without_picture(rows: Sequence[Outcome]) -> int:
    reasons = (row[1].reason for row in rows if not isinstance(row, Prediction))
    return sum(reason in (NO_IMAGE, UNREADABLE_IMAGE) for reason in reasons)


def _row(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Prediction):
        return {**outcome.__dict__}
    name, bad = outcome
    return {"id": name, "reason": bad.reason, "detail": bad.detail}


def _outcome(row: dict[str, Any]) -> Outcome:
    if "reason" in row:
        return row["id"], BadRecord(row["reason"], row["detail"])
    given = row["option_logprobs"]
    return Prediction(**{**row, "option_logprobs": None if given is None else tuple(given)})
