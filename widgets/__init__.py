"""The notebook's views.

`RegionChat`: draw boxes on an image and talk about them. `FailureBrowser`: see where a model fails, and ask again.
"""

from gpt4roi_nb.widgets.failure_browser import FailureBrowser
from gpt4roi_nb.widgets.region_chat import RegionChat

__all__ = ["FailureBrowser", "RegionChat"]
