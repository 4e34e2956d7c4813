"""The notebook's views: talk about regions, see what is inside an answer and a region, and browse where a model fails."""

from gpt4roi_nb.widgets.attention_inspector import AttentionInspector
from gpt4roi_nb.widgets.failure_browser import FailureBrowser
from gpt4roi_nb.widgets.region_chat import RegionChat
from gpt4roi_nb.widgets.roi_inspector import RoIInspector

__all__ = ["AttentionInspector", "FailureBrowser", "RegionChat", "RoIInspector"]
