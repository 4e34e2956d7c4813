"""Annotation formats, one file each, and the generated world that writes them.

`load(format, annotations, images)` gives a data set of records, `Mixture` several as one, `preview` shows some.
"""

from typing import TYPE_CHECKING

from gpt4roi_nb.lazy import lazily

if TYPE_CHECKING:
    from gpt4roi_nb.data.augmentation import augment
    from gpt4roi_nb.data.dataset import FORMATS, RegionDataset, load
    from gpt4roi_nb.data.from_scenes import scene_records
    from gpt4roi_nb.data.mixture import Mixture
    from gpt4roi_nb.data.previews import preview
    from gpt4roi_nb.data.problems import BadRecord
    from gpt4roi_nb.data.record import Record

__all__ = ["FORMATS", "BadRecord", "Mixture", "Record", "RegionDataset", "augment", "load", "preview", "scene_records"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "FORMATS": "dataset",
        "BadRecord": "problems",
        "Mixture": "mixture",
        "Record": "record",
        "RegionDataset": "dataset",
        "augment": "augmentation",
        "load": "dataset",
        "preview": "previews",
        "scene_records": "from_scenes",
    },
)
