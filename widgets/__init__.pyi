from .attention_inspector import AttentionInspector as AttentionInspector
from .failure_browser import FailureBrowser as FailureBrowser
from .region_chat import RegionChat as RegionChat
from .roi_inspector import RoIInspector as RoIInspector
from .training_monitor import TrainingMonitor as TrainingMonitor
