"""The notebook's views: talk about regions, look at where an answer looked and at what a region holds, watch a training."""

from gpt4roi_nb.widgets.attention_inspector import AttentionInspector
from gpt4roi_nb.widgets.region_chat import RegionChat
from gpt4roi_nb.widgets.roi_inspector import RoIInspector
from gpt4roi_nb.widgets.training_monitor import TrainingMonitor

__all__ = ["AttentionInspector", "RegionChat", "RoIInspector", "TrainingMonitor"]
