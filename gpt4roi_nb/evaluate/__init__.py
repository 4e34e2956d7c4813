"""Measuring a model on published benchmarks: `evaluate`, the `Result`, and `compare`.

`python -m gpt4roi_nb.evaluate vcr --checkpoint … --root …` does the same without a notebook.
"""

from typing import TYPE_CHECKING

from gpt4roi_nb.lazy import lazily

if TYPE_CHECKING:
    from gpt4roi_nb.evaluate.card import ProtocolCard
    from gpt4roi_nb.evaluate.comparison import Comparison, compare
    from gpt4roi_nb.evaluate.registry import BENCHMARKS
    from gpt4roi_nb.evaluate.result import Result
    from gpt4roi_nb.evaluate.run import evaluate

__all__ = ["BENCHMARKS", "Comparison", "ProtocolCard", "Result", "compare", "evaluate"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "BENCHMARKS": "registry",
        "Comparison": "comparison",
        "ProtocolCard": "card",
        "Result": "result",
        "compare": "comparison",
        "evaluate": "run",
    },
)
