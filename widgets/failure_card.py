"""The texts of a `FailureBrowser` about one prediction, and its summary line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpt4roi_nb.session.references import readable


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


def _facts(row: dict[str, Any]) -> list[str]:
    facts = [row["id"]]
    if row.get("size_bin"):
        facts.append(f"{row['size_bin']} box")
    if row.get("logprob") is not None:
        facts.append(f"log-probability per token {row['logprob']:.2f}")
    if row.get("margin") is not None:
        facts.append(f"margin {row['margin']:.2f}")
    if row.get("mappings_agree") is False:
        facts.append(f"mapped to {row['mapped_sbert']!r} by Sentence-BERT, to {row['mapped_lexical']!r} lexically")
    return facts


def summary(rows: Sequence[dict[str, Any]], total: int) -> str:
    """Say how many of the filtered rows are wrong. total: the number of all predictions."""
    judged = [row for row in rows if row["correct"] is not None]
    wrong = sum(row["correct"] is False for row in judged)
    share = f" ({100 * wrong / len(judged):.1f}%)" if judged else ""
    what = f"{len(rows):,} of {total:,} predictions" if len(rows) < total else f"{total:,} predictions"
    return f"{what}, {wrong:,} wrong{share}"
