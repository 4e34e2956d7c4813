"""What is inside: attention, ablations and region features, recorded only when asked for.

`Answer.attention`, `Answer.ablate`, `Answer.occlusion` and `RegionSession.roi_features` return these; `faithfulness`
says which map explains a model, with a number.
"""

from gpt4roi_nb.capture.ablation import ABLATIONS, Ablation
from gpt4roi_nb.capture.attention import Attention
from gpt4roi_nb.capture.faithfulness import MAPS, Faithfulness, faithfulness
from gpt4roi_nb.capture.logit_lens import LogitLens
from gpt4roi_nb.capture.pca import PCA
from gpt4roi_nb.capture.recording import eager_attention
from gpt4roi_nb.capture.roi_features import RoIFeatures
from gpt4roi_nb.capture.similarity import Neighbours
from gpt4roi_nb.capture.sinks import Sink

__all__ = [
    "ABLATIONS",
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
