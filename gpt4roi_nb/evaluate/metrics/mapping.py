"""Two mappings from what a model says about a region to a class of a dataset.

*Sentence-BERT*, as in Osprey's evaluation: the answer is embedded, each word for a class is embedded in a sentence, and
the score of a class is the largest cosine of its words. Every answer gets a class, even a meaningless one.

*Lexical*: the class whose name or synonym the answer is, else one that the answer contains as whole words. An answer
that names no class gets none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gpt4roi_nb.evaluate.metrics.similarity import embedder

TEMPLATE = "There is a {} in the scene."
EPSILON = 1e-8
_WORD = re.compile(r"[^\W_]+")


class SentenceBertMapping:
    """Maps answers to classes by Sentence-BERT.

    Args:
        classes: class → the words for it.
        model: a folder or a hub id; see `similarity.Sentences`.
    """

    def __init__(self, classes: Mapping[str, Sequence[str]], model: str | Path | None = None) -> None:
        _check(classes)
        self.classes = tuple(classes)
        self.sentences = embedder(model)
        self._texts = [TEMPLATE.format(word) for words in classes.values() for word in words]
        self._first = np.cumsum([0, *(len(words) for words in classes.values())])[:-1]

    def scores(self, answers: Sequence[str]) -> np.ndarray:
        """Return (N, C) float32: for each answer and class, the largest cosine over the class's words."""
        if not answers:
            return np.zeros((0, len(self._first)), np.float32)
        return np.maximum.reduceat(self.sentences.cosines(answers, self._texts), self._first, axis=1)

    def choose(self, answers: Sequence[str]) -> list[str | None]:
        """Return the class with the largest score, the first if equal; None for an answer without words."""
        best = self.scores(answers).argmax(1).tolist()
        return [self.classes[k] if _words(text) else None for k, text in zip(best, answers, strict=True)]


class LexicalMapping:
    """Maps answers to the classes that they name.

    Exact matches come first: the answer is a word for a class, ignoring a leading article, case and punctuation. Then
    whole words: the answer contains such a word ("a red car" is a car, "a carpet" is not). Among several, prefer the
    longest, then a class's first word, then the earliest in the answer, then the first class.

    Args:
        classes: class → the words for it, its own name first.
    """

    def __init__(self, classes: Mapping[str, Sequence[str]]) -> None:
        _check(classes)
        self.classes = tuple(classes)
        self._words = [[_words(word) for word in words] for words in classes.values()]

    def choose(self, answers: Sequence[str]) -> list[str | None]:
        """Return the class that each answer names; None if it names none."""
        found = {text: self._index(text) for text in dict.fromkeys(answers)}
        return [None if (index := found[text]) is None else self.classes[index] for text in answers]

    def scores(self, answers: Sequence[str]) -> np.ndarray:
        """Return (N, C) float32: 1 for the class that an answer names, 0 for the others."""
        rows = np.zeros((len(answers), len(self.classes)), np.float32)
        for row, name in zip(rows, self.choose(answers), strict=True):
            if name is not None:
                row[self.classes.index(name)] = 1
        return rows

    def _index(self, answer: str) -> int | None:
        said = _words(answer)
        bare = said[1:] if said[:1] in (("a",), ("an",), ("the",)) else said
        found: list[tuple[int, ...]] = []  # the smallest is the best
        for index, words in enumerate(self._words):
            for rank, word in enumerate(words):
                if word in (said, bare):
                    found.append((0, 0, min(rank, 1), 0, index))
                    continue
                places = range(len(said) - len(word) + 1)
                at = next((k for k in places if said[k : k + len(word)] == word), None)
                if at is not None:
                    found.append((1, -len(word), min(rank, 1), at, index))
        return min(found)[-1] if found else None


def _words(text: str) -> tuple[str, ...]:
    """Split a text into lower-case words without punctuation."""
    return tuple(_WORD.findall(text.lower()))


def _check(classes: Mapping[str, Sequence[str]]) -> None:
    for name, words in classes.items():
        if isinstance(words, str) or not words or not all(_words(word) for word in words):
            raise ValueError(f"class {name!r} needs a list of words for it, its own name first, but has {words!r}")
    if not classes:
        raise ValueError("expected at least one class to map answers to")


def region_probabilities(cosines: np.ndarray, void: Sequence[bool] | None = None) -> np.ndarray:
    """Compute the class probabilities of regions from which semantic, panoptic and instance outputs are made.

    Each row goes through a softmax without a temperature, so that scores are nearly flat. Void is appended with 0, and
    the result is the softmax of log(p + 1e-8).

    Args:
        cosines: (N, C) float.
        void: (N,) whether a region is void, such as one with an empty answer: void is then 1 and all classes are 0.

    Returns:
        (N, C + 1) float64; the last column is void.
    """
    from scipy.special import softmax

    scores = np.asarray(cosines, np.float64)
    empty = np.zeros(len(scores), bool) if void is None else np.asarray(void, bool)
    probabilities = np.append(softmax(scores, axis=1) * ~empty[:, None], empty[:, None], axis=1)
    return softmax(np.log(probabilities + EPSILON), axis=1)


def one_hot(scores: np.ndarray) -> np.ndarray:
    """Append void to the scores of a mapping that chooses: 1 if no class is chosen.

    Args:
        scores: (N, C) of `LexicalMapping.scores`.

    Returns:
        (N, C + 1) float64; the last column is void.
    """
    return np.append(scores, scores.sum(axis=1, keepdims=True) == 0, axis=1).astype(np.float64)


def disagreements(by_sentence: Sequence[str | None], by_words: Sequence[str | None]) -> list[int]:
    """Return the indices where the mappings differ, including those where only one finds a class."""
    return [k for k, (one, other) in enumerate(zip(by_sentence, by_words, strict=True)) if one != other]
