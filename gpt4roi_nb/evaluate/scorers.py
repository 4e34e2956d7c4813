"""The field's tools that judge answers: looked for before anything is asked, and named on the card."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from gpt4roi_nb.evaluate.metrics.caption_tools import java
from gpt4roi_nb.evaluate.metrics.sentences import embedder

CAPTIONS = "pycocoevalcap"
CITYSCAPES = "cityscapesscripts"
PYCOCOTOOLS = "pycocotools"
SENTENCES = "sentence-transformers"
EMBEDDER = "{embedder}"  # stands in a MAPPING for the name of the sentence embedder

# What scoring imports of each package; sentence-transformers is tried by loading the embedder.
_MODULES = {
    CAPTIONS: (
        *("pycocoevalcap.tokenizer.ptbtokenizer", "pycocoevalcap.meteor.meteor", "pycocoevalcap.cider.cider"),
        *("pycocoevalcap.rouge.rouge", "pycocoevalcap.bleu.bleu"),
    ),
    CITYSCAPES: (
        "cityscapesscripts.evaluation.evalPanopticSemanticLabeling",
        "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling",
    ),
    PYCOCOTOOLS: ("pycocotools.coco", "pycocotools.cocoeval", "pycocotools.mask"),
    SENTENCES: (),
}


def check_judges(judges: Sequence[str], mapping_model: str | Path | None = None) -> None:
    """Tries all that scoring will need, so that no answer is lost for want of it.

    judges: a benchmark's `JUDGES`. mapping_model: as `evaluate` takes it.

    Raises:
        ImportError: a package is missing.
        FileNotFoundError: there is no Java for captions, or no such sentence embedder.
    """
    for name in judges:
        try:
            version(name)
            for module in _MODULES[name]:
                import_module(module)
        except ImportError as error:
            raise ImportError(
                f"answers are judged by {name}, which cannot be imported ({error}); pip install 'gpt4roi_nb[evaluate]'"
            ) from error
        if name == CAPTIONS:
            java()
        if name == SENTENCES:
            embedder(mapping_model)


def mapping_of(mapping: str, mapping_model: str | Path | None = None) -> str:
    """A benchmark's `MAPPING` with the name of the sentence embedder in it."""
    return mapping.replace(EMBEDDER, embedder(mapping_model).name) if EMBEDDER in mapping else mapping
