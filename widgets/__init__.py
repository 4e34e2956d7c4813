"""The notebook's views: talk about regions, look inside answers and regions, watch a training, browse failures."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt4roi_nb.widgets.attention_inspector import AttentionInspector
    from gpt4roi_nb.widgets.failure_browser import FailureBrowser
    from gpt4roi_nb.widgets.region_chat import RegionChat
    from gpt4roi_nb.widgets.roi_inspector import RoIInspector
    from gpt4roi_nb.widgets.training_monitor import TrainingMonitor

__all__ = ["AttentionInspector", "FailureBrowser", "RegionChat", "RoIInspector", "TrainingMonitor"]

# Imported with their first use: the monitor brings the trainer with it, which a conversation does not need.
_HOMES = {
    "AttentionInspector": "attention_inspector",
    "FailureBrowser": "failure_browser",
    "RegionChat": "region_chat",
    "RoIInspector": "roi_inspector",
    "TrainingMonitor": "training_monitor",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"gpt4roi_nb.widgets.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
