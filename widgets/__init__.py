"""The notebook's views. `RegionChat`: draw boxes on an image and talk about them."""

from gpt4roi_nb.widgets.region_chat import RegionChat

__all__ = ["RegionChat"]
