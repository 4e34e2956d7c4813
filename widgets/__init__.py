"""The notebook's views: talk about regions, look at where an answer looked, and at what a region holds."""

from gpt4roi_nb.widgets.attention_inspector import AttentionInspector
from gpt4roi_nb.widgets.region_chat import RegionChat
from gpt4roi_nb.widgets.roi_inspector import RoIInspector

__all__ = ["AttentionInspector", "RegionChat", "RoIInspector"]
