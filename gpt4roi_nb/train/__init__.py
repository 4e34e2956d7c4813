"""Training: `train` runs the two published stages, or trains any parts; `Probes` are questions asked meanwhile."""

from gpt4roi_nb.quantization import without_advice

with without_advice():  # the trainer imports bitsandbytes if it is installed
    import transformers.trainer  # noqa: F401

from gpt4roi_nb.train.arguments import PUBLISHED
from gpt4roi_nb.train.loop import train
from gpt4roi_nb.train.parts import begin_anew
from gpt4roi_nb.train.probes import Probes
from gpt4roi_nb.train.run import TrainingRun

__all__ = ["PUBLISHED", "Probes", "TrainingRun", "begin_anew", "train"]
