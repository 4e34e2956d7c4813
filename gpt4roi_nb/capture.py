"""What is inside: attention, ablations and region features, recorded only when asked for.

`Answer.attention`, `Answer.ablate`, `Answer.occlusion` and `RegionSession.roi_features` return these; `faithfulness`
says which map explains a model, with a number.
"""

from gpt4roi_nb.inside.ablation import HOWS, Ablation
from gpt4roi_nb.inside.attention import Attention
from gpt4roi_nb.inside.components import PCA
from gpt4roi_nb.inside.faithfulness import MAPS, Faithfulness, faithfulness
from gpt4roi_nb.inside.lens import LogitLens
from gpt4roi_nb.inside.likeness import Neighbours
from gpt4roi_nb.inside.recording import eager_attention
from gpt4roi_nb.inside.roi_features import RoIFeatures
from gpt4roi_nb.inside.sinks import Sink

__all__ = [
    "HOWS",
    "MAPS",
    "PCA",
    "Ablation",
    "Attention",
    "Faithfulness",
    "LogitLens",
    "Neighbours",
    "RoIFeatures",
    "Sink",
    "eager_attention",
    "faithfulness",
]
