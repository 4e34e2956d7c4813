"""The external tools that score answers: checked before anything is asked, and named on the card."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from gpt4roi_nb.evaluate.metrics.captions import java
from gpt4roi_nb.evaluate.metrics.similarity import embedder

CAPTIONS = "pycocoevalcap"
CITYSCAPES_SCRIPTS = "cityscapesscripts"
PYCOCOTOOLS = "pycocotools"
SENTENCES = "sentence-transformers"
EMBEDDER = "{embedder}"  # placeholder in a mapping for the name of the sentence embedder

# What scoring imports from each package; sentence-transformers is checked by loading the embedder.
_MODULES = {
    CAPTIONS: (
        *("pycocoevalcap.tokenizer.ptbtokenizer", "pycocoevalcap.meteor.meteor", "pycocoevalcap.cider.cider"),
        *("pycocoevalcap.rouge.rouge", "pycocoevalcap.bleu.bleu_scorer"),
    ),
    CITYSCAPES_SCRIPTS: (
        "cityscapesscripts.evaluation.evalPanopticSemanticLabeling",
        "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling",
    ),
    PYCOCOTOOLS: ("pycocotools.coco", "pycocotools.cocoeval", "pycocotools.mask"),
    SENTENCES: (),
}


def check_scorers(scorers: Sequence[str], mapping_model: str | Path | None = None) -> None:
    """Check that everything is installed that scoring will need, before anything is asked.

    Args:
        scorers: a benchmark's `scorers`.
        mapping_model: as for `evaluate`.

    Raises:
        ImportError: a package is missing.
        FileNotFoundError: Java (for captions) or the sentence embedder is missing.
    """
    for name in scorers:
        try:
            version(name)
            for module in _MODULES[name]:
                import_module(module)
        except ImportError as error:
            raise ImportError(
                f"answers are scored by {name}, which cannot be imported ({error}); pip install 'gpt4roi_nb[evaluate]'"
            ) from error
        if name == CAPTIONS:
            java()
        if name == SENTENCES:
            embedder(mapping_model)


def mapping_of(mapping: str, mapping_model: str | Path | None = None) -> str:
    """Return a benchmark's `mapping` with the name of the sentence embedder filled in."""
    return mapping.replace(EMBEDDER, embedder(mapping_model).name) if EMBEDDER in mapping else mapping
