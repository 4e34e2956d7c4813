"""METEOR, CIDEr, BLEU-4 and ROUGE-L of region captions, by pycocoevalcap 1.2 behind the PTB tokenizer.

In the units of the papers: METEOR, BLEU-4 and ROUGE-L from 0 to 100; CIDEr is 100 for a score of 1, and what repeats its
reference gets up to 1000. CIDEr weighs words by how rare they are among the references at hand, so that a figure of few
images is none of many; a reference of fewer than four words cannot reach 1000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt4roi_nb.evaluate.caption_tools import (
    _module,
    meteor,
    meteor_of_sums,
    tokenized,
    without_chunks_of_perfect,
)

METRICS = ("METEOR", "CIDEr", "BLEU-4", "ROUGE-L")
GRAMS = 4
_SMALL, _TINY = 1e-9, 1e-15  # of BLEU, so that nothing is divided by zero


@dataclass(frozen=True)
class CaptionScores:
    """What captions score.

    corpus: metric to its figure. items: metric to (N,), of each caption; the figures of METEOR and BLEU-4 are not their
    means, since both add up counts over all captions first.
    """

    corpus: dict[str, float]
    items: dict[str, np.ndarray]
    _meteor: np.ndarray  # (N, 23)
    _bleu: np.ndarray  # (N, 10): length, that of the closest reference, n-grams by n, right ones by n

    def resampled(self, draws: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The figures (draws,) of as many sets of captions, drawn with replacement: what intervals are made of.

        CIDEr's weights of words stay those of all references.
        """
        count = len(self._bleu)
        figures: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
        statistics = without_chunks_of_perfect(self._meteor)
        for _ in range(draws if count else 0):
            times = np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float64)
            figures["METEOR"].append(100 * meteor_of_sums((times @ statistics)[None])[0])
            figures["BLEU-4"].append(100 * _bleu(times @ self._bleu))
            for name in ("CIDEr", "ROUGE-L"):
                figures[name].append(times @ self.items[name] / count)
        return {name: np.array(values) for name, values in figures.items()}


def score_captions(answers: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """Scores captions against what people wrote.

    Args:
        answers: (N,), one a region. An empty one scores 0.
        references: (N,) one or more of each region.

    Raises:
        ValueError: there is nothing to score, or an answer has no reference.
        FileNotFoundError: there is no Java.
        ImportError: pycocoevalcap is missing.
    """
    if not answers or len(answers) != len(references):
        raise ValueError(
            f"each caption needs its references, and at least one must be there: {len(answers)} captions and "
            f"{len(references)} lists of references came"
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
    cider_all, cider_each = _module("cider.cider").Cider(n=GRAMS).compute_score(true, given)
    rouge_all, rouge_each = _module("rouge.rouge").Rouge().compute_score(true, given)
    bleu_all, bleu_each = _module("bleu.bleu").Bleu(GRAMS).compute_score(true, given, verbose=0)
    corpus = (meteor_all, cider_all, bleu_all[-1], rouge_all)
    items = (meteor_each, cider_each, bleu_each[-1], rouge_each)
    return CaptionScores(
        {name: 100 * float(value) for name, value in zip(METRICS, corpus, strict=True)},
        {name: 100 * np.asarray(values, np.float64) for name, values in zip(METRICS, items, strict=True)},
        statistics,
        _bleu_counts(true, given),
    )


def _bleu_counts(true: dict[int, list[str]], given: dict[int, list[str]]) -> np.ndarray:
    """(N, 10) counts that BLEU adds up, by pycocoevalcap's own counting."""
    scorer = _module("bleu.bleu_scorer").BleuScorer(n=GRAMS)
    for k, texts in true.items():
        scorer += (given[k][0], texts)
    rows = []
    for entry in scorer.ctest:
        length = entry["testlen"]
        closest = min((abs(one - length), one) for one in entry["reflen"])[1]
        rows.append([length, closest, *entry["guess"], *entry["correct"]])
    return np.array(rows, np.float64)


def _bleu(counts: np.ndarray) -> float:
    """BLEU-4 of counts (10,), as pycocoevalcap computes it."""
    length, closest = counts[:2]
    guesses, right = counts[2 : 2 + GRAMS], counts[2 + GRAMS :]
    score = float(np.prod((right + _TINY) / (guesses + _SMALL)) ** (1 / GRAMS))
    ratio = (length + _TINY) / (closest + _SMALL)
    return score * float(np.exp(1 - 1 / ratio)) if ratio < 1 else score
