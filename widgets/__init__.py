"""The notebook's views.

`RegionChat`: draw boxes on an image and talk about them. `TrainingMonitor`: a training as it goes.
"""

from gpt4roi_nb.widgets.region_chat import RegionChat
from gpt4roi_nb.widgets.training_monitor import TrainingMonitor

__all__ = ["RegionChat", "TrainingMonitor"]
