"""Browse the predictions of a `Result` in FiftyOne: look at them, sort, search, select, tag.

FiftyOne displays and selects; the model stays in the kernel. docs/failures.md explains how the parts fit together.
"""

from gpt4roi_nb.failures.comparison import add_comparison
from gpt4roi_nb.failures.database import NoDatabase, connect
from gpt4roi_nb.failures.dataset import to_fiftyone
from gpt4roi_nb.failures.error_kinds import ERROR_KINDS, error_kinds
from gpt4roi_nb.failures.features import Vectors, add_features
from gpt4roi_nb.failures.heat_maps import add_attention
from gpt4roi_nb.failures.rows import field_of
from gpt4roi_nb.failures.tags import DatasetGone, label_ids, open_dataset, read_tags, tag
from gpt4roi_nb.failures.zoo_model import add_to_zoo, zoo_model

__all__ = [
    "ERROR_KINDS",
    "DatasetGone",
    "NoDatabase",
    "Vectors",
    "add_attention",
    "add_comparison",
    "add_features",
    "add_to_zoo",
    "connect",
    "error_kinds",
    "field_of",
    "label_ids",
    "open_dataset",
    "read_tags",
    "tag",
    "to_fiftyone",
    "zoo_model",
]
