"""The notebook's views: talk about regions, look inside answers and regions, watch a training, browse failures."""

from typing import TYPE_CHECKING

from gpt4roi_nb.lazy import lazily

if TYPE_CHECKING:
    from gpt4roi_nb.widgets.attention_inspector import AttentionInspector
    from gpt4roi_nb.widgets.failure_browser import FailureBrowser
    from gpt4roi_nb.widgets.region_chat import RegionChat
    from gpt4roi_nb.widgets.roi_inspector import RoIInspector
    from gpt4roi_nb.widgets.training_monitor import TrainingMonitor

__all__ = ["AttentionInspector", "FailureBrowser", "RegionChat", "RoIInspector", "TrainingMonitor"]

# Imported with their first use: the monitor brings the trainer with it, which a conversation does not need.
__getattr__, __dir__ = lazily(
    __name__,
    {
        "AttentionInspector": "attention_inspector",
        "FailureBrowser": "failure_browser",
        "RegionChat": "region_chat",
        "RoIInspector": "roi_inspector",
        "TrainingMonitor": "training_monitor",
    },
)
