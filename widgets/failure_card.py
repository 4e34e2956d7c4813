"""The texts of a `FailureBrowser` about one prediction, and its summary line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpt4roi_nb.session.references import readable
from gpt4roi_nb.widgets.compared import Compared


def card(row: dict[str, Any]) -> dict[str, Any]:
    """Make the panel's card for a prediction. row: see `gpt4roi_nb.failures.rows.rows_of`."""
    return {
        "id": row["id"],
        "question": readable(row["question"]),
        "answer": readable(row["answer"] or ""),
        "target": readable(row["target"] or ""),
        "wrong": row["correct"] is False,
        "verdict": row["error_kind"],
        "facts": " · ".join(_facts(row)),
    }


def shared_card(row: dict[str, Any]) -> dict[str, Any]:
    """Make the panel's card for a question that several models answered; their answers are shown elsewhere."""
    facts = " · ".join(_of_the_box(row))
    return {**card(row), "answer": None, "wrong": False, "verdict": row.get("outcome") or "", "facts": facts}


def stored(row: dict[str, Any] | None, question: str) -> dict[str, Any]:
    """Make a model's cell about its stored answer.

    Args:
        row: of that model's result; None if it was not asked this question.
        question: that of the question line.
    """
    if row is None:
        return {"absent": "This result has no answer to this question."}
    wrong = row["correct"] is False
    return {
        "answer": row["answer"] or "",
        "wrong": wrong,
        "verdict": f"wrong: {row['error_kind']}" if wrong else row["error_kind"],
        "facts": " · ".join(_of_the_answer(row)),
        "question": row["question"] if row["question"] != question else "",
    }


def _facts(row: dict[str, Any]) -> list[str]:
    return [*_of_the_box(row), *_of_the_answer(row)]


def _of_the_box(row: dict[str, Any]) -> list[str]:
    return [row["id"], *([f"{row['size_bin']} box"] if row.get("size_bin") else [])]


def _of_the_answer(row: dict[str, Any]) -> list[str]:
    facts = []
    if row.get("logprob") is not None:
        facts.append(f"log-probability per token {row['logprob']:.2f}")
    if row.get("margin") is not None:
        facts.append(f"margin {row['margin']:.2f}")
    if row.get("mappings_agree") is False:
        facts.append(f"mapped to {row['mapped_sbert']!r} by Sentence-BERT, to {row['mapped_lexical']!r} lexically")
    return facts


def summary(rows: Sequence[dict[str, Any]], total: int) -> str:
    """Say how many of the filtered rows are wrong. total: the number of all predictions."""
    return f"{_counted(rows, total, 'predictions')}, {_wrong(rows)}"


def shared_summary(rows: Sequence[dict[str, Any]], total: int, compared: Sequence[Compared]) -> str:
    """Say how many of the filtered questions each model got wrong. total: the number of all questions."""
    each = [
        f"{one.letter} {_wrong([one.rows[row['id']] for row in rows if row['id'] in one.rows])}" for one in compared
    ]
    return f"{_counted(rows, total, 'questions')}; {', '.join(each)}; the bars count {compared[0].letter}'s answers"


def _counted(rows: Sequence[dict[str, Any]], total: int, what: str) -> str:
    return f"{len(rows):,} of {total:,} {what}" if len(rows) < total else f"{total:,} {what}"


def _wrong(rows: Sequence[dict[str, Any]]) -> str:
    judged = [row for row in rows if row["correct"] is not None]
    wrong = sum(row["correct"] is False for row in judged)
    return f"{wrong:,} wrong" + (f" ({100 * wrong / len(judged):.1f}%)" if judged else "")
