"""The notebook's views: talk about regions, look inside answers and regions, watch a training, browse failures."""

from gpt4roi_nb.widgets.attention_inspector import AttentionInspector
from gpt4roi_nb.widgets.failure_browser import FailureBrowser
from gpt4roi_nb.widgets.region_chat import RegionChat
from gpt4roi_nb.widgets.roi_inspector import RoIInspector
from gpt4roi_nb.widgets.training_monitor import TrainingMonitor

__all__ = ["AttentionInspector", "FailureBrowser", "RegionChat", "RoIInspector", "TrainingMonitor"]
