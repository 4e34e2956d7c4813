"""Examine how good the demo checkpoint is on freshly drawn scenes.

`python -m gpt4roi_nb.demo.check --scenes 300 --seed 321` prints the figures of its card.
"""

from gpt4roi_nb.demo.check.answerer import model_answerer
from gpt4roi_nb.demo.check.figures import JOINT, Figures, measure, measure_on
from gpt4roi_nb.demo.check.tables import table

__all__ = ["JOINT", "Figures", "measure", "measure_on", "model_answerer", "table"]
