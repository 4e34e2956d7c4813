"""Measuring a model on published benchmarks: `evaluate`, the `Result`, and `compare`.

`python -m gpt4roi_nb.evaluate vcr --checkpoint … --root …` does the same without a notebook.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt4roi_nb.evaluate.card import ProtocolCard
    from gpt4roi_nb.evaluate.comparison import Comparison, compare
    from gpt4roi_nb.evaluate.registry import BENCHMARKS
    from gpt4roi_nb.evaluate.result import Result
    from gpt4roi_nb.evaluate.run import evaluate

__all__ = ["BENCHMARKS", "Comparison", "ProtocolCard", "Result", "compare", "evaluate"]

_HOMES = {
    "BENCHMARKS": "registry",
    "Comparison": "comparison",
    "ProtocolCard": "card",
    "Result": "result",
    "compare": "comparison",
    "evaluate": "run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
