"""From what a model says of a region to a class of a data set, by two mappings.

*Sentence-BERT*, as Osprey's evaluation does it: the answer is embedded, each word for a class is embedded in a
sentence, and a class scores the largest cosine of its words. Every answer gets a class, however little it means.

*Lexical*: the class whose name or synonym the answer is, else the one that stands in it as whole words. An answer that
names no class gets none.
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
    """Answers to classes by Sentence-BERT.

    Args:
        classes: each class with the words for it.
        model: a folder or a hub id; see `similarity.Sentences`.
    """

    def __init__(self, classes: Mapping[str, Sequence[str]], model: str | Path | None = None) -> None:
        _check(classes)
        self.classes = tuple(classes)
        self.sentences = embedder(model)
        self._texts = [TEMPLATE.format(word) for words in classes.values() for word in words]
        self._first = np.cumsum([0, *(len(words) for words in classes.values())])[:-1]

    def scores(self, answers: Sequence[str]) -> np.ndarray:
        """(N, C) float32: of each answer and class, the largest cosine over the class's words."""
        if not answers:
            return np.zeros((0, len(self._first)), np.float32)
        return np.maximum.reduceat(self.sentences.cosines(answers, self._texts), self._first, axis=1)

    def choose(self, answers: Sequence[str]) -> list[str | None]:
        """The class of the largest score, the first of equals; None for an answer without a word."""
        best = self.scores(answers).argmax(1).tolist()
        return [self.classes[k] if _words(text) else None for k, text in zip(best, answers, strict=True)]


class LexicalMapping:
    """Answers to classes by whether they name one.

    Exact first: the answer is a word for a class, but for an article before it, case and punctuation. Then whole words:
    such a word stands in the answer ("a red car" is a car, "a carpet" is none). Where several do, the longest counts,
    then a class's first word before its others, then the one that stands first, then the class that comes first.

    Args:
        classes: each class with the words for it, its own name first.
    """

    def __init__(self, classes: Mapping[str, Sequence[str]]) -> None:
        _check(classes)
        self.classes = tuple(classes)
        self._words = [[_words(word) for word in words] for words in classes.values()]

    def choose(self, answers: Sequence[str]) -> list[str | None]:
        """The class that each answer names; None where it names none."""
        found = {text: self._index(text) for text in dict.fromkeys(answers)}
        return [None if (index := found[text]) is None else self.classes[index] for text in answers]

    def scores(self, answers: Sequence[str]) -> np.ndarray:
        """(N, C) float32: 1 for the class that an answer names, 0 for the others."""
        rows = np.zeros((len(answers), len(self.classes)), np.float32)
        for row, name in zip(rows, self.choose(answers), strict=True):
            if name is not None:
                row[self.classes.index(name)] = 1
        return rows

    def _index(self, answer: str) -> int | None:
        said = _words(answer)
        bare = said[1:] if said[:1] in (("a",), ("an",), ("the",)) else said
        found: list[tuple[int, ...]] = []  # the least is the best
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
    """A text as lower-case words, without punctuation."""
    return tuple(_WORD.findall(text.lower()))


def _check(classes: Mapping[str, Sequence[str]]) -> None:
    for name, words in classes.items():
        if isinstance(words, str) or not words or not all(_words(word) for word in words):
            raise ValueError(f"class {name!r} needs a list of words for it, its own name first, but has {words!r}")
    if not classes:
        raise ValueError("there must be a class at least to map answers to")


def region_probabilities(cosines: np.ndarray, void: Sequence[bool] | None = None) -> np.ndarray:
    """Class probabilities of regions, (N, C + 1) float64; the last column is void.

    The softmax of each row, without a temperature, so that the scores are nearly flat; void is appended with 0, the
    logarithm of p + 1e-8 taken, and its softmax is what semantic, panoptic and instance outputs are made of.

    Args:
        cosines: (N, C) float.
        void: (N,) whether a region is void, as one whose answer is empty: then void is 1 and all classes are 0.
    """
    from scipy.special import softmax

    scores = np.asarray(cosines, np.float64)
    empty = np.zeros(len(scores), bool) if void is None else np.asarray(void, bool)
    probabilities = np.append(softmax(scores, axis=1) * ~empty[:, None], empty[:, None], axis=1)
    return softmax(np.log(probabilities + EPSILON), axis=1)


def one_hot(scores: np.ndarray) -> np.ndarray:
    """The same of a mapping that chooses: (N, C + 1), its 0 and 1 as they are, and void where no class is chosen.

    scores: (N, C) of `LexicalMapping.scores`.
    """
    return np.append(scores, scores.sum(axis=1, keepdims=True) == 0, axis=1).astype(np.float64)


def disagreements(by_sentence: Sequence[str | None], by_words: Sequence[str | None]) -> list[int]:
    """Where the mappings give different classes; one of them finding no class is a disagreement too."""
    return [k for k, (one, other) in enumerate(zip(by_sentence, by_words, strict=True)) if one != other]
