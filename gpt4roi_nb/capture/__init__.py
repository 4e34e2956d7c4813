"""Look inside the model: attention, ablations and region features, recorded only on request.

`Answer.attention`, `Answer.ablate`, `Answer.occlusion` and `RegionSession.roi_features` return these; `faithfulness`
measures how well each map explains a model.
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
