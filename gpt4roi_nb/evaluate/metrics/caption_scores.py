"""METEOR, CIDEr, BLEU-4 and ROUGE-L of region captions, by pycocoevalcap 1.2 behind the PTB tokenizer.

In the units of the papers: METEOR, BLEU-4 and ROUGE-L from 0 to 100; CIDEr is 100 for a score of 1, and what repeats
its reference gets up to 1000. CIDEr weighs words by how rare they are among the references at hand, so that a figure of
few images is none of many; a reference of fewer than four words cannot reach 1000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt4roi_nb.evaluate.metrics.caption_tools import meteor, meteor_of_sums, tokenized, tool, without_chunks_of_perfect
from gpt4roi_nb.evaluate.metrics.statistics import Counts, Figure, mean_figure

METRICS = ("METEOR", "CIDEr", "BLEU-4", "ROUGE-L")
GRAMS = 4
_SMALL, _TINY = 1e-9, 1e-15  # of BLEU, so that nothing is divided by zero


@dataclass(frozen=True)
class CaptionScores:
    """What captions score.

    corpus: metric to its figure. items: metric to (N,), of each caption; the figures of METEOR and BLEU-4 are not their
    means, since both add up counts over all captions first.
    meteor_counts, bleu_counts: (N, 23) and (N, 10), which these two add up.
    """

    corpus: dict[str, float]
    items: dict[str, np.ndarray]
    meteor_counts: np.ndarray
    bleu_counts: np.ndarray

    def figures(self, units: Sequence[str]) -> dict[str, Figure]:
        """The figures, with what their intervals are made of. units: (N,) the image of each caption.

        In a sample of images CIDEr's weights of words stay those of all references.
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

        def meteor_of(counts: Counts) -> float:
            return 100 * float(meteor_of_sums((counts @ meteor_sums)[None])[0])

        def bleu_of(counts: Counts) -> float:
            return 100 * _bleu(counts @ bleu_sums)

        return {
            "METEOR": Figure(self.corpus["METEOR"], names, meteor_of),
            "CIDEr": mean_figure((self.items["CIDEr"] / 100).tolist(), units),
            "BLEU-4": Figure(self.corpus["BLEU-4"], names, bleu_of),
            "ROUGE-L": mean_figure((self.items["ROUGE-L"] / 100).tolist(), units),
        }


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
    cider_all, cider_each = tool("cider.cider").Cider(n=GRAMS).compute_score(true, given)
    rouge_all, rouge_each = tool("rouge.rouge").Rouge().compute_score(true, given)
    bleu_all, bleu_each = tool("bleu.bleu").Bleu(GRAMS).compute_score(true, given, verbose=0)
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
    scorer = tool("bleu.bleu_scorer").BleuScorer(n=GRAMS)
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
